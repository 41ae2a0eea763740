"""R-CNN's head: a linear SVM for each class, trained on hard negatives, solved in the dual.

The dual of min 1/2 |w|^2 + sum C_i max(0, 1 - y_i w.x_i) has one bounded variable for each example, and each is solved
exactly while the others are fixed (Hsieh et al. 2008, "A Dual Coordinate Descent Method for Large-scale Linear SVM").
It is what R-CNN's liblinear does (-s 3).

N: examples. D: feature width.
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
"""R-CNN scales features to this mean norm, for which its C is meant (rcnn_scale_features.m)."""

BIAS_FEATURE = 10.0
"""The constant feature whose weight makes the bias: large, so that the bias is hardly held down (R-CNN's -B 10)."""


@dataclass(frozen=True, eq=False)
class SvmSolution:
    """weight: (D,) float32. bias: the score of x is weight.x + bias. duals: (N,) float64 in [0, C_i]."""

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
    """The SVM that separates the positive examples from the others.

    features: (N, D). positive: (N,). c: the cost of a margin error, positive_weight times that of a positive one.
    tolerance: stop where the projected gradients spread by less. start: duals to begin from, of an earlier solution.
    No examples give weights of 0. Raises ValueError for features and labels of different lengths.
    """
    if len(features) != len(positive):
        raise ValueError(f"SVM: expected a label for each of {len(features)} examples, got {len(positive)}")
    # Imported here: numba takes seconds to import, which no other head needs.
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
    """R-CNN's training with a cache of negatives (rcnn_train.m): solve, add what is wrong, drop what is easy, again.

    features: (N, D). positive, negative: rows of it. The cache starts with `first` negatives at random. After each
    solution the negatives above `hard` come in, and those below `evict` go. It ends after `rounds`, or sooner where
    nothing hard is left outside. The duals returned are of the positives, then of the last cache.
    """
    generator = np.random.default_rng(seed)
    cache = np.sort(generator.choice(negative, min(first, len(negative)), replace=False))
    known = np.zeros(len(features))  # the duals of a round start the next
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
        scores = features @ solution.weight + np.float32(solution.bias)  # of all: a copy of a part takes longer
        wanted = np.union1d(cache[scores[cache] >= evict], negative[scores[negative] > hard])
        if number > 0 and not len(np.setdiff1d(wanted, cache)):
            break
        cache = wanted
    return solution


class LinearSvmHead(FeatureHead):
    """sigmoid(slope_k (w_k . x + b_k) + offset_k) for each class by itself.

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
    """R-CNN's linear SVMs (Girshick et al. 2014, section 2.3 and appendix B), their margins as probabilities."""

    MODULE: ClassVar[type[FeatureHead]] = LinearSvmHead

    c: float = 0.001
    """What an error of the margin costs, for features of a mean norm of 20."""
    positive_weight: float = 2.0
    """An error on a positive costs this many times as much."""
    negative_iou: float = 0.3
    """Regions that overlap each object of the class by less are its negatives."""
    positive_iou: float = 0.0
    """Regions that overlap their object by at least this are positives: 0, all that have its label; 1, the objects' own
    boxes alone, as in R-CNN (rcnn_train.m), which sampling.own_boxes=true keeps among the regions."""
    rounds: int = 3
    """Rounds over all images for hard negatives."""
    hard: float = -1.0
    """Negatives that score above this come into the cache."""
    evict: float = -1.2
    """Those that score below this leave it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.c > 0 and self.positive_weight > 0 and self.rounds > 0 and 0 < self.negative_iou <= 1):
            raise ValueError("head: expected c, positive_weight and rounds above 0 and negative_iou in (0, 1]")
        if not 0 <= self.positive_iou <= 1:
            raise ValueError(f"head.positive_iou: expected an overlap from 0 to 1, got {self.positive_iou}")

    def fit(self, examples: Examples, shared: dict[str, Tensor], *, seed: int, bf16: bool = False) -> LinearSvmHead:
        """An SVM for each class."""
        del bf16
        return self._of_classes(examples, shared, list(range(1, len(examples.classes) + 1)), seed)

    def extend(self, head: FeatureHead, examples: Examples, *, seed: int, bf16: bool = False) -> FeatureHead:
        """The SVM of the last class beside the others, which stay as they are."""
        del bf16
        shared = {"mean": head.mean, "scale": head.scale}
        return joined(head, self._of_classes(examples, shared, [len(examples.classes)], seed))

    def _of_classes(self, examples: Examples, shared: dict[str, Tensor], labels: list[int], seed: int) -> LinearSvmHead:
        # Standardised features have a norm of about the root of their number; R-CNN's C is meant for one of 20.
        scale = np.float32(FEATURE_NORM / np.sqrt(examples.features.shape[1]))
        scaled = (torch.from_numpy(examples.features) * float(scale)).numpy()  # on all cores
        solved = [self._machine(examples, scaled, label, seed) for label in labels]
        lines = torch.tensor([line for _, line in solved], dtype=torch.float32).reshape(-1, 2)
        return LinearSvmHead(
            weight=torch.from_numpy(np.stack([one.weight * scale for one, _ in solved])),
            bias=torch.tensor([one.bias for one, _ in solved], dtype=torch.float32),
            slope=lines[:, 0].contiguous(),
            offset=lines[:, 1].contiguous(),
            **shared,
            **self.box_tensors(examples, labels),
        )

    def _positives(self, examples: Examples, label: int) -> Int64Array:
        """The rows of a class that overlap their object enough. Raises ValueError where there is none."""
        rows = examples.positives(label)
        near = rows[examples.ious[rows] >= self.positive_iou]
        if not len(near):
            raise ValueError(
                f"class {examples.classes[label - 1]}: expected regions that overlap its objects by "
                f"head.positive_iou={self.positive_iou} or more, got {examples.ious[rows].max():.2f} at most; lower "
                "it, or run `detpipe features` with sampling.own_boxes=true overwrite=true, which keeps the objects' "
                "own boxes"
            )
        return near

    def _machine(
        self, examples: Examples, scaled: Float32Array, label: int, seed: int
    ) -> tuple[SvmSolution, tuple[float, float]]:
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
