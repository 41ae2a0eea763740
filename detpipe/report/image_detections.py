"""Detections that know their image and the names of their classes: shown, drawn, saved, and as a table."""

from __future__ import annotations

import base64
import html
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Self

from detpipe.datasets.image_file import AnyImage, as_image
from detpipe.storage.atomic import write_bytes
from detpipe.structures import PLAIN_READING, Detections, GroundTruth, Image, ReadOptions

if TYPE_CHECKING:
    import pandas

# Drawing imports matplotlib for its fonts, so it is imported where a picture is made: a detector starts without it.

NOTEBOOK_SIDE = 900
"""The longest side of a picture in a notebook, in pixels. The file of a notebook holds its pictures."""


@dataclass(frozen=True, eq=False, repr=False)
class ImageDetections(Detections):
    """The detections of one image, with the image and the names of the classes. `Detector.predict` returns them.

    classes: names in label order, () if they are unknown. source: the image as it was given (an array, a PIL image or
    a path), without a copy; None if it is unknown. An array that is changed later is shown as it is then. options: how
    the file is read. floor: the smallest score that `show`, `plot`, `save` and a notebook draw, unless they are given
    another. All detections are kept, whatever the floor.
    """

    classes: tuple[str, ...] = ()
    source: AnyImage | None = None
    options: ReadOptions = PLAIN_READING
    floor: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        highest = int(self.labels.max(initial=0))
        if self.classes and highest > len(self.classes):
            raise ValueError(f"ImageDetections.labels: expected labels up to {len(self.classes)}, got {highest}")

    @classmethod
    def of(
        cls,
        found: Detections,
        *,
        classes: Sequence[str] = (),
        source: AnyImage | None = None,
        options: ReadOptions = PLAIN_READING,
        floor: float = 0.0,
    ) -> Self:
        """Give detections their classes and their image. The arrays are not copied."""
        return cls(found.boxes, found.scores, found.labels, tuple(classes), source, options, floor)

    def class_name(self, label: int) -> str | None:
        """The name of a label 1..K; None if the classes are unknown."""
        return self.classes[label - 1] if self.classes else None

    @property
    def names(self) -> list[str]:
        """The name of each detection's class; "label 3" if the classes are unknown."""
        return [one.name or f"label {one.label}" for one in self]

    @property
    def path(self) -> Path | None:
        """The image's file; None if the image was not given as a path."""
        return Path(self.source) if isinstance(self.source, (str, PathLike)) else None

    @property
    def image(self) -> Image:
        """The image, (H, W, 3) uint8 RGB. A file is read each time.

        Raises ValueError if the image is unknown, and the errors of reading the file.
        """
        if self.source is None:
            raise ValueError(
                "these detections do not know their image; draw them with detpipe.draw(image, found), or make them "
                "with ImageDetections.of(found, source=image)"
            )
        return as_image(self.source, self.options)

    def plot(self, *, threshold: float | None = None) -> Image:
        """The image with the boxes, class names and scores: a new array (H, W, 3) uint8 RGB.

        threshold: the smallest score that is drawn; None: `floor`. Raises as `image`.
        """
        return draw(self.image, self, threshold=self.floor if threshold is None else threshold)

    def show(self, *, threshold: float | None = None) -> None:
        """Show `plot` in the notebook, or in the picture viewer of the system.

        Raises RuntimeError where there is neither.
        """
        import PIL.Image
        import PIL.ImageShow

        picture = PIL.Image.fromarray(self.plot(threshold=threshold))
        if "ipykernel" in sys.modules:
            from IPython.display import display

            display(picture)
        elif not PIL.ImageShow.show(picture):
            raise RuntimeError("show: no picture viewer was found on this machine; write a file with save(path)")

    def save(self, path: str | PathLike[str], *, threshold: float | None = None) -> Path:
        """Write `plot` as a .jpg or .png file, atomically. Returns its path. Raises ValueError for another suffix."""
        from detpipe.report.drawing import image_to_png, to_jpeg

        target = Path(path)
        writers = {".jpg": to_jpeg, ".jpeg": to_jpeg, ".png": image_to_png}
        if target.suffix.lower() not in writers:
            raise ValueError(f"path: expected a name that ends with .jpg or .png, got {target}")
        write_bytes(target, writers[target.suffix.lower()](self.plot(threshold=threshold)))
        return target

    def to_pandas(self) -> pandas.DataFrame:
        """A table with the columns of detections.csv: file, class, score, x1, y1, x2, y2; a row for each detection.

        file is None if the image was not given as a path. Raises ImportError if pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise ImportError("to_pandas: pandas is not installed; pip install 'detpipe[pandas]'") from error
        table = pandas.DataFrame(self.boxes, columns=["x1", "y1", "x2", "y2"])
        table.insert(0, "file", None if self.path is None else str(self.path))
        table.insert(1, "class", self.names)
        table.insert(2, "score", self.scores)
        return table

    def _repr_html_(self) -> str:
        """The picture and a line of text, for a notebook; only the text where the image is unknown or unreadable."""
        shown = self[self.scores >= self.floor]
        text = f"{len(shown)} of {len(self)} detections have a score of {self.floor:.2f} or more: {shown!r}"
        try:
            picture = _embedded(self.plot())
        except (ValueError, OSError) as error:
            return f"<p>{html.escape(text)}</p><p>{html.escape(f'No picture: {error}')}</p>"
        return f'<img alt="detections" src="{picture}"><p>{html.escape(text)}</p>'


def draw(
    image: AnyImage,
    found: Detections | GroundTruth,
    *,
    classes: Sequence[str] | None = None,
    threshold: float = 0.0,
) -> Image:
    """Draw detections on an image, or objects (dashed): a new array (H, W, 3) uint8 RGB.

    image: an array, a PIL image or a path. found: boxes in pixels of this image; none give a copy of the image.
    classes: names in label order; None: those that the detections know, else "label 3". threshold: the smallest score
    that is drawn, for detections. Raises ValueError for a label without a name, and as `Detector.predict` for an image.
    """
    from detpipe.report.drawing import draw_detections, draw_ground_truth

    highest = int(found.labels.max(initial=0))
    if classes is None and isinstance(found, ImageDetections) and found.classes:
        classes = found.classes
    elif classes is None:
        classes = [f"label {label}" for label in range(1, highest + 1)]
    if highest > len(classes):
        raise ValueError(f"classes: expected a name for each of {highest} labels, got {len(classes)} names")
    options = found.options if isinstance(found, ImageDetections) else PLAIN_READING
    pixels = as_image(image, options)
    if isinstance(found, GroundTruth):
        return draw_ground_truth(pixels, found, classes)
    return draw_detections(pixels, found, classes, min_score=threshold)


def _embedded(image: Image) -> str:
    """The image as the text of a data address, scaled down to NOTEBOOK_SIDE."""
    from detpipe.report.drawing import scaled, to_jpeg

    scale = NOTEBOOK_SIDE / max(image.shape[:2])
    small = scaled(image, scale) if scale < 1 else image
    return "data:image/jpeg;base64," + base64.b64encode(to_jpeg(small)).decode("ascii")
