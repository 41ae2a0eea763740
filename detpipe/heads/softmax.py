"""The softmax head: a linear layer from a region's features to the logits of background and K classes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class SoftmaxHead(nn.Module):
    """Logits (N, K + 1) from features (N, D); column 0 is the background.

    Weights start from N(0, 0.01), biases from 0 (Fast R-CNN, Girshick 2015, section 3.1), drawn from `generator`.
    """

    def __init__(self, feature_width: int, n_classes: int, *, generator: torch.Generator) -> None:
        super().__init__()
        self.linear = nn.Linear(feature_width, n_classes + 1)
        nn.init.normal_(self.linear.weight, std=0.01, generator=generator)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: Tensor) -> Tensor:
        """(N, D) -> (N, K + 1) logits."""
        logits: Tensor = self.linear(features)
        return logits


def softmax_loss(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Mean cross entropy. (N, K + 1), (N,) int64 in 0..K -> scalar, in float32 whatever the logits are."""
    return F.cross_entropy(logits.float(), labels, label_smoothing=label_smoothing)
