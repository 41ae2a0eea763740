"""The softmax head: a linear layer from features to logits, of K classes, and of the background for regions."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class SoftmaxHead(nn.Module):
    """Logits (N, n_logits) from features (N, D): K of whole images; K + 1 of regions, column 0 the background.

    Weights start from N(0, 0.01), biases from 0 (Fast R-CNN, Girshick 2015, section 3.1), drawn from `generator`.
    """

    def __init__(self, feature_width: int, n_logits: int, *, generator: torch.Generator) -> None:
        super().__init__()
        self.linear = nn.Linear(feature_width, n_logits)
        nn.init.normal_(self.linear.weight, std=0.01, generator=generator)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: Tensor) -> Tensor:
        """(N, D) -> (N, n_logits)."""
        logits: Tensor = self.linear(features)
        return logits


def softmax_loss(
    logits: Tensor, labels: Tensor, label_smoothing: float = 0.0, *, reduction: Literal["mean", "none"] = "mean"
) -> Tensor:
    """Cross entropy, in float32 whatever the logits are. (N, C), (N,) int64 in 0..C - 1 -> its mean, or (N,)."""
    return F.cross_entropy(logits.float(), labels, label_smoothing=label_smoothing, reduction=reduction)
