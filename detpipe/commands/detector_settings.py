"""The settings of commands on a trained detector. This file and what it imports do without torch."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from pathlib import Path

from detpipe.backbone.caffe.joining import Split
from detpipe.classify.settings import DetectConfig
from detpipe.network.settings import Precision
from detpipe.runs.command import Command
from detpipe.runs.run_folder import RunFolder


@dataclass(kw_only=True)
class Curve(Command):
    """Settings of `detpipe curve`."""

    budgets: list[int] = field(default_factory=lambda: [25, 50, 100, 200, 300, 500, 1000, 2000])
    """Numbers of proposals of an image; the largest stands in place of detect.max_proposals."""
    split: Split = Split.test
    """train, val or test. A number of proposals that is chosen on test images looks a little too good on them."""
    tolerance: float = 0.01
    """The share of the best mAP that one gives up for fewer boxes."""
    resamples: int = 1000
    """How often the images are drawn anew for the intervals; 0: no intervals."""
    detect: DetectConfig = field(default_factory=DetectConfig)
    """From scored regions to detections."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.budgets or min(self.budgets) < 1:
            raise ValueError(f"budgets: expected numbers of proposals from 1, got {self.budgets}")
        if not 0 <= self.tolerance < 1:
            raise ValueError(f"tolerance: expected a share from 0, below 1, got {self.tolerance}")
        if self.resamples < 0:
            raise ValueError(f"resamples: expected a number from 0 (no intervals), got {self.resamples}")
        if self.detect.dedup_step or self.detect.second_look or self.detect.cascade_size is not None:
            raise ValueError(
                f"curve: expected each proposal scored by itself, got detect.dedup_step={self.detect.dedup_step}, "
                f"detect.second_look={self.detect.second_look} and detect.cascade_size={self.detect.cascade_size}, "
                "which choose among them; leave them out"
            )


class Format(enum.Enum):
    """onnx for onnxruntime and others; torch is torch.export's program, for PyTorch alone."""

    onnx = "onnx"
    torch = "torch"


@dataclass(kw_only=True)
class Export(Command):
    """Settings of `detpipe export`."""

    format: Format = Format.onnx
    """onnx or torch."""
    out: str | None = None
    """The folder to write; null is export/ in the run folder."""
    detect: DetectConfig = field(default_factory=DetectConfig)
    """How regions become detections: written beside the network."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.detect.dedup_step or self.detect.cascade_size is not None:
            raise ValueError(
                f"export: expected one look at every region, got detect.dedup_step={self.detect.dedup_step} and "
                f"detect.cascade_size={self.detect.cascade_size}, which no file of a network has; leave both out"
            )
        if self.detect.precision is Precision.bf16:
            raise ValueError(
                "detect.precision: expected float32 or auto, got bf16: an exported network computes in float32; leave "
                "it out"
            )

    @property
    def out_folder(self) -> Path:
        """Where the files go. Raises ValueError for a folder that holds the run itself."""
        path = Path(self.out) if self.out is not None else self.folder.path / "export"
        if self.folder.classifier.resolve().is_relative_to(path.resolve()):
            raise ValueError(f"out: expected a folder of its own, got {path}, which holds the run's own classifier")
        return path


LAYERS = ("fc1", "fc2")


@dataclass(kw_only=True)
class Compress(Command):
    """Settings of `detpipe compress`."""

    keep: float = 0.9
    """Share of each layer's sum of squared weights that stays; it says the ranks where `ranks` doesn't."""
    ranks: list[int] = field(default_factory=list)
    """The ranks of the two layers; 0 leaves a layer as it is."""
    out: str | None = None
    """The new run folder, with a copy of the proposals; null is run_dir with _compressed behind it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.ranks = list(self.ranks)
        if not 0 < self.keep <= 1:
            raise ValueError(f"keep: expected a share in (0, 1], got {self.keep}")
        if len(self.ranks) not in (0, len(LAYERS)) or min(self.ranks, default=0) < 0:
            raise ValueError(f"ranks: expected two numbers from 0, or none, got {self.ranks}")

    @property
    def new_folder(self) -> RunFolder:
        """Where the compressed detector stands. Raises ValueError for the run folder itself."""
        path = Path(self.out) if self.out is not None else Path(f"{self.run_dir.rstrip('/')}_compressed")
        if path.resolve() == Path(self.run_dir).resolve():
            raise ValueError(f"out: expected another folder than the run's own, got {self.out}")
        return RunFolder(path)


@dataclass(kw_only=True)
class ClassChange(Command):
    """The settings of both commands."""

    name: str | None = None
    """The class."""
    enough: int = 1200
    """Regions of a new class to learn from: beyond those in the store, images are looked at until there are so many."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.enough < 0:
            raise ValueError(f"enough: expected a number of regions from 0, got {self.enough}")


@dataclass(kw_only=True)
class ClassesAdd(ClassChange):
    """Settings of `detpipe classes add`. name: of a class of the data set; null: the one that the detector lacks."""


@dataclass(kw_only=True)
class ClassesRemove(ClassChange):
    """Settings of `detpipe classes remove`."""
