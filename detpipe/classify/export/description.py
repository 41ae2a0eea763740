"""detector.json, the description of an exported detector. It is read and written without torch and onnx."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detpipe.storage.dataclass_json import read_dataclass
from detpipe.storage.manifest import plain
from detpipe.structures import Stretch

DESCRIPTION = "detector.json"
GRAPH = "detector.onnx"
"""Names of the two files in the folder of an export."""

IMAGE, BOXES = "image", "proposals"
"""Names of the inputs."""
ANY_BATCH = 0
"""As a batch: any number of images."""

Axis = int | str
"""The length of an axis; a name for any length."""


@dataclass(frozen=True)
class GraphForm:
    """The sizes that a graph is made for.

    size: (height, width) of the image; None, any. batch: number of images, ANY_BATCH for any; None, one image without
    an axis for it.
    """

    size: tuple[int, int] | None = None
    batch: int | None = None

    def inputs(self, *, proposals: bool) -> list[dict[str, Any]]:
        """Name, dtype and shape of each input."""
        height, width = self.size or ("height", "width")
        image = {"name": IMAGE, "dtype": "uint8", "shape": [*self._first(), height, width, 3]}
        boxes = {"name": BOXES, "dtype": "float32", "shape": [*self._first(), "regions", 4]}
        return [image, boxes] if proposals else [image]

    def outputs(self, most: int) -> list[dict[str, Any]]:
        """Name, dtype and shape of each output. most: the number of detections of each image of a batch."""
        rows: list[Axis] = ["detections"] if self.batch is None else [*self._first(), most]
        return [
            {"name": "boxes", "dtype": "float32", "shape": [*rows, 4]},
            {"name": "scores", "dtype": "float32", "shape": rows},
            {"name": "labels", "dtype": "int64", "shape": rows},
        ]

    def _first(self) -> list[Axis]:
        return [] if self.batch is None else [self.batch or "batch"]


ANY_IMAGE = GraphForm()
"""One image of any size."""


@dataclass(frozen=True, kw_only=True)
class ImageForm:
    """The form of the image that a graph takes.

    stretch: how 16-bit images become 8-bit ones. size: (height, width); null, any. For a size, an image is resized with
    its aspect ratio, put into the top left corner, and the rest has the level `fill`.
    """

    layout: str = "HWC"
    channels: str = "RGB"
    range: tuple[int, int] = (0, 255)
    stretch: Stretch = Stretch.none
    size: tuple[int, int] | None = None
    fill: int = 114

    def __post_init__(self) -> None:
        if self.size is not None and min(self.size) < 1:
            raise ValueError(f"image: expected a height and width from 1 as its size, got {list(self.size)}")
        if not 0 <= self.fill <= 255:
            raise ValueError(f"image: expected a level from 0 to 255 as its fill, got {self.fill}")


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """The images that an INT8 graph was calibrated on. folder: null for training images of the run."""

    images: int
    folder: str | None


@dataclass(frozen=True, kw_only=True)
class ExportDescription:
    """The content of detector.json. docs/deploy.md explains each key."""

    file: str = GRAPH
    opset: int
    kind: str
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    needs_boxes: bool
    inputs: list[dict[str, Any]]
    outputs: list[dict[str, Any]]
    image: ImageForm
    proposals: dict[str, Any] | None
    detect: dict[str, Any]
    precision: str
    quantize: str
    calibration: Calibration | None = None
    batch: int | None = None

    def __post_init__(self) -> None:
        if self.file != Path(self.file).name or not self.file:
            raise ValueError(f"file: expected the name of a file in the same folder, got {self.file!r:.100}")
        if self.proposals is not None and not isinstance(self.proposals.get("method"), str):
            raise ValueError("proposals: expected a proposer's method and settings, got no method")
        most = self.detect.get("max_proposals")
        if not isinstance(most, int) or most < 1:
            raise ValueError(f"detect.max_proposals: expected a number from 1, got {most!r:.100}")
        if self.batch is not None and (self.batch < 0 or not isinstance(self.detect.get("max_detections"), int)):
            raise ValueError("batch: expected a number of images and detect.max_detections, got others")
        inputs = self.form.inputs(proposals=self.needs_boxes)
        if (self.inputs, self.outputs) != (inputs, self.form.outputs(self.detect.get("max_detections", 0))):
            raise ValueError("inputs, outputs: expected the names that this version of detpipe writes, got others")

    @property
    def form(self) -> GraphForm:
        """The sizes that the graph is made for."""
        return GraphForm(self.image.size, self.batch)

    @property
    def max_proposals(self) -> int:
        """The number of proposals of an image that the graph uses, the first ones."""
        return int(self.detect["max_proposals"])

    def to_json(self) -> dict[str, Any]:
        """The values of detector.json."""
        values: dict[str, Any] = plain(self)
        for name in ("calibration", "batch"):
            if getattr(self, name) is None:
                del values[name]
        if self.image.size is None:
            del values["image"]["size"], values["image"]["fill"]
        return values


def read_description(folder: Path) -> ExportDescription:
    """The description in the folder of an export.

    Raises DataclassJsonError, which names the file and each wrong key, for a damaged file and one of another version of
    detpipe, and FileNotFoundError without a file.
    """
    return read_dataclass(folder / DESCRIPTION, ExportDescription, "export it again with `detpipe export`")
