"""The best overlap of each object with the first b proposals, from which all recall metrics are computed.

N: proposals of an image. G: its objects. B: budgets (numbers of proposals). I: images. n: objects of all images.
Difficult objects and crowds are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from detpipe import boxes
from detpipe.structures import BoolArray, Float32Array, GroundTruth, ImageId, Int64Array, Proposals


@dataclass(frozen=True, eq=False)
class OverlapTable:
    """A row per object, ordered by image as in `image_ids`, and a column per budget.

    best: (n, B) float32, the largest IoU of the object with the first b proposals of its image, 0 without proposals.
    images: (n,) int64, the index of the object's image in image_ids. labels: (n,) int64, 1..K. areas: (n,) float32,
    square pixels. image_ids: of all I images, also of those without objects, sorted so that nothing depends on the
    input order. proposals: (I,) int64, the number of proposals of each image, 0 for a missing image.
    """

    budgets: tuple[int, ...]
    best: Float32Array
    images: Int64Array
    labels: Int64Array
    areas: Float32Array
    image_ids: tuple[ImageId, ...]
    proposals: Int64Array

    def __len__(self) -> int:
        return len(self.best)

    def where(self, chosen: BoolArray) -> OverlapTable:
        """The rows of the chosen objects, (n,) bool; all images are kept."""
        return replace(
            self,
            best=self.best[chosen],
            images=self.images[chosen],
            labels=self.labels[chosen],
            areas=self.areas[chosen],
        )

    def at(self, budgets: Sequence[int]) -> OverlapTable:
        """The columns of these budgets, in this order. Raises ValueError for a budget without a column."""
        absent = [budget for budget in budgets if budget not in self.budgets]
        if absent:
            raise ValueError(f"OverlapTable: expected budgets of {list(self.budgets)}, got {absent}")
        columns = [self.budgets.index(budget) for budget in budgets]
        return replace(self, budgets=tuple(budgets), best=self.best[:, columns])


def overlap_table(
    ground_truth: Mapping[ImageId, GroundTruth],
    proposals: Mapping[ImageId, Proposals] | Iterable[tuple[ImageId, Proposals]],
    n_classes: int,
    budgets: Sequence[int],
) -> OverlapTable:
    """The table of one method, in one pass over its proposals. Memory grows with the objects, not with N.

    ground_truth: of every evaluated image; objects of images without proposals are missed. proposals: of images in any
    order, each once; an iterable is streamed. n_classes: K of the labels 1..K. budgets: from 1, in any order. No images
    or no objects give a table without rows.
    Raises ValueError for proposals of an unknown or repeated image, labels above K, and budgets below 1.
    """
    if not budgets or min(budgets) < 1:
        raise ValueError(f"budgets: expected numbers of proposals from 1, got {list(budgets)}")
    counting = {image_id: truth[~truth.difficult & ~truth.crowd] for image_id, truth in ground_truth.items()}
    best: dict[ImageId, Float32Array] = {}
    numbers: dict[ImageId, int] = {}
    for image_id, found in proposals.items() if isinstance(proposals, Mapping) else proposals:
        if image_id not in counting or image_id in best:
            known = "twice" if image_id in counting else "that has no ground truth"
            raise ValueError(f"proposals: expected one entry for each image of the data set, got {image_id!r} {known}")
        best[image_id] = best_overlaps(counting[image_id].boxes, found.boxes, budgets)
        numbers[image_id] = len(found)
    ids = tuple(sorted(counting, key=lambda image_id: (isinstance(image_id, str), image_id)))
    truths = [counting[image_id] for image_id in ids]
    # The empty first array gives shape and dtype if there are no images.
    missed = [np.zeros((len(truth), len(budgets)), dtype=np.float32) for truth in truths]
    rows = [best.get(image_id, none) for image_id, none in zip(ids, missed, strict=True)]
    labels = np.concatenate([np.zeros(0, np.int64), *(truth.labels for truth in truths)])
    if len(labels) and labels.max() > n_classes:
        raise ValueError(f"ground_truth: expected labels 1..{n_classes}, got {int(labels.max())}")
    return OverlapTable(
        budgets=tuple(budgets),
        best=np.concatenate([np.zeros((0, len(budgets)), np.float32), *rows]),
        images=np.repeat(np.arange(len(ids), dtype=np.int64), [len(truth) for truth in truths]),
        labels=labels,
        areas=np.concatenate([np.zeros(0, np.float32), *(truth.areas for truth in truths)]),
        image_ids=ids,
        proposals=np.array([numbers.get(image_id, 0) for image_id in ids], dtype=np.int64),
    )


def best_overlaps(objects: Float32Array, proposed: Float32Array, budgets: Sequence[int]) -> Float32Array:
    """The largest IoU of each object with the first b proposals, for each budget b. (G, 4), (N, 4) -> (G, B) float32.

    proposed: by descending score; only the first max(budgets) are used. No proposals give 0.
    """
    best = np.zeros((len(objects), len(budgets)), dtype=np.float32)
    proposed = proposed[: max(budgets)]
    if not len(objects) or not len(proposed):
        return best
    so_far = np.maximum.accumulate(boxes.iou(objects, proposed), axis=1)
    for column, budget in enumerate(budgets):
        best[:, column] = so_far[:, min(budget, len(proposed)) - 1]
    return best
