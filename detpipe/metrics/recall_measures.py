"""The five numbers of proposals, each as a mean of what an object's best overlap is worth.

Hosang et al., "What makes for effective detection proposals?", PAMI 2015, section 4; Uijlings et al., IJCV 2013,
section 5.2. n: objects that count. B: budgets. o: the best overlap of an object, in [0, 1].

- recall@t: the share of objects with o >= t.
- abo: average best overlap, the mean of o over all objects.
- mabo: the mean over the classes that have objects of the class's own abo.
- ar: average recall, 2 x the area under the curve of recall against threshold from 0.5 to 1. As recall(t) is the share
  of o >= t, the area is exactly mean(max(o - 0.5, 0)): ar = 2 / n x sum of max(o - 0.5, 0), without steps.

Each object takes its own best proposal, even one that another object took; Hosang's code matches one to one, COCO's
too, which differs only where objects all but coincide.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from detpipe.structures import Float32Array, Int64Array

Float64Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Measure:
    """One of the numbers: what an overlap is worth, and whether classes or objects weigh the same.

    worth: (n, B) float64 overlaps -> (n, B) float64 in [0, 1]. by_class: the mean over classes of the class's mean.
    """

    weight: Callable[[Float64Array], Float64Array]
    by_class: bool = False

    def values(self, best: Float32Array) -> Float64Array:
        """What each overlap is worth. (n, B) float32 -> (n, B) float64."""
        return self.weight(best.astype(np.float64))

    def groups(self, labels: Int64Array) -> Int64Array:
        """(n,) int64: the objects that are averaged together, before the mean over the groups."""
        return labels if self.by_class else np.zeros_like(labels)

    def mean(self, best: Float32Array, labels: Int64Array) -> Float64Array:
        """The number at each budget. (n, B), (n,) -> (B,) in [0, 1]; n = 0 gives NaN."""
        return mean_of_groups(self.values(best), self.groups(labels))


def reached(best: Float64Array, threshold: float | Float64Array) -> Float64Array:
    """1 where an overlap is at least the threshold, else 0; the threshold is broadcast."""
    # Thresholds in float32, as the overlaps are: 0.7 in float64 lies below 0.7 in float32.
    return np.asarray(best >= np.asarray(threshold, dtype=np.float32), dtype=np.float64)


MEASURES: dict[str, Measure] = {
    "recall@0.5": Measure(lambda best: reached(best, 0.5)),
    "recall@0.7": Measure(lambda best: reached(best, 0.7)),
    "abo": Measure(lambda best: best),
    "mabo": Measure(lambda best: best, by_class=True),
    "ar": Measure(lambda best: 2 * np.maximum(best - 0.5, 0)),
}
"""By the names of recall.json."""


def mean_of_groups(values: Float64Array, groups: Int64Array) -> Float64Array:
    """The mean over the groups of the mean of each. (n, C), (n,) int64 -> (C,) float64; n = 0 gives NaN."""
    if not len(values):
        return np.full(values.shape[1], np.nan)
    _, places, counts = np.unique(groups, return_inverse=True, return_counts=True)
    if len(counts) == 1:
        # Column by column: numpy then sums in pairs, which loses fewer digits than a running sum.
        return np.array([np.ascontiguousarray(column).mean() for column in values.T])
    sums = [np.bincount(places, weights=column) for column in values.T]
    return np.array([(column / counts).mean() for column in sums])
