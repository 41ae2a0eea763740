"""The settings of `detpipe proposals info`, `verify`, `recall`, `show`, `export` and `merge`."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from pathlib import Path

from detpipe.datasets.source import Split
from detpipe.proposals.proposals_db import find_database
from detpipe.runs.command import Command
from detpipe.runs.run_folder import RunFolder
from detpipe.runs.stored_split import StoredSplit, open_split


@dataclass(kw_only=True)
class ProposalsCommand(Command):
    """The settings of every command that reads a proposals.lmdb."""

    path: str | None = None
    """A proposals.lmdb, or a run folder that has one; null: run_dir."""

    @property
    def database(self) -> Path:
        """The path of the proposals.lmdb. Raises FileNotFoundError if it does not exist."""
        return find_database(self.run_dir if self.path is None else self.path)

    @property
    def dataset_folder(self) -> RunFolder:
        """The run folder of the database. `run_dir` is where the outputs go."""
        return RunFolder(self.database.parent)


@dataclass(kw_only=True)
class SplitCommand(ProposalsCommand):
    """The settings of every command that reads the proposals of one split."""

    split: Split = Split.test
    """The split of the data set: train, val or test."""

    def open_split(self) -> StoredSplit:
        """Open the split of the database.

        Raises ValueError if the data set has no such split, ArtefactError if the proposals are of other images.
        """
        return open_split(self.database, self.split, self.data_source.load(self.split))


@dataclass(kw_only=True)
class ProposalsInfo(ProposalsCommand):
    """Settings of `detpipe proposals info`."""


@dataclass(kw_only=True)
class ProposalsVerify(ProposalsCommand):
    """Settings of `detpipe proposals verify`. If a data set is given, its images are compared too."""


@dataclass(kw_only=True)
class ProposalsRecall(SplitCommand):
    """Settings of `detpipe proposals recall`."""

    against: list[str] = field(default_factory=list)
    """Run folders, or proposals.lmdb, with other proposals of the same data set, to compare with."""
    budgets: list[int] = field(default_factory=lambda: [100, 500, 1000, 2000])
    """The numbers of proposals per image in the tables."""
    resamples: int = 1000
    """Number of bootstrap resamples of the images for the confidence intervals; 0: no intervals."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.budgets or min(self.budgets) < 1:
            raise ValueError(f"budgets: expected numbers of proposals >= 1, got {self.budgets}")
        if self.resamples < 0:
            raise ValueError(f"resamples: expected a number >= 0 (0: no intervals), got {self.resamples}")


@dataclass(kw_only=True)
class ProposalsShow(SplitCommand):
    """Settings of `detpipe proposals show`."""

    images: list[str] = field(default_factory=list)
    """Ids of the images to show; empty: the first images of the split."""
    count: int = 12
    """Number of images to show if `images` is empty."""
    top: int = 10
    """Number of proposals to draw with thin lines, best first."""
    budget: int = 1000
    """Number of proposals, best first, among which the best box of each object is searched."""
    min_iou: float = 0.5
    """An object counts as found if its best box has this IoU or more."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.count < 1 or self.top < 0 or self.budget < 1:
            got = f"{self.count}, {self.top} and {self.budget}"
            raise ValueError(f"count, top, budget: expected numbers >= 1, 0 and 1, got {got}")
        if not 0 < self.min_iou <= 1:
            raise ValueError(f"min_iou: expected 0 < min_iou <= 1, got {self.min_iou}")


class ExportFormat(enum.Enum):
    """The format of exported proposals."""

    coco = "coco"
    """COCO's result list (.json)."""
    detectron2 = "detectron2"
    """Detectron2's dict of lists (.pkl)."""
    mmdetection = "mmdetection"
    """MMDetection 3's dict from "folder/file.jpg" (.pkl)."""
    mmdetection2 = "mmdetection2"
    """MMDetection 2's list in the order of the data set (.pkl)."""
    rcnn_mat = "rcnn_mat"
    """R-CNN's cell array, rounded to whole pixels (.mat)."""


@dataclass(kw_only=True)
class ProposalsExport(SplitCommand):
    """Settings of `detpipe proposals export`."""

    format: ExportFormat = ExportFormat.coco
    """The file format: coco, detectron2, mmdetection, mmdetection2 or rcnn_mat."""
    out: str = ""
    """The file to write; an existing file is replaced."""


@dataclass(kw_only=True)
class ProposalsMerge(Command):
    """Settings of `detpipe proposals merge`. `dataset` is the whole data set."""

    shards: list[str] = field(default_factory=list)
    """The proposals.lmdb to merge, or run folders that have one."""
