"""Local response normalisation (Krizhevsky et al. 2012, section 3.3, "ImageNet classification with deep CNNs")."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from detpipe.backbone.caffe.built import Built, Shape, want_bottoms, want_tops
from detpipe.backbone.caffe.caffe_net_pb2 import LayerParameter, LRNParameter


class LRNWithinChannel(nn.Module):
    """x / (1 + alpha / n^2 * sum of x^2 over n x n cells)^beta, (N, C, H, W), with zero padding.

    As in Caffe, `k` is not used (lrn_layer.cpp builds this layer from a pooling and a Power with shift 1).
    """

    def __init__(self, size: int, alpha: float, beta: float) -> None:
        super().__init__()
        self.size, self.alpha, self.beta = size, alpha, beta

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean = F.avg_pool2d(x.square(), self.size, stride=1, padding=self.size // 2, count_include_pad=True)
        return x * (1 + self.alpha * mean).pow(-self.beta)

    def extra_repr(self) -> str:
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}"


def build_lrn(layer: LayerParameter, bottoms: Sequence[Shape]) -> Built:
    """Build an LRN across n channels, x / (k + alpha / n * sum of x^2)^beta, which torch has, or within channels."""
    want_bottoms(bottoms, 1)
    want_tops(layer)
    settings = layer.lrn_param
    size, alpha, beta, k = settings.local_size, settings.alpha, settings.beta, settings.k
    if len(bottoms[0]) != 4 or size % 2 == 0 or size > 2**15:
        raise ValueError(f"expected (N, C, H, W) and an odd local_size below {2**15}, got {bottoms[0]} and {size}")
    if settings.norm_region == LRNParameter.WITHIN_CHANNEL:
        return Built(LRNWithinChannel(size, alpha, beta))
    return Built(nn.LocalResponseNorm(size, alpha, beta, k))
