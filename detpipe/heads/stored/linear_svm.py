"""R-CNN's head: one linear SVM per class, trained with hard negative mining.

The dual of min 1/2 |w|^2 + sum C_i max(0, 1 - y_i w.x_i) has one bounded variable per example. Dual coordinate descent
solves for one variable at a time while the others are fixed (Hsieh et al. 2008, "A Dual Coordinate Descent Method for
Large-scale Linear SVM"). R-CNN uses the same method by liblinear (-s 3).

N: number of examples. D: feature width.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from detpipe.heads.stored.feature_head import (
    Examples,
    FeatureHead,
    StoredHeadConfig,
    joined,
    scores_by_class,
    sigmoid_by_class,
)
from detpipe.heads.stored.platt import platt
from detpipe.structures import BoolArray, Float32Array, Int64Array

logger = logging.getLogger(__name__)

Float64Array = npt.NDArray[np.float64]

FEATURE_NORM = 20.0
"""R-CNN scales features to this mean norm; its C assumes it (rcnn_scale_features.m)."""

BIAS_FEATURE = 10.0
"""Value of the constant feature for the bias. It is large, so that the bias is hardly regularised (R-CNN's -B 10)."""


@dataclass(frozen=True, eq=False)
class SvmSolution:
    """A solved SVM: the score of x is weight.x + bias. weight: (D,) float32. duals: (N,) float64 in [0, C_i]."""

    weight: Float32Array
    bias: float
    duals: Float64Array


def solve_svm(
    features: Float32Array,
    positive: BoolArray,
    *,
    c: float = 0.001,
    positive_weight: float = 2.0,
    tolerance: float = 0.01,
    max_passes: int = 300,
    start: Float64Array | None = None,
    seed: int = 0,
) -> SvmSolution:
    """Solve the SVM that separates the positive examples from the others.

    features: (N, D). positive: (N,) bool. c: the cost of a margin error; of positives it is positive_weight times c.
    tolerance: stop if the projected gradients differ by less. start: initial duals (N,), from an earlier solution.
    N = 0 gives weights of 0. Raises ValueError if features and labels have different lengths.
    """
    if len(features) != len(positive):
        raise ValueError(f"SVM: expected a label for each of {len(features)} examples, got {len(positive)}")
    # Imported here, because importing numba takes seconds and no other head needs it.
    from detpipe.heads.dual_coordinate_descent import descend

    x = np.ascontiguousarray(features, dtype=np.float32)
    signs = np.where(positive, 1.0, -1.0)
    upper = np.where(positive, c * positive_weight, c)
    duals = np.zeros(len(x)) if start is None else np.clip(start, 0, upper)
    weight = descend(x, signs, upper, duals, BIAS_FEATURE, tolerance, max_passes, seed)
    return SvmSolution(weight[:-1].astype(np.float32), float(weight[-1] * BIAS_FEATURE), duals)


def mine_hard_negatives(
    features: Float32Array,
    positive: Int64Array,
    negative: Int64Array,
    *,
    c: float = 0.001,
    positive_weight: float = 2.0,
    rounds: int = 3,
    first: int = 2000,
    hard: float = -1.0,
    evict: float = -1.2,
    tolerance: float = 0.01,
    seed: int = 0,
) -> SvmSolution:
    """Hard negative mining of R-CNN (rcnn_train.m): solve, add hard negatives to the cache, drop easy ones, repeat.

    features: (N, D). positive, negative: row indices. The cache starts with `first` random negatives. After each
    solution, negatives with a score above `hard` are added and those below `evict` are removed. It stops after `rounds`
    rounds, or earlier if no hard negative is left to add. The returned duals are for the positives, then for the
    negatives of the last cache.
    """
    generator = np.random.default_rng(seed)
    cache = np.sort(generator.choice(negative, min(first, len(negative)), replace=False))
    known = np.zeros(len(features))  # the duals of a round are the start of the next
    for number in range(max(rounds, 1)):
        rows = np.concatenate([positive, cache])
        solution = solve_svm(
            features[rows],
            np.arange(len(rows)) < len(positive),
            c=c,
            positive_weight=positive_weight,
            tolerance=tolerance,
            start=known[rows],
            seed=seed,
        )
        known[rows] = solution.duals
        scores = features @ solution.weight + np.float32(solution.bias)  # of all rows: copying a part takes longer
        wanted = np.union1d(cache[scores[cache] >= evict], negative[scores[negative] > hard])
        if number > 0 and not len(np.setdiff1d(wanted, cache)):
            break
        cache = wanted
    return solution


class LinearSvmHead(FeatureHead):
    """sigmoid(slope_k (w_k . x + b_k) + offset_k) for each class k.

    weight: (K, D), bias, slope, offset: (K,).
    """

    weight: Tensor
    bias: Tensor
    slope: Tensor
    offset: Tensor

    @property
    def n_classes(self) -> int:
        return len(self.bias)

    def class_scores(self, x: Tensor, geometry: Tensor) -> Tensor:
        del geometry
        return sigmoid_by_class(scores_by_class(x, self.weight, self.bias), self.slope, self.offset)


@dataclass(kw_only=True)
class SvmConfig(StoredHeadConfig):
    """The linear SVMs of R-CNN, with Platt-scaled scores. Girshick et al. 2014, section 2.3 and appendix B."""

    MODULE: ClassVar[type[FeatureHead]] = LinearSvmHead

    c: float = 0.001
    """Cost C of a margin error, for features scaled to mean norm 20."""
    positive_weight: float = 2.0
    """Factor of the cost for errors on positives."""
    negative_iou: float = 0.3
    """Regions whose IoU with every object of the class is below this are its negatives."""
    positive_iou: float = 0.0
    """Regions whose IoU with their object is at least this are positives. 0: all regions with the class's label. 1:
    only the annotated boxes, as in R-CNN (rcnn_train.m); this needs sampling.own_boxes=true."""
    rounds: int = 3
    """Largest number of rounds of hard negative mining."""
    hard: float = -1.0
    """Hard negative mining: negatives with a score above this are added to the cache."""
    evict: float = -1.2
    """Hard negative mining: negatives with a score below this are removed from the cache."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.c > 0 and self.positive_weight > 0 and self.rounds > 0 and 0 < self.negative_iou <= 1):
            raise ValueError(
                "head: expected c, positive_weight and rounds above 0 and negative_iou in (0, 1], got "
                f"{self.c}, {self.positive_weight}, {self.rounds}, {self.negative_iou}"
            )
        if not 0 <= self.positive_iou <= 1:
            raise ValueError(f"head.positive_iou: expected an IoU from 0 to 1, got {self.positive_iou}")

    def fit(self, examples: Examples, shared: dict[str, Tensor], *, seed: int, bf16: bool = False) -> LinearSvmHead:
        """Train one SVM per class."""
        del bf16
        return self._of_classes(examples, shared, list(range(1, len(examples.classes) + 1)), seed)

    def extend(self, head: FeatureHead, examples: Examples, *, seed: int, bf16: bool = False) -> FeatureHead:
        """Add the SVM of the last class; the others do not change."""
        del bf16
        shared = {"mean": head.mean, "scale": head.scale}
        return joined(head, self._of_classes(examples, shared, [len(examples.classes)], seed))

    def _of_classes(self, examples: Examples, shared: dict[str, Tensor], labels: list[int], seed: int) -> LinearSvmHead:
        # Standardised features have a norm of about sqrt(D); R-CNN's C assumes a norm of 20.
        scale = np.float32(FEATURE_NORM / np.sqrt(examples.features.shape[1]))
        scaled = (torch.from_numpy(examples.features) * float(scale)).numpy()  # torch uses all cores
        solved = [self._svm(examples, scaled, label, seed) for label in labels]
        calibration = torch.tensor([pair for _, pair in solved], dtype=torch.float32).reshape(-1, 2)
        return LinearSvmHead(
            weight=torch.from_numpy(np.stack([one.weight * scale for one, _ in solved])),
            bias=torch.tensor([one.bias for one, _ in solved], dtype=torch.float32),
            slope=calibration[:, 0].contiguous(),
            offset=calibration[:, 1].contiguous(),
            **shared,
            **self.box_tensors(examples, labels),
        )

    def _positives(self, examples: Examples, label: int) -> Int64Array:
        """The rows of a class whose IoU is at least positive_iou. Raises ValueError if there are none."""
        rows = examples.positives(label)
        near = rows[examples.ious[rows] >= self.positive_iou]
        if not len(near):
            raise ValueError(
                f"class {examples.classes[label - 1]}: expected regions whose IoU with an object is at least "
                f"head.positive_iou={self.positive_iou}, got at most {examples.ious[rows].max():.2f}; lower it, or run "
                "`detpipe features` with sampling.own_boxes=true overwrite=true to include the annotated boxes"
            )
        return near

    def _svm(
        self, examples: Examples, scaled: Float32Array, label: int, seed: int
    ) -> tuple[SvmSolution, tuple[float, float]]:
        """The SVM of a class, and slope and offset from its score to a probability."""
        positive, negative = self._positives(examples, label), examples.negatives(label, self.negative_iou)
        solution = mine_hard_negatives(
            scaled,
            positive,
            negative,
            c=self.c,
            positive_weight=self.positive_weight,
            rounds=self.rounds,
            hard=self.hard,
            evict=self.evict,
            seed=seed,
        )
        rows = np.concatenate([positive, negative])
        margins = (scaled @ solution.weight)[rows] + np.float32(solution.bias)
        logger.info("%s: %d positives, %d negatives", examples.classes[label - 1], len(positive), len(negative))
        return solution, platt(margins, np.arange(len(rows)) < len(positive))
