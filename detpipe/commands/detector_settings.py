"""The settings of commands on a trained detector. This file and what it imports do not need torch."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from pathlib import Path

from detpipe.classify.export.description import GraphForm
from detpipe.classify.settings import DetectConfig
from detpipe.datasets.source import Split
from detpipe.network.settings import Precision
from detpipe.runs.command import Command
from detpipe.runs.run_folder import RunFolder


@dataclass(kw_only=True)
class Curve(Command):
    """Settings of `detpipe curve`."""

    budgets: list[int] = field(default_factory=lambda: [25, 50, 100, 200, 300, 500, 1000, 2000])
    """Numbers of proposals per image to measure. The largest replaces detect.max_proposals."""
    split: Split = Split.test
    """train, val or test. If you choose the number of proposals by this curve, measure on val, not on test."""
    tolerance: float = 0.01
    """Share of the best mAP that you would give up for fewer proposals, for the recommendation."""
    resamples: int = 1000
    """Number of bootstrap resamples for the confidence intervals; 0: none."""
    detect: DetectConfig = field(default_factory=DetectConfig)
    """From scored regions to detections."""
    precision: Precision = Precision.auto
    """float32 or bf16; auto: the precision saved with the classifier."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.budgets or min(self.budgets) < 1:
            raise ValueError(f"budgets: expected numbers of at least 1, got {self.budgets}")
        if not 0 <= self.tolerance < 1:
            raise ValueError(f"tolerance: expected a share in [0, 1), got {self.tolerance}")
        if self.resamples < 0:
            raise ValueError(f"resamples: expected at least 0 (0: no intervals), got {self.resamples}")
        detect = self.detect
        if detect.dedup_step or detect.features.refine or detect.crops.cascade_size is not None:
            raise ValueError(
                "curve: expected settings that score each proposal independently, got detect.dedup_step="
                f"{detect.dedup_step}, detect.features.refine={detect.features.refine}, "
                f"detect.crops.cascade_size={detect.crops.cascade_size}; leave them out"
            )


class Quantize(enum.Enum):
    """none: float32. int8: convolutions in INT8, the rest in float32."""

    none = "none"
    int8 = "int8"


SMALLEST, LARGEST = 8, 8192
"""Sides in pixels of an exported graph's input."""


@dataclass(kw_only=True)
class Export(Command):
    """Settings of `detpipe export`."""

    out: str | None = None
    """The output folder. null: export/ in the run folder."""
    detect: DetectConfig = field(default_factory=DetectConfig)
    """From scored regions to detections. These settings become a part of the graph."""
    quantize: Quantize = Quantize.none
    """int8: the convolutions of the backbone and its maps compute in INT8, calibrated on images; detections differ a
    little. none: float32."""
    calibration: str | None = None
    """quantize=int8: a folder of images to calibrate on, test images of the run excluded. null: training images of the
    run."""
    calibration_images: int = 64
    """quantize=int8: number of images to calibrate on, evenly spaced."""
    size: list[int] | None = None
    """[height,width] of the graph's input, for runtimes that need a fixed size. An image is brought to it with its
    aspect ratio (letterbox). null: images of any size."""
    batch: int | None = None
    """Number of images that the graph takes at once; 0: any number. Needs `size`. null: one image, without an axis for
    it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size is not None:
            self.size = list(self.size)
            if len(self.size) != 2 or not SMALLEST <= min(self.size) <= max(self.size) <= LARGEST:
                raise ValueError(f"size: expected a height and width from {SMALLEST} to {LARGEST}, got {self.size}")
        if self.batch is not None and (self.batch < 0 or self.size is None):
            raise ValueError(
                f"batch: expected a number of images, or 0 for any, with size=[HEIGHT,WIDTH], got batch={self.batch} "
                f"and size={self.size}"
            )
        if self.calibration_images < 1:
            raise ValueError(f"calibration_images: expected at least 1, got {self.calibration_images}")
        if self.calibration is not None and self.quantize is Quantize.none:
            raise ValueError("calibration: expected quantize=int8 with it, got quantize=none; leave it out")
        if self.detect.dedup_step or self.detect.crops.cascade_size is not None:
            raise ValueError(
                "export: expected settings that score all regions once, got detect.dedup_step="
                f"{self.detect.dedup_step}, detect.crops.cascade_size={self.detect.crops.cascade_size}; leave them out"
            )

    @property
    def form(self) -> GraphForm:
        """The sizes that the graph is made for."""
        return GraphForm(None if self.size is None else (self.size[0], self.size[1]), self.batch)

    @property
    def out_folder(self) -> Path:
        """The output folder. Raises ValueError for a folder that contains the run's classifier."""
        path = Path(self.out) if self.out is not None else self.folder.path / "export"
        if self.folder.classifier.resolve().is_relative_to(path.resolve()):
            raise ValueError(f"out: expected a new folder, got {path}, which holds the run's own classifier")
        return path


LAYERS = ("fc1", "fc2")


@dataclass(kw_only=True)
class Compress(Command):
    """Settings of `detpipe compress`."""

    keep: float = 0.9
    """Share of each layer's sum of squared weights to keep. It determines the ranks, unless `ranks` is given."""
    ranks: list[int] = field(default_factory=list)
    """The ranks of the two layers. 0: leave this layer unchanged."""
    out: str | None = None
    """The new run folder, with a copy of the proposals. null: run_dir followed by _compressed."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.ranks = list(self.ranks)
        if not 0 < self.keep <= 1:
            raise ValueError(f"keep: expected a share in (0, 1], got {self.keep}")
        if len(self.ranks) not in (0, len(LAYERS)) or min(self.ranks, default=0) < 0:
            raise ValueError(f"ranks: expected two numbers of at least 0, or none, got {self.ranks}")

    @property
    def new_folder(self) -> RunFolder:
        """The run folder of the compressed detector. Raises ValueError for the old run folder."""
        path = Path(self.out) if self.out is not None else Path(f"{self.run_dir.rstrip('/')}_compressed")
        if path.resolve() == Path(self.run_dir).resolve():
            raise ValueError(f"out: expected another folder than the run's own, got {self.out}")
        return RunFolder(path)


@dataclass(kw_only=True)
class ClassChange(Command):
    """Settings of `detpipe classes add` and `remove`."""

    name: str | None = None
    """Name of the class to add or remove."""
    enough: int = 1200
    """Number of training regions of a new class. If the store has fewer, features of more images are computed."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.enough < 0:
            raise ValueError(f"enough: expected at least 0 regions, got {self.enough}")


@dataclass(kw_only=True)
class ClassesAdd(ClassChange):
    """Settings of `detpipe classes add`. name: a class of the data set; null: the one that the detector lacks."""


@dataclass(kw_only=True)
class ClassesRemove(ClassChange):
    """Settings of `detpipe classes remove`."""
