"""The softmax on stored features: multinomial logistic regression, solved whole by L-BFGS.

N: regions, D: feature width, K: classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from detpipe.heads.feature_head import Examples, FeatureHead, StoredHead, any_overlap
from detpipe.heads.softmax import softmax_loss
from detpipe.structures import Float32Array, Int64Array


class SoftmaxRegression(FeatureHead):
    """softmax(weight . x + bias): (K + 1, D), (K + 1,), row 0 the background. Its classes compete."""

    weight: Tensor
    bias: Tensor

    def __init__(self, *, weight: Tensor, bias: Tensor, box_weight: Tensor, box_bias: Tensor) -> None:
        super().__init__(box_weight=box_weight, box_bias=box_bias)
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    @property
    def n_classes(self) -> int:
        return len(self.bias) - 1

    def class_scores(self, features: Tensor) -> Tensor:
        return self._probabilities(features)[:, 1:]

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor | None]:
        """As FeatureHead's, with the background's own probability in column 0."""
        return self._probabilities(features), self.deltas(features)

    def _probabilities(self, features: Tensor) -> Tensor:
        return (features @ self.weight.T + self.bias).softmax(dim=1)


@dataclass(kw_only=True)
class SoftmaxRegressionHead(StoredHead):
    """Softmax over background and classes. With a class added, all are trained anew, and so calibrated to it."""

    l2: float = 0.01
    """Half of this times the squared weights is added to the mean loss, for features of variance 1."""
    iterations: int = 100
    """Of L-BFGS at most."""
    background_iou: float = 0.5
    """Regions that overlap each object by less are background; what is neither teaches nothing."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.l2 > 0 and self.iterations > 0 and 0 < self.background_iou <= 1):
            raise ValueError("head: wanted l2 and iterations above 0 and background_iou in (0, 1]")

    def train(self, examples: Examples, *, seed: int) -> SoftmaxRegression:
        """The minimum of a convex loss: nothing is drawn from the seed."""
        del seed
        classes = list(range(1, len(examples.classes) + 1))
        for label in classes:
            examples.positives(label)  # raises where there are none
        rows = np.flatnonzero((examples.labels > 0) | ~any_overlap(examples, self.background_iou))
        x, y = examples.features[rows], examples.labels[rows]
        mean, scale = x.mean(axis=0), 1 / np.maximum(x.std(axis=0), 1e-3 * max(float(x.std()), 1e-12))
        weight, bias = self._solve((x - mean) * scale, y, len(classes))
        weight = weight * torch.from_numpy(scale)
        return SoftmaxRegression(
            weight=weight, bias=bias - weight @ torch.from_numpy(mean), **self.box_tensors(examples, classes)
        )

    def _solve(self, x: Float32Array, labels: Int64Array, classes: int) -> tuple[Tensor, Tensor]:
        """Weights (K + 1, D) and biases of standardised features; it starts from the classes' shares."""
        shares = (np.bincount(labels, minlength=classes + 1) + 1) / (len(labels) + classes + 1)
        features, targets = torch.from_numpy(x), torch.from_numpy(labels)
        weight = torch.zeros(classes + 1, x.shape[1], requires_grad=True)
        bias = torch.from_numpy(np.log(shares)).float().requires_grad_()
        optimizer = torch.optim.LBFGS([weight, bias], max_iter=self.iterations, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = softmax_loss(features @ weight.T + bias, targets) + self.l2 / 2 * weight.square().sum()
            loss.backward()
            return loss

        optimizer.step(closure)
        return weight.detach(), bias.detach()
