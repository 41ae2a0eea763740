"""The settings of `detpipe labels export` and `labels diff`. This file and what it imports do not need torch."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from pathlib import Path

from detpipe.runs.command import Command


class Tool(enum.Enum):
    """A format of another tool."""

    coco = "coco"
    """COCO instances, which most tools read."""
    cvat = "cvat"
    """CVAT for images 1.1."""
    label_studio = "label_studio"
    """Label Studio's JSON."""
    fiftyone = "fiftyone"
    """labels.json of FiftyOneImageDetectionDataset."""


@dataclass(kw_only=True)
class LabelsExport(Command):
    """Settings of `detpipe labels export`."""

    tool: Tool = Tool.coco
    """The format: coco, cvat (CVAT for images 1.1), label_studio (tasks with predictions) or fiftyone (labels.json)."""
    out: str | None = None
    """The file to write."""
    only_suspects: bool = False
    """Only images with a suspect in audit.json of the run folder."""
    min_score: float = 0.05
    """Detections of the test images below this score are left out. Label Studio and FiftyOne get them."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.min_score <= 1:
            raise ValueError(f"min_score: expected a score in [0, 1], got {self.min_score}")

    @property
    def out_file(self) -> Path:
        """Raises ValueError if it is not given, or is a folder."""
        if not self.out:
            raise ValueError("out: expected the file to write, got none; give out=FILE")
        if Path(self.out).is_dir():
            raise ValueError(f"out: expected the file to write, got the folder {self.out}; add a name")
        return Path(self.out)


@dataclass(kw_only=True)
class LabelsDiff(Command):
    """Settings of `detpipe labels diff`."""

    edited: str | None = None
    """The file that the tool has exported: COCO, CVAT for images 1.1, Label Studio's JSON or FiftyOne's labels.json.
    Its content shows which."""
    out: str = "corrections.json"
    """The file of corrections to write, for `detpipe labels apply`."""
    tolerance: float = 0.5
    """A box is the same if no side has moved by more than this number of pixels: tools round."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.tolerance < 100:
            raise ValueError(f"tolerance: expected pixels from 0 to below 100, got {self.tolerance}")

    @property
    def edited_file(self) -> Path:
        """Raises ValueError if it is not given."""
        if not self.edited:
            raise ValueError("edited: expected the file that the tool has exported, got none; give edited=FILE")
        return Path(self.edited)
