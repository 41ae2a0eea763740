"""Class-wise box regression: predicts the deltas from a region to its object from the region's features.

The linear layer is either trained jointly with the classifier (Fast R-CNN, section 2.3) or solved afterwards by ridge
regression (R-CNN, appendix C).

N: number of regions. D: feature width. K: number of classes. Deltas are (dx, dy, dw, dh) as in `boxes.encode`.
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
"""Standard deviation of the deltas. The layer predicts deltas divided by it, so that box loss and class loss have
similar sizes (BBOX_NORMALIZE_STDS in Fast R-CNN)."""


class BoxRegressor(nn.Module):
    """Predicts deltas (N, K, 4), one box per class, from features (N, D).

    Initial weights are drawn from N(0, 0.001); biases are 0.
    """

    std: Tensor

    def __init__(self, feature_width: int, n_classes: int, *, generator: torch.Generator) -> None:
        super().__init__()
        self.linear = nn.Linear(feature_width, 4 * n_classes)
        nn.init.normal_(self.linear.weight, std=0.001, generator=generator)
        nn.init.zeros_(self.linear.bias)
        self.register_buffer("std", torch.tensor(TARGET_STD), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """(N, D) -> deltas (N, K, 4). N = 0 gives (0, K, 4)."""
        normalised: Tensor = self.linear(features).unflatten(1, (-1, 4))
        return normalised * self.std

    def normalise(self, deltas: Tensor) -> Tensor:
        """Deltas (..., 4) divided by TARGET_STD, as the smooth L1 loss uses them."""
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
        """The box loss: the sum over foreground regions, each for its own class, divided by N (Fast R-CNN, eq. 1 to 3).

        deltas: (N, K, 4) from `forward`. labels: (N,) int64, 0 is background. targets: (N, 4) deltas. beta: the
        normalised error above which smooth L1 is linear (1 in Fast R-CNN). Without foreground the loss is 0.
        """
        rows = torch.nonzero(labels > 0).squeeze(1)
        own = deltas.float()[rows, labels[rows] - 1]
        if kind is BoxLoss.giou:
            # IoU does not change if both boxes are scaled along an axis, so each region can be the unit square.
            region = own.new_tensor([0.0, 0.0, 1.0, 1.0])
            found, wanted = (geometry.decode_tensors(region, both) for both in (own, targets[rows]))
            distance: Tensor = generalized_box_iou_loss(found, wanted, reduction="sum")
            return distance / max(len(labels), 1)
        error = F.smooth_l1_loss(self.normalise(own), self.normalise(targets[rows]), reduction="sum", beta=beta)
        return error / max(len(labels), 1)

    def solve(self, features: Float32Array, labels: Int64Array, deltas: Float32Array, *, ridge: float = 1000.0) -> None:
        """Set the weights by class-wise ridge regression on these foreground regions (R-CNN, appendix C).

        features: (N, D). labels: (N,) in 1..K. deltas: (N, 4). ridge: the regularisation lambda of R-CNN, for features
        of mean norm 20 (see `ridge_regression`). A class without regions gets deltas of 0, so its boxes do not change.
        """
        weight = torch.zeros_like(self.linear.weight)
        bias = torch.zeros_like(self.linear.bias)
        std = np.asarray(TARGET_STD)
        for label in range(1, self.linear.out_features // 4 + 1):
            rows = labels == label
            if not rows.any():
                logger.warning("box regression: class %d has no regions; its boxes are not refined", label)
                continue
            w, b = ridge_regression(features[rows], deltas[rows], ridge)
            span = slice(4 * (label - 1), 4 * label)
            weight[span] = torch.from_numpy((w / std).T)
            bias[span] = torch.from_numpy(b / std)
        with torch.no_grad():
            self.linear.weight.copy_(weight)
            self.linear.bias.copy_(bias)


FEATURE_NORM = 20.0
"""R-CNN scales features to this mean norm; its lambda of 1000 assumes it (rcnn_train.m, rcnn_features.m)."""


def ridge_regression(
    features: npt.NDArray[np.floating], targets: npt.NDArray[np.floating], ridge: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Weights (D, T) and bias (T,) that minimise |X w + b - t|^2 + ridge |w|^2, where X is scaled to mean norm 20.

    features: (N, D). targets: (N, T). The returned weights are for unscaled features. Raises ValueError for N = 0.
    R-CNN also whitens the targets (rcnn_train_bbox_regressor.m). This is left out: with one lambda the solution is
    linear in the targets, so whitening does not change it.
    """
    if not len(features):
        raise ValueError("ridge regression: expected at least one region, got none")
    x, t = features.astype(np.float64), targets.astype(np.float64)
    scale = FEATURE_NORM / max(float(np.linalg.norm(x, axis=1).mean()), 1e-12)
    x_mean, t_mean = (x * scale).mean(axis=0), t.mean(axis=0)
    x_centred = x * scale - x_mean
    if len(x) < x.shape[1]:  # the same solution with a smaller matrix: (X'X + r)^-1 X' = X' (XX' + r)^-1
        weights = x_centred.T @ np.linalg.solve(x_centred @ x_centred.T + ridge * np.eye(len(x)), t - t_mean)
    else:
        weights = np.linalg.solve(x_centred.T @ x_centred + ridge * np.eye(x.shape[1]), x_centred.T @ (t - t_mean))
    return weights * scale, t_mean - x_mean @ weights
