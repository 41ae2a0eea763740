"""What the commands that look into proposals share: which proposals.lmdb, and which split of it."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from pathlib import Path

from detpipe.datasets.source import Split
from detpipe.proposals.proposals_db import find_database
from detpipe.runs.command import Command
from detpipe.runs.stored_split import StoredSplit, open_split


@dataclass(kw_only=True)
class ProposalsCommand(Command):
    """The settings of every command that looks into proposals."""

    path: str | None = None
    """A proposals.lmdb, or a run folder with one; null: the one in run_dir."""

    @property
    def database(self) -> Path:
        """The proposals.lmdb. Raises FileNotFoundError where there is none."""
        return find_database(self.run_dir if self.path is None else self.path)


@dataclass(kw_only=True)
class SplitCommand(ProposalsCommand):
    """The settings of every command that looks at the proposals of one split."""

    split: Split = Split.test
    """train, val or test."""

    def open_split(self) -> StoredSplit:
        """That split of the database.

        Raises ValueError where the data set has no such split, ArtefactError where the proposals were made on another.
        """
        return open_split(self.database, self.split, self.data_source.load(self.split))


@dataclass(kw_only=True)
class ProposalsInfo(ProposalsCommand):
    """Settings of `detpipe proposals info`."""


@dataclass(kw_only=True)
class ProposalsVerify(ProposalsCommand):
    """Settings of `detpipe proposals verify`. With a data set its images are compared, too."""


@dataclass(kw_only=True)
class ProposalsRecall(SplitCommand):
    """Settings of `detpipe proposals recall`."""

    against: list[str] = field(default_factory=list)
    """Other run folders, or proposals.lmdb, to compare with: of the same data set, other proposals."""
    budgets: list[int] = field(default_factory=lambda: [100, 500, 1000, 2000])
    """The numbers of proposals in the tables."""
    resamples: int = 1000
    """How often the images are drawn anew for the intervals; 0: no intervals."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.budgets or min(self.budgets) < 1:
            raise ValueError(f"budgets: expected numbers of proposals from 1, got {self.budgets}")
        if self.resamples < 0:
            raise ValueError(f"resamples: expected a number from 0 (no intervals), got {self.resamples}")


@dataclass(kw_only=True)
class ProposalsShow(SplitCommand):
    """Settings of `detpipe proposals show`."""

    images: list[str] = field(default_factory=list)
    """Ids of the images to show; none: the first ones of the split."""
    count: int = 12
    """How many of the first images, where `images` names none."""
    top: int = 10
    """How many of the first boxes are drawn, thin."""
    budget: int = 1000
    """The best box of an object is looked for among so many of the first boxes."""
    min_iou: float = 0.5
    """An object whose best box has a smaller IoU is missed."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.count < 1 or self.top < 0 or self.budget < 1:
            got = f"{self.count}, {self.top} and {self.budget}"
            raise ValueError(f"count, top, budget: expected numbers from 1, 0 and 1, got {got}")
        if not 0 < self.min_iou <= 1:
            raise ValueError(f"min_iou: expected an IoU above 0, at most 1, got {self.min_iou}")


class ExportFormat(enum.Enum):
    """Whose file it is."""

    coco = "coco"
    """COCO's result list (.json)."""
    detectron2 = "detectron2"
    """Detectron2's dict of lists (.pkl)."""
    mmdetection = "mmdetection"
    """MMDetection 3's dict from "folder/file.jpg" (.pkl)."""
    mmdetection2 = "mmdetection2"
    """MMDetection 2's list in the order of the data set (.pkl)."""
    rcnn_mat = "rcnn_mat"
    """R-CNN's cells, whole pixels (.mat)."""


@dataclass(kw_only=True)
class ProposalsExport(SplitCommand):
    """Settings of `detpipe proposals export`."""

    format: ExportFormat = ExportFormat.coco
    """coco, detectron2, mmdetection, mmdetection2 or rcnn_mat."""
    out: str = ""
    """The file to write; one that is there is replaced."""


@dataclass(kw_only=True)
class ProposalsMerge(Command):
    """Settings of `detpipe proposals merge`. The data set is the whole one."""

    shards: list[str] = field(default_factory=list)
    """Each a proposals.lmdb, or a run folder with one."""
