"""Softmax on stored features: multinomial logistic regression, solved by L-BFGS on all regions at once.

N: number of regions. D: feature width. K: number of classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from detpipe.heads.softmax import softmax_loss
from detpipe.heads.stored.feature_head import CompetingHeadConfig, Examples, FeatureHead, any_overlap
from detpipe.structures import Float32Array, Int64Array


class SoftmaxRegressionHead(FeatureHead):
    """softmax(weight . x + bias). weight: (K + 1, D), bias: (K + 1,); row 0 is the background. Classes compete."""

    weight: Tensor
    bias: Tensor

    @property
    def n_classes(self) -> int:
        return len(self.bias) - 1

    def class_scores(self, x: Tensor, geometry: Tensor) -> Tensor:
        del geometry
        return (x @ self.weight.T + self.bias).softmax(dim=1)[:, 1:]


@dataclass(kw_only=True)
class SoftmaxRegressionConfig(CompetingHeadConfig):
    """Softmax over background and classes. If a class is added, all are trained again, so scores stay calibrated."""

    MODULE: ClassVar[type[FeatureHead]] = SoftmaxRegressionHead

    NEEDS_EACH: ClassVar[bool] = False
    l2: float = 0.01
    """L2 regularisation: l2 / 2 times the sum of squared weights is added to the mean loss."""
    iterations: int = 100
    """Largest number of L-BFGS iterations."""
    background_iou: float = 0.5
    """Regions whose IoU with every object is below this are background. Regions between background and objects are not
    used."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.l2 > 0 and self.iterations > 0 and 0 < self.background_iou <= 1):
            raise ValueError(
                "head: expected l2 and iterations above 0 and background_iou in (0, 1], got "
                f"{self.l2}, {self.iterations}, {self.background_iou}"
            )

    def fit(
        self, examples: Examples, shared: dict[str, Tensor], *, seed: int, bf16: bool = False
    ) -> SoftmaxRegressionHead:
        """Minimise the loss, which is convex, so the seed is not used."""
        del seed, bf16
        classes = list(range(1, len(examples.classes) + 1))
        examples.check_any_positives()
        rows = np.flatnonzero((examples.labels > 0) | ~any_overlap(examples, self.background_iou))
        weight, bias = self._solve(examples.features[rows], examples.labels[rows], len(classes))
        return SoftmaxRegressionHead(weight=weight, bias=bias, **shared, **self.box_tensors(examples, classes))

    def _solve(self, x: Float32Array, labels: Int64Array, classes: int) -> tuple[Tensor, Tensor]:
        """Weights (K + 1, D) and biases (K + 1,). The biases start from the logarithms of the class frequencies."""
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
