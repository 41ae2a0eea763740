"""Caffe's BatchNorm (Ioffe & Szegedy 2015). It only normalises; a Scale layer after it scales and shifts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from detpipe.backbone.caffe.built import Built, Shape, constant, positive, want_bottoms, want_tops
from detpipe.backbone.caffe.caffe_net_pb2 import LayerParameter


class BatchNorm(_BatchNorm):
    """(N, C, ...) -> the same shape: (x - mean) / sqrt(variance + eps) for each channel.

    The blobs are decaying sums: `mean_sum` and `variance_sum` (C,), and their divisor `factor` (1,). A factor of 0,
    before any training, gives mean and variance 0. In training the input is normalised by the statistics of the batch,
    and the sums are updated: sum = fraction * sum + new, where the new variance is n / (n - 1) times the batch's.

    use_global_stats: whether to use the stored statistics; None: only in evaluation mode. N = 0 changes no sum.
    """

    mean_sum: torch.Tensor
    variance_sum: torch.Tensor
    factor: torch.Tensor

    def __init__(self, channels: int, eps: float, fraction: float, use_global_stats: bool | None) -> None:
        super().__init__(channels, eps, momentum=None, affine=False, track_running_stats=False)
        self.register_buffer("mean_sum", torch.zeros(channels))
        self.register_buffer("variance_sum", torch.zeros(channels))
        self.register_buffer("factor", torch.zeros(1))
        # torch's base class registers its own weight and statistics as None, so they are not blobs.
        self.fraction, self.use_global_stats = fraction, use_global_stats

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        stored = not self.training if self.use_global_stats is None else self.use_global_stats
        if stored or x.numel() == 0:
            scale = torch.where(self.factor == 0, 0.0, 1 / self.factor)
            mean, variance = self.mean_sum * scale, self.variance_sum * scale
        else:
            axes = [0, *range(2, x.ndim)]
            variance, mean = torch.var_mean(x, axes, correction=0)
            self._update(mean.detach(), variance.detach(), x.numel() // x.shape[1])
        shape = (1, -1, *[1] * (x.ndim - 2))
        return (x - mean.view(shape)) * (variance + self.eps).rsqrt().view(shape)

    def extra_repr(self) -> str:
        return f"{self.num_features}, eps={self.eps}, fraction={self.fraction}, global={self.use_global_stats}"

    def _update(self, mean: torch.Tensor, variance: torch.Tensor, n: int) -> None:
        with torch.no_grad():
            self.factor.mul_(self.fraction).add_(1)
            self.mean_sum.mul_(self.fraction).add_(mean)
            self.variance_sum.mul_(self.fraction).add_(variance, alpha=n / (n - 1) if n > 1 else 1.0)


def build_batch_norm(layer: LayerParameter, bottoms: Sequence[Shape]) -> Built:
    """Build a BatchNorm with statistics per channel (axis 1)."""
    want_bottoms(bottoms, 1)
    want_tops(layer)
    if len(bottoms[0]) < 2:
        raise ValueError(f"expected (N, C, ...), got {bottoms[0]}")
    if any(spec.HasField("lr_mult") and spec.lr_mult for spec in layer.param):
        raise ValueError("expected lr_mult 0 for the statistics, which have no gradient, got another")
    settings = layer.batch_norm_param
    module = BatchNorm(
        positive(bottoms[0][1], "channels"),
        settings.eps,
        settings.moving_average_fraction,
        settings.use_global_stats if settings.HasField("use_global_stats") else None,
    )
    return Built(module, [constant(), constant(), constant()])
