"""The five metrics of proposals, each a mean of a weight of every object's best overlap.

Hosang et al., "What makes for effective detection proposals?", PAMI 2015, section 4; Uijlings et al., IJCV 2013,
section 5.2. n: objects. B: budgets. o: the best overlap of an object, in [0, 1].

- recall@t: the share of objects with o >= t.
- abo: average best overlap, the mean of o over all objects.
- mabo: mean average best overlap, the mean of abo over the classes that have objects.
- ar: average recall, 2 x the area under recall(t) for thresholds t from 0.5 to 1. Since recall(t) is the share of
  o >= t, the area is exactly mean(max(o - 0.5, 0)), so ar = 2 / n x sum of max(o - 0.5, 0), without discrete steps.

Each object uses its best proposal, even if another object uses the same one. The codes of Hosang et al. and COCO match
one to one, which differs only for objects that nearly coincide.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from detpipe.structures import Float32Array, Float64Array, Int64Array


@dataclass(frozen=True)
class Measure:
    """One of the metrics.

    weight: function from (n, B) float64 overlaps to (n, B) float64 weights in [0, 1]. by_class: average each class
    first, then the classes; otherwise average all objects.
    """

    weight: Callable[[Float64Array], Float64Array]
    by_class: bool = False

    def values(self, best: Float32Array) -> Float64Array:
        """The weight of each overlap. (n, B) float32 -> (n, B) float64."""
        return self.weight(best.astype(np.float64))

    def groups(self, labels: Int64Array) -> Int64Array:
        """(n,) int64: the group of each object, over which it is averaged first."""
        return labels if self.by_class else np.zeros_like(labels)

    def mean(self, best: Float32Array, labels: Int64Array) -> Float64Array:
        """The metric at each budget. (n, B), (n,) -> (B,) in [0, 1]; n = 0 gives NaN."""
        return mean_of_groups(self.values(best), self.groups(labels))


def reached(best: Float64Array, threshold: float | Float64Array) -> Float64Array:
    """1 if an overlap is at least the threshold, else 0; the threshold is broadcast."""
    # Thresholds are float32 like the overlaps, because 0.7 in float64 is smaller than 0.7 in float32.
    return np.asarray(best >= np.asarray(threshold, dtype=np.float32), dtype=np.float64)


MEASURES: dict[str, Measure] = {
    "recall@0.5": Measure(lambda best: reached(best, 0.5)),
    "recall@0.7": Measure(lambda best: reached(best, 0.7)),
    "abo": Measure(lambda best: best),
    "mabo": Measure(lambda best: best, by_class=True),
    "ar": Measure(lambda best: 2 * np.maximum(best - 0.5, 0)),
}
"""The metrics by their names in recall.json."""


def mean_of_groups(values: Float64Array, groups: Int64Array) -> Float64Array:
    """The mean over groups of the mean of each group. (n, C), (n,) int64 -> (C,) float64; n = 0 gives NaN."""
    if not len(values):
        return np.full(values.shape[1], np.nan)
    _, group_index, counts = np.unique(groups, return_inverse=True, return_counts=True)
    if len(counts) == 1:
        # Column by column, because numpy then uses pairwise summation, which is more accurate than a running sum.
        return np.array([np.ascontiguousarray(column).mean() for column in values.T])
    sums = [np.bincount(group_index, weights=column) for column in values.T]
    return np.array([(column / counts).mean() for column in sums])
