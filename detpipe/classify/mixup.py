"""mixup: images and labels mixed in pairs (Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from detpipe.heads.softmax import softmax_loss
from detpipe.structures import Float32Array


@dataclass(frozen=True, eq=False)
class Mixing:
    """How much of each image of a batch stays: weights (N,) float32, 0.5 to 1; the rest is its neighbour's.

    The neighbour is the next image of the batch, of several processes the next in the same one; the last one's is the
    first.
    """

    weights: Float32Array

    def images(self, images: Tensor) -> Tensor:
        """(N, H, W, 3) uint8 -> the mixed ones, rounded: what a network takes is uint8."""
        weights = torch.from_numpy(self.weights).to(images.device)[:, None, None, None]
        return (images * weights + images.roll(-1, dims=0) * (1 - weights)).round().to(torch.uint8)

    def loss(self, logits: Tensor, labels: Tensor, label_smoothing: float) -> Tensor:
        """The mean over N of both labels' losses, each by its weight (section 2). logits: (N, K), labels: (N,)."""
        weights = torch.from_numpy(self.weights).to(logits.device)
        own = softmax_loss(logits, labels, label_smoothing, reduction="none")
        other = softmax_loss(logits, labels.roll(-1), label_smoothing, reduction="none")
        return (weights * own + (1 - weights) * other).mean()


def draw_mixing(generator: np.random.Generator, count: int, alpha: float, part: slice) -> Mixing | None:
    """Weights from Beta(alpha, alpha) for `count` images, of which `part` are this process's; None for alpha 0.

    A weight below a half is turned about, so that an image keeps the larger share of itself, and its accuracy a sense.
    """
    if alpha == 0:
        return None
    weights = generator.beta(alpha, alpha, count)
    return Mixing(np.maximum(weights, 1 - weights)[part].astype(np.float32))
