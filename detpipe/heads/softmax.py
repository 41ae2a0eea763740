"""The softmax head: a linear layer from features to logits, and its loss."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class SoftmaxHead(nn.Module):
    """Predicts logits (N, n_logits) from features (N, D): K for whole images, K + 1 for regions (0 is background).

    Initial weights are drawn from N(0, 0.01) by `generator`; biases are 0 (Fast R-CNN, Girshick 2015, section 3.1).
    """

    def __init__(self, feature_width: int, n_logits: int, *, generator: torch.Generator) -> None:
        super().__init__()
        self.linear = nn.Linear(feature_width, n_logits)
        nn.init.normal_(self.linear.weight, std=0.01, generator=generator)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: Tensor) -> Tensor:
        """(N, D) -> (N, n_logits). N = 0 gives (0, n_logits)."""
        logits: Tensor = self.linear(features)
        return logits


def softmax_loss(
    logits: Tensor, labels: Tensor, label_smoothing: float = 0.0, *, reduction: Literal["mean", "none"] = "mean"
) -> Tensor:
    """Cross entropy, always computed in float32: (N, C), (N,) int64 in 0..C - 1 -> the mean, or (N,) for "none"."""
    return F.cross_entropy(logits.float(), labels, label_smoothing=label_smoothing, reduction=reduction)
