"""What every detector does with images: one image, many, or a stream of files; with its own boxes, or the caller's.

Torch is not imported here: an exported detector needs none.
"""

from __future__ import annotations

import abc
import logging
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt
from PIL import Image as PillowImage

from detpipe import boxes as geometry
from detpipe.classify.classifier_folder import ClassifierError
from detpipe.datasets.image_file import AnyImage, BrokenImageError, as_image
from detpipe.proposals.box_columns import snapped
from detpipe.proposals.proposer import SourcedProposals
from detpipe.report.image_detections import ImageDetections
from detpipe.runs.image_stream import ImageStream, image_paths, is_many
from detpipe.runs.operating_point import DEFAULT, shown_from
from detpipe.structures import Detections, Float32Array, Image, LeftOut, Proposals, ReadOptions

logger = logging.getLogger(__name__)


class ImagePredictor(abc.ABC):
    """A detector as a function of images. A subclass says what it detects with.

    options: how images are read, and stretched. best_threshold: the score with the best F1 on the test images of the
    run, 0.5 if it was not evaluated; pictures show detections from this score.
    """

    options: ReadOptions
    best_threshold: float

    @property
    @abc.abstractmethod
    def classes(self) -> tuple[str, ...]:
        """The names of the classes in label order: label k is classes[k - 1]."""

    @property
    @abc.abstractmethod
    def proposes_itself(self) -> bool:
        """Whether the network needs no proposals."""

    @property
    @abc.abstractmethod
    def max_proposals(self) -> int:
        """The number of proposals of an image that are classified: the best ones."""

    @abc.abstractmethod
    def proposed(self, image: Image) -> Proposals:
        """The proposals of the detector's own proposer."""

    @abc.abstractmethod
    def predict_many(self, images: Iterable[tuple[Image, Float32Array]]) -> Iterator[Detections]:
        """Yield the detections of each pair (image, boxes (R, 4)), in order. Images are read ahead."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(classes: {', '.join(self.classes)})"

    def __call__(self, image: AnyImage, *, threshold: float = 0.0) -> ImageDetections:
        """Detect objects in one image, as `predict`. A folder or a pattern is refused."""
        return self._predict_one(image, None, threshold)

    @overload
    def predict(
        self,
        image: Image | PillowImage.Image,
        proposals: Proposals | npt.ArrayLike | None = None,
        *,
        threshold: float = 0.0,
    ) -> ImageDetections: ...

    @overload
    def predict(
        self,
        image: str | PathLike[str],
        proposals: Proposals | npt.ArrayLike | None = None,
        *,
        threshold: float = 0.0,
    ) -> Any: ...

    def predict(
        self, image: AnyImage, proposals: Proposals | npt.ArrayLike | None = None, *, threshold: float = 0.0
    ) -> ImageDetections | ImageStream:
        """Detect objects in one image: an (H, W, 3) uint8 RGB array, a PIL image, or a path.

        A path may also be a folder or a pattern such as "photos/*.jpg": then as `stream`. For type checkers, calling
        the detector always gives the detections of one image, and `stream` always of many.
        Other arrays are converted by the rules of `image_file.as_image`: grey (H, W) or (H, W, 1), RGBA (H, W, 4),
        uint16. An opened file gives the same result as its path. proposals: by default from the detector's own
        proposer; else Proposals or boxes (N, 4), x1 y1 x2 y2 in pixels, the best first, of which
        the parts within the image are classified. A network that proposes itself also does so if `proposals` is empty;
        other detectors then return no detections.
        threshold: detections below this score are left out. The detector's own score_floor is a lower limit.
        Label k is self.classes[k - 1]. The result holds a reference to the image, not a copy.
        Raises BrokenImageError for an unreadable file, MissingImageError for a path to nothing, both ValueErrors, and
        ValueError that names the argument for other images and boxes.
        """
        if isinstance(image, (str, PathLike)) and is_many(image):
            if proposals is not None:
                raise ValueError(f"proposals: expected none for the images of {fspath(image)}; use predict_batch")
            return self.stream(image, threshold=threshold)
        return self._predict_one(image, proposals, threshold)

    def _predict_one(
        self, image: AnyImage, proposals: Proposals | npt.ArrayLike | None, threshold: float
    ) -> ImageDetections:
        return self._of_image(next(self.predict_many([self.with_regions(image, proposals)])), image, threshold)

    def stream(
        self, images: str | PathLike[str] | Iterable[str | PathLike[str]], *, threshold: float = 0.0
    ) -> ImageStream:
        """Detect objects in many image files, one after the other, while the next ones are read and proposed on.

        images: a folder, with its subfolders; a pattern such as "photos/*.jpg"; or paths. The result is iterated, gives
        the detections of each image with their `path`, in the order of the paths, and keeps none. Its length is the
        number of files. Unreadable images are named in a warning, counted, and listed in `left_out`. threshold: as in
        `predict`. Raises ValueError if there are no images.
        """
        paths = image_paths(images)

        def detections(left_out: list[LeftOut]) -> Iterator[ImageDetections]:
            readable: deque[Path] = deque()  # several images may be in progress

            def regions() -> Iterator[tuple[Image, Float32Array]]:
                for path in paths:
                    try:
                        given = self.with_regions(path)
                    except BrokenImageError as error:
                        left_out.append(LeftOut.because(path, error))
                        logger.warning("left out: %s", left_out[-1])
                    else:
                        readable.append(path)
                        yield given

            for found in self.predict_many(regions()):
                yield self._of_image(found, readable.popleft(), threshold)

        return ImageStream(paths, detections)

    def _of_image(self, found: Detections, image: AnyImage, threshold: float = 0.0) -> ImageDetections:
        kept = found[found.scores >= threshold] if threshold > 0 else found
        floor = max(threshold, self.best_threshold)
        return ImageDetections.of(kept, classes=self.classes, source=image, options=self.options, floor=floor)

    def predict_batch(
        self,
        images: Sequence[AnyImage],
        proposals: Sequence[Proposals | npt.ArrayLike] | None = None,
        *,
        threshold: float = 0.0,
    ) -> list[ImageDetections]:
        """Detect objects in several images. Returns one ImageDetections per image, in order; no images give [].

        The next images are read and proposed on while one is classified. Crops of several images share a batch, so
        scores may differ from `predict` in the last bits.
        proposals: one per image. threshold: as in `predict`. Raises ValueError for another number, and as `predict` at
        the first invalid image.
        """
        one_image = isinstance(images, (str, PathLike, PillowImage.Image)) or getattr(images, "ndim", 4) < 4
        if one_image or not isinstance(images, (Sequence, np.ndarray)):
            raise ValueError(f"images: expected a list of images, got one {type(images).__name__}; give [image]")
        if isinstance(proposals, Proposals) or (proposals is not None and not hasattr(proposals, "__len__")):
            raise ValueError(f"proposals: expected a list, one for each image, got one {type(proposals).__name__}")
        if proposals is not None and len(proposals) != len(images):
            raise ValueError(
                f"proposals: expected one for each of {len(images)} images, got {len(proposals)}; pass one per "
                "image, or None"
            )
        given = proposals if proposals is not None else [None] * len(images)
        found = self.predict_many(map(self.with_regions, images, given))
        return [self._of_image(one, image, threshold) for one, image in zip(found, images, strict=True)]

    def with_regions(
        self, image: AnyImage, proposals: Proposals | npt.ArrayLike | None = None
    ) -> tuple[Image, Float32Array]:
        """Return the pixels of an image and the boxes to classify, best first, for `predict_many`.

        A network that proposes itself gets no boxes. Arguments and errors are as in `predict`.
        """
        pixels = as_image(image, self.options)
        if proposals is None and self.proposes_itself:
            return pixels, np.zeros((0, 4), dtype=np.float32)
        image_size = (pixels.shape[0], pixels.shape[1])
        if proposals is None:
            # Rounded as in proposals.lmdb, so that the results equal the results of `detpipe detect`.
            proposals = snapped(SourcedProposals(self.proposed(pixels), None), image_size).proposals
        boxes = geometry.clip(as_boxes(proposals), image_size)
        return pixels, boxes[geometry.area(boxes) > 0][: self.max_proposals]


def best_threshold_of(folder: Path) -> float:
    """The score with the best F1, from a detector's folder. A damaged file is named in a warning: only pictures use it.

    DEFAULT if the detector was not evaluated.
    """
    try:
        return shown_from(folder, None)[0]
    except ClassifierError as error:
        logger.warning("pictures show detections from a score of %.1f, because: %s", DEFAULT, error)
        return DEFAULT


def as_boxes(proposals: Proposals | npt.ArrayLike) -> Float32Array:
    """The boxes (N, 4) of proposals, or of an array of boxes in order, best first; [] gives (0, 4).

    Raises ValueError that names the argument `proposals` for another shape, numbers that are not finite, and boxes with
    negative sides.
    """
    if isinstance(proposals, Proposals):
        return proposals.boxes
    expected = "proposals: expected Proposals or boxes (N, 4), x1 y1 x2 y2 in pixels"
    try:
        given = np.asarray(proposals)
    except ValueError as error:  # rows of several lengths
        raise ValueError(f"{expected}, got {type(proposals).__name__}, which is not an array of numbers") from error
    if given.dtype.kind not in "fiu" or not (given.shape == (0,) or (given.ndim == 2 and given.shape[1] == 4)):
        raise ValueError(f"{expected}, got {type(proposals).__name__} {given.shape} {given.dtype}")
    with np.errstate(over="ignore"):  # infinity is refused
        boxes = given.reshape(-1, 4).astype(np.float32)
    if not np.isfinite(boxes).all():
        raise ValueError(f"{expected}, got NaN, infinity or numbers beyond float32")
    wrong = np.flatnonzero((boxes[:, 2:] < boxes[:, :2]).any(axis=1))
    if len(wrong):
        raise ValueError(f"{expected}, x1 <= x2 and y1 <= y2, got {boxes[wrong[0]].tolist()} at {wrong[0]}")
    return boxes
