"""What of a pretrained network learns."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(kw_only=True)
class FineTuningConfig:
    """Which parameters keep their ImageNet values while what stands on them is trained."""

    freeze_stages: int = 3
    """Stages of the backbone, from the stem up, that keep their weights."""
    freeze_depthwise: bool = False
    """Keep the kernels of depthwise convolutions, whose gradient is the slowest part of a step on a CPU."""
    freeze_batch_norm: bool = True
    """Keep scale, shift and running statistics of batch norms: batches of crops are too small and too alike."""
    sync_batch_norm: bool = False
    """Of several processes: batch norms that learn take the statistics of all of the batch, not of each one's part."""
