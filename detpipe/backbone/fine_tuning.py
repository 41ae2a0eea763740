"""Settings of fine-tuning: which parts of a pretrained network are frozen."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(kw_only=True)
class FineTuningConfig:
    """Which parts of the backbone are frozen."""

    freeze_stages: int = 3
    """Number of backbone stages to freeze, from the stem up. Random weights (backbone.weights=none) are not frozen."""
    freeze_depthwise: bool = False
    """Freeze the kernels of depthwise convolutions. Their gradient is the slowest part of a training step on a CPU."""
    freeze_batch_norm: bool = True
    """Freeze scale, shift and running statistics of batch norms. Batches of regions are too small and too similar for
    good statistics."""
    sync_batch_norm: bool = False
    """With several processes: compute the statistics of batch norms that are not frozen over the whole batch, not over
    the part of each process."""

    def __post_init__(self) -> None:
        if self.freeze_stages < 0:
            raise ValueError(f"freeze_stages: expected at least 0, got {self.freeze_stages}")
