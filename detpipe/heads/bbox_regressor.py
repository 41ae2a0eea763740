"""Class-wise box regression: from a region's features to the deltas that move its box onto the object.

Two ways to the same linear map: trained jointly with the classes (Fast R-CNN, section 2.3), or solved afterwards as
ridge regression on features (R-CNN, appendix C).

N: regions. D: feature width. K: classes. Deltas are those of boxes.encode: dx, dy, dw, dh.
"""

from __future__ import annotations

import logging

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import generalized_box_iou_loss

from detpipe import boxes as geometry
from detpipe.heads.region_head import BoxLoss
from detpipe.structures import Float32Array, Int64Array

logger = logging.getLogger(__name__)

TARGET_STD = (0.1, 0.1, 0.2, 0.2)
"""Spread of the deltas, by which the network's outputs are scaled, so that the two losses weigh alike (Fast R-CNN's
BBOX_NORMALIZE_STDS)."""


class BoxRegressor(nn.Module):
    """Deltas (N, K, 4) from features (N, D), one box for each class. Weights start from N(0, 0.001), biases from 0."""

    std: Tensor

    def __init__(self, feature_width: int, n_classes: int, *, generator: torch.Generator) -> None:
        super().__init__()
        self.linear = nn.Linear(feature_width, 4 * n_classes)
        nn.init.normal_(self.linear.weight, std=0.001, generator=generator)
        nn.init.zeros_(self.linear.bias)
        self.register_buffer("std", torch.tensor(TARGET_STD), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """(N, D) -> deltas (N, K, 4), in training and in evaluation alike. N = 0 gives (0, K, 4)."""
        normalised: Tensor = self.linear(features).unflatten(1, (-1, 4))
        return normalised * self.std

    def normalise(self, deltas: Tensor) -> Tensor:
        """Deltas (..., 4) in units of TARGET_STD, which smooth L1 compares them in."""
        return deltas / self.std

    def loss(
        self,
        deltas: Tensor,
        labels: Tensor,
        targets: Tensor,
        *,
        kind: BoxLoss = BoxLoss.smooth_l1,
        beta: float = 1.0,
    ) -> Tensor:
        """The loss of each foreground region's own class, summed, over all N regions (Fast R-CNN, eq. 1 to 3).

        deltas: (N, K, 4) of `forward`. labels: (N,) int64, 0 background. targets: (N, 4) deltas. beta: of smooth L1,
        the normalised error from which on it is L1 (1 in Fast R-CNN). No foreground gives 0.
        """
        rows = torch.nonzero(labels > 0).squeeze(1)
        own = deltas.float()[rows, labels[rows] - 1]
        if kind is BoxLoss.giou:
            # IoU stays as it is where both boxes are stretched alike along an axis: every region is the unit square.
            region = own.new_tensor([0.0, 0.0, 1.0, 1.0])
            found, wanted = (geometry.decode_tensors(region, moves) for moves in (own, targets[rows]))
            distance: Tensor = generalized_box_iou_loss(found, wanted, reduction="sum")
            return distance / max(len(labels), 1)
        error = F.smooth_l1_loss(self.normalise(own), self.normalise(targets[rows]), reduction="sum", beta=beta)
        return error / max(len(labels), 1)

    def solve(self, features: Float32Array, labels: Int64Array, deltas: Float32Array, *, ridge: float = 1000.0) -> None:
        """Set the layer to the class-wise ridge regression on these foreground regions (R-CNN, appendix C).

        features: (N, D). labels: (N,) in 1..K. deltas: (N, 4). A class with no region gets deltas of 0: its boxes stay
        where they are. `ridge` is R-CNN's lambda, meant for features of a norm of about 20 (see `ridge_regression`).
        """
        weight = torch.zeros_like(self.linear.weight)
        bias = torch.zeros_like(self.linear.bias)
        std = np.asarray(TARGET_STD)
        for label in range(1, self.linear.out_features // 4 + 1):
            rows = labels == label
            if not rows.any():
                logger.warning("box regression: class %d has no region; its boxes stay as they are", label)
                continue
            w, b = ridge_regression(features[rows], deltas[rows], ridge)
            span = slice(4 * (label - 1), 4 * label)
            weight[span] = torch.from_numpy((w / std).T)
            bias[span] = torch.from_numpy(b / std)
        with torch.no_grad():
            self.linear.weight.copy_(weight)
            self.linear.bias.copy_(bias)


FEATURE_NORM = 20.0
"""R-CNN scales features to this mean norm, and its lambda of 1000 is meant for it (rcnn_train.m, rcnn_features.m)."""


def ridge_regression(
    features: npt.NDArray[np.floating], targets: npt.NDArray[np.floating], ridge: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Weights (D, T) and bias (T,) that minimise |X w + b - t|^2 + ridge |w|^2, X being features scaled to norm 20.

    The returned weights take features as they are. N = 0 raises ValueError. R-CNN whitens the targets first and
    unwhitens after (rcnn_train_bbox_regressor.m); with one lambda for all targets that changes nothing, for the
    solution is linear in them, and is left out.
    """
    if not len(features):
        raise ValueError("ridge regression: expected at least one region, got none")
    x, t = features.astype(np.float64), targets.astype(np.float64)
    scale = FEATURE_NORM / max(float(np.linalg.norm(x, axis=1).mean()), 1e-12)
    x_mean, t_mean = (x * scale).mean(axis=0), t.mean(axis=0)
    x_centred = x * scale - x_mean
    if len(x) < x.shape[1]:  # the same solution by the smaller matrix: (X'X + r)^-1 X' = X' (XX' + r)^-1
        weights = x_centred.T @ np.linalg.solve(x_centred @ x_centred.T + ridge * np.eye(len(x)), t - t_mean)
    else:
        weights = np.linalg.solve(x_centred.T @ x_centred + ridge * np.eye(x.shape[1]), x_centred.T @ (t - t_mean))
    return weights * scale, t_mean - x_mean @ weights
