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


def inputs_of(*, proposals: bool) -> list[dict[str, object]]:
    """Name, dtype and shape of each input. An axis with a name instead of a number has any length."""
    image: dict[str, object] = {"name": IMAGE, "dtype": "uint8", "shape": ["height", "width", 3]}
    return [image, {"name": BOXES, "dtype": "float32", "shape": ["regions", 4]}] if proposals else [image]


def outputs_of() -> list[dict[str, object]]:
    """Name, dtype and shape of each output."""
    return [
        {"name": "boxes", "dtype": "float32", "shape": ["detections", 4]},
        {"name": "scores", "dtype": "float32", "shape": ["detections"]},
        {"name": "labels", "dtype": "int64", "shape": ["detections"]},
    ]


@dataclass(frozen=True, kw_only=True)
class ImageForm:
    """The form of the image that a graph takes. stretch: how 16-bit images become 8-bit ones."""

    layout: str = "HWC"
    channels: str = "RGB"
    range: tuple[int, int] = (0, 255)
    stretch: Stretch = Stretch.none


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

    def __post_init__(self) -> None:
        if self.file != Path(self.file).name or not self.file:
            raise ValueError(f"file: expected the name of a file in the same folder, got {self.file!r:.100}")
        if (self.inputs, self.outputs) != (inputs_of(proposals=self.needs_boxes), outputs_of()):
            raise ValueError("inputs, outputs: expected those of this version of detpipe, got others")
        if self.proposals is not None and not isinstance(self.proposals.get("method"), str):
            raise ValueError("proposals: expected a proposer's method and settings, got no method")
        most = self.detect.get("max_proposals")
        if not isinstance(most, int) or most < 1:
            raise ValueError(f"detect.max_proposals: expected a number from 1, got {most!r:.100}")

    @property
    def max_proposals(self) -> int:
        """The number of proposals of an image that the graph uses, the first ones."""
        return int(self.detect["max_proposals"])

    def to_json(self) -> dict[str, Any]:
        """The values of detector.json."""
        values: dict[str, Any] = plain(self)
        if self.calibration is None:
            del values["calibration"]
        return values


def read_description(folder: Path) -> ExportDescription:
    """The description in the folder of an export.

    Raises DataclassJsonError, which names the file and each wrong key, for a damaged file and one of another version of
    detpipe, and FileNotFoundError without a file.
    """
    return read_dataclass(folder / DESCRIPTION, ExportDescription, "export it again with `detpipe export`")
