"""The linear support vector machine, by dual coordinate descent; and its scores as probabilities.

The dual of min 1/2 |w|^2 + sum C_i max(0, 1 - y_i w.x_i) has one bounded variable an example, and each is solved exactly
while the others stand (Hsieh et al. 2008, "A Dual Coordinate Descent Method for Large-scale Linear SVM", algorithm 3,
with its shrinking). It is what R-CNN's liblinear does (-s 3).

N: examples. D: feature width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from detpipe.structures import BoolArray, Float32Array, Int64Array

Float64Array = npt.NDArray[np.float64]

BIAS_FEATURE = 10.0
"""The constant feature whose weight makes the bias: large, so that the bias is hardly held down (R-CNN's -B 10)."""


@dataclass(frozen=True, eq=False)
class SvmSolution:
    """weight: (D,) float32, bias: its number; the score of x is weight.x + bias. duals: (N,) float64 in [0, C_i].

    gap: primal less dual value, over the primal's: 0 at the optimum, and an upper bound of what is lost.
    """

    weight: Float32Array
    bias: float
    duals: Float64Array
    gap: float


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
    """The machine that tells the positive examples from the others.

    features: (N, D). positive: (N,). c: the cost of a margin error, positive_weight times that of a positive one.
    tolerance: stop where the projected gradients spread by less. start: duals to begin from, of an earlier solution.
    No examples give weights of 0. Raises ValueError for features and labels of different lengths.
    """
    if len(features) != len(positive):
        raise ValueError(f"SVM: wanted a label for each of {len(features)} examples, got {len(positive)}")
    # Imported here: numba takes seconds to import, which no other head needs.
    from detpipe.heads.dual_coordinate_descent import descend

    x = np.ascontiguousarray(features, dtype=np.float32)
    signs = np.where(positive, 1.0, -1.0)
    upper = np.where(positive, c * positive_weight, c)
    duals = np.zeros(len(x)) if start is None else np.clip(start, 0, upper)
    weight = np.zeros(x.shape[1] + 1)
    weight[:-1] = (duals * signs) @ x if len(x) else 0.0
    weight[-1] = BIAS_FEATURE * float(duals @ signs)
    descend(x, signs, upper, duals, weight, BIAS_FEATURE, tolerance, max_passes, seed)
    bias = float(weight[-1] * BIAS_FEATURE)
    margins = signs * (x @ weight[:-1].astype(np.float32) + bias)
    half = 0.5 * float(weight @ weight)
    primal = half + float(upper @ np.maximum(0, 1 - margins))
    gap = (primal - (float(duals.sum()) - half)) / max(primal, 1e-12)
    return SvmSolution(weight[:-1].astype(np.float32), bias, duals, gap)


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
        scores = features[negative] @ solution.weight + np.float32(solution.bias)
        kept = cache[features[cache] @ solution.weight + np.float32(solution.bias) >= evict]
        wanted = np.union1d(kept, negative[scores > hard])
        if number > 0 and not len(np.setdiff1d(wanted, cache)):
            break
        cache = wanted
    return solution


def platt(scores: Float32Array, positive: BoolArray, *, passes: int = 100) -> tuple[float, float]:
    """(slope, offset) so that sigmoid(slope score + offset) is the chance of a positive.

    Platt 1999 with his smoothed targets, which keep a class of few examples from certainty; Newton's steps, halved
    until the loss falls (Lin, Lin & Weng 2007). (N,), (N,) -> slope >= 0. Without a positive or a negative: (1, 0).
    """
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    if not n_positive or not n_negative:
        return 1.0, 0.0
    x = np.stack([scores.astype(np.float64), np.ones(len(scores))])
    target = np.where(positive, (n_positive + 1) / (n_positive + 2), 1 / (n_negative + 2))
    line = np.array([0.0, np.log((n_positive + 1) / (n_negative + 1))])

    def loss(line: Float64Array) -> float:
        z = line @ x
        return float(np.sum(np.logaddexp(0, z) - target * z))

    now = loss(line)
    for _ in range(passes):
        p = 1 / (1 + np.exp(-np.clip(line @ x, -500, 500)))
        gradient = x @ (p - target)
        if np.abs(gradient).max() < 1e-6 * len(target):
            break
        step = np.linalg.solve((x * (p * (1 - p))) @ x.T + 1e-12 * np.eye(2), gradient)
        size = 1.0
        while size > 1e-10 and loss(line - size * step) > now:
            size /= 2
        line = line - size * step
        now = loss(line)
    return max(float(line[0]), 0.0), float(line[1])
