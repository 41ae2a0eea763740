"""mixup of images and labels in pairs (Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from detpipe.heads.softmax import softmax_loss
from detpipe.structures import Float32Array


@dataclass(frozen=True, eq=False)
class Mixing:
    """The mixing weights of a batch: (N,) float32 in [0.5, 1]. The partner of an image has the rest.

    The partner is the next image of the batch (of this process's part of it); for the last image it is the first.
    """

    weights: Float32Array

    def images(self, images: Tensor) -> Tensor:
        """Mix images (N, H, W, 3) uint8. The result is rounded, because networks take uint8."""
        weights = torch.from_numpy(self.weights).to(images.device)[:, None, None, None]
        return (images * weights + images.roll(-1, dims=0) * (1 - weights)).round().to(torch.uint8)

    def loss(self, logits: Tensor, labels: Tensor, label_smoothing: float) -> Tensor:
        """The mean over N of the weighted losses of both labels (section 2). logits: (N, K). labels: (N,)."""
        weights = torch.from_numpy(self.weights).to(logits.device)
        own = softmax_loss(logits, labels, label_smoothing, reduction="none")
        other = softmax_loss(logits, labels.roll(-1), label_smoothing, reduction="none")
        return (weights * own + (1 - weights) * other).mean()


def draw_mixing(generator: np.random.Generator, count: int, alpha: float, part: slice) -> Mixing | None:
    """Weights from Beta(alpha, alpha) for `count` images, of which `part` belong to this process; None if alpha is 0.

    A weight w below 0.5 becomes 1 - w. So each image keeps the larger share, and its accuracy stays meaningful.
    """
    if alpha == 0:
        return None
    weights = generator.beta(alpha, alpha, count)
    return Mixing(np.maximum(weights, 1 - weights)[part].astype(np.float32))
