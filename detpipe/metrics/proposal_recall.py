"""How many objects the first proposals find (Hosang et al., PAMI 2015, section 4; Uijlings et al., IJCV 2013, 5.2).

N: proposals of an image. G: its objects that count. B: budgets, numbers of proposals. n: all objects that count.
o_i: the largest IoU of object i with any of the first b proposals of its image, 0 where there are none.

- recall@t: the share of objects with o_i >= t.
- abo: average best overlap, the mean of o_i over all objects.
- mabo: the mean over the classes that have objects of the class's own abo.
- ar: average recall, 2 x the area under the curve of recall against threshold from 0.5 to 1. As recall(t) is the share
  of o_i >= t, the area is exactly mean(max(o_i - 0.5, 0)): ar = 2 / n x sum of max(o_i - 0.5, 0), without steps.

Each object takes its own best proposal, even one that another object took; Hosang's code matches one to one, COCO's
too, which differs only where objects all but coincide. Difficult objects and crowds don't count.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from detpipe import boxes
from detpipe.structures import Float32Array, GroundTruth, ImageId, Proposals

BUDGETS = (10, 100, 500, 1000, 2000)
"""The numbers of proposals at which Hosang et al. and their followers look."""


@dataclass(frozen=True)
class RecallAtBudget:
    """The five numbers at one number of proposals, each in [0, 1]; all NaN where no object counts."""

    recall_50: float
    """recall@0.5."""
    recall_70: float
    """recall@0.7."""
    abo: float
    mabo: float
    ar: float

    def to_json(self) -> dict[str, float | None]:
        """By the names of recall.json; NaN, which JSON doesn't have, becomes None."""
        numbers = {
            "recall@0.5": self.recall_50,
            "recall@0.7": self.recall_70,
            "abo": self.abo,
            "mabo": self.mabo,
            "ar": self.ar,
        }
        return {name: None if np.isnan(number) else number for name, number in numbers.items()}


def proposal_recall(
    ground_truth: Mapping[ImageId, GroundTruth],
    proposals: Mapping[ImageId, Proposals] | Iterable[tuple[ImageId, Proposals]],
    n_classes: int,
    budgets: Sequence[int] = BUDGETS,
) -> dict[int, RecallAtBudget]:
    """The five numbers by budget, in one pass over the proposals; memory grows with the objects, not with N.

    ground_truth: of every image that counts, also of those without proposals, whose objects are missed.
    proposals: of images in any order, each once; an iterable is read as it comes. n_classes: K of the labels 1..K.
    Raises ValueError for proposals of an unknown image or of one twice, labels above K, and budgets below 1.
    """
    if not budgets or min(budgets) < 1:
        raise ValueError(f"budgets: wanted numbers of proposals from 1, got {list(budgets)}")
    missing = dict(ground_truth)
    overlaps, labels = [np.zeros((0, len(budgets)), dtype=np.float32)], [np.zeros(0, dtype=np.int64)]
    for image_id, found in proposals.items() if isinstance(proposals, Mapping) else proposals:
        truth = missing.pop(image_id, None)
        if truth is None:
            known = "twice" if image_id in ground_truth else "that has no ground truth"
            raise ValueError(f"proposal_recall: wanted each image of the data set once, got {image_id!r} {known}")
        truth = _counting(truth)
        overlaps.append(best_overlaps(truth.boxes, found.boxes, budgets))
        labels.append(truth.labels)
    for truth in missing.values():
        counting = _counting(truth)
        overlaps.append(np.zeros((len(counting), len(budgets)), dtype=np.float32))
        labels.append(counting.labels)
    best, classes = np.concatenate(overlaps).astype(np.float64), np.concatenate(labels)
    if len(classes) and classes.max() > n_classes:
        raise ValueError(f"proposal_recall: wanted labels 1..{n_classes}, got {int(classes.max())}")
    # In order of image and object, sums would differ in the last digit with the order of the images.
    order = np.lexsort((*best.T, classes))
    return {budget: _summary(best[order, column], classes[order]) for column, budget in enumerate(budgets)}


def best_overlaps(objects: Float32Array, proposed: Float32Array, budgets: Sequence[int]) -> Float32Array:
    """The largest IoU of each object with the first b proposals, for each budget b. (G, 4), (N, 4) -> (G, B) float32.

    proposed: best first. No proposals: 0. Only the first max(budgets) are looked at.
    """
    best = np.zeros((len(objects), len(budgets)), dtype=np.float32)
    proposed = proposed[: max(budgets)]
    if not len(objects) or not len(proposed):
        return best
    so_far = np.maximum.accumulate(boxes.iou(objects, proposed), axis=1)
    for column, budget in enumerate(budgets):
        best[:, column] = so_far[:, min(budget, len(proposed)) - 1]
    return best


def _counting(truth: GroundTruth) -> GroundTruth:
    return truth[~truth.difficult & ~truth.crowd]


def _summary(best: npt.NDArray[np.float64], labels: npt.NDArray[np.int64]) -> RecallAtBudget:
    if not len(best):
        return RecallAtBudget(*[float("nan")] * 5)
    sums, counts = np.bincount(labels, weights=best), np.bincount(labels)
    present = counts > 0
    return RecallAtBudget(
        # Thresholds in float32, as the overlaps are: 0.7 in float64 lies below 0.7 in float32.
        recall_50=float((best >= np.float32(0.5)).mean()),
        recall_70=float((best >= np.float32(0.7)).mean()),
        abo=float(best.mean()),
        mabo=float((sums[present] / counts[present]).mean()),
        ar=float(2 * np.maximum(best - 0.5, 0).mean()),
    )
