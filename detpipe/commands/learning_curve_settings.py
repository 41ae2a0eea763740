"""The settings of `detpipe learning-curve`. This file and what it imports do not need torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from detpipe.backbone.settings import BackboneConfig
from detpipe.network.settings import Precision
from detpipe.runs.command import Command


@dataclass(kw_only=True)
class LearningCurve(Command):
    """Settings of `detpipe learning-curve`."""

    shares: list[float] = field(default_factory=lambda: [0.12, 0.25, 0.5, 1.0])
    """Shares of the training images to train on, in (0, 1]."""
    draws: int = 3
    """Number of trainings for each share, on different images."""
    resamples: int = 500
    """Number of bootstrap resamples of the test images for the intervals; 0: none."""
    networks: int = 1
    """With head=two_layers: number of networks of a head. More take more time; the run's own head may have more."""
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    """The frozen network that computes features if the run has no stored features."""
    precision: Precision = Precision.auto
    """float32 or bf16 for training and features; auto: bf16 where the hardware supports it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.shares = sorted(set(self.shares))
        if len(self.shares) < 2 or not all(0 < share <= 1 for share in self.shares):
            raise ValueError(
                f"shares: expected at least two different shares in (0, 1], got {self.shares}; give shares=[0.5,1]"
            )
        if self.draws < 1 or self.networks < 1:
            raise ValueError(f"draws, networks: expected at least 1 each, got {self.draws} and {self.networks}")
        if self.resamples < 0:
            raise ValueError(f"resamples: expected at least 0 (0: no intervals), got {self.resamples}")
