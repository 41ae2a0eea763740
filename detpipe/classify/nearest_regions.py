"""For each annotated object, the region of its class that comes nearest to it, before non-maximum suppression.

The final detections do not tell why an object is missed: a good box may have been removed by NMS.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from detpipe import boxes as geometry
from detpipe.classify.detect import ScoredRegions
from detpipe.structures import Float32Array, GroundTruth


@dataclass(frozen=True, eq=False)
class NearestRegions:
    """One region for each of the G objects of an image, in the order of the objects.

    boxes: (G, 4), moved by box regression. scores: (G,), of the object's class. ious: (G,), of box and object. The
    region is the one with the highest score among those with an IoU of at least 0.5. If no region has such an IoU, it
    is the one with the greatest IoU. Without regions, scores and ious are 0. proposal_ious: (G,), the greatest IoU of a
    region that was not moved.
    """

    boxes: Float32Array
    scores: Float32Array
    ious: Float32Array
    proposal_ious: Float32Array

    def __len__(self) -> int:
        return len(self.scores)

    def to_rows(self) -> list[list[float]]:
        """A list x1, y1, x2, y2, score, IoU, IoU of the proposal for each object, for JSON."""
        table = np.column_stack([self.boxes.reshape(-1, 4), self.scores, self.ious, self.proposal_ious])
        return [[round(value, 4) for value in row] for row in table.astype(np.float64).tolist()]

    @classmethod
    def from_rows(cls, rows: Sequence[Sequence[float]]) -> NearestRegions:
        """The inverse of `to_rows`. Raises ValueError if a row does not have seven numbers."""
        if any(len(row) != 7 for row in rows):
            raise ValueError("expected seven numbers for each object")
        table = np.array(rows, dtype=np.float32).reshape(-1, 7)
        return cls(table[:, :4], table[:, 4], table[:, 5], table[:, 6])


def nearest_regions(
    boxes: Float32Array, scored: ScoredRegions, image_size: tuple[int, int], truth: GroundTruth, least_iou: float = 0.5
) -> NearestRegions:
    """Find the nearest region of each object. boxes: the regions (R, 4). R and G may be 0."""
    objects = len(truth)
    found = NearestRegions(
        np.zeros((objects, 4), np.float32), *(np.zeros(objects, np.float32) for _ in range(3))
    )  # fmt: skip
    if not len(boxes):
        return found
    found.proposal_ious[:] = geometry.iou(truth.boxes, boxes).max(axis=1, initial=0)
    for label in np.unique(truth.labels).tolist():
        own = np.flatnonzero(truth.labels == label)
        moved = boxes if scored.deltas is None else geometry.decode(boxes, scored.deltas[:, label - 1])
        moved = geometry.clip(moved, image_size)
        scores = scored.probabilities[:, label]
        ious = geometry.iou(truth.boxes[own], moved)
        # A region that covers the object beats all others; among them the score decides, else the IoU.
        best = np.where(ious >= least_iou, 2 + scores, ious).argmax(axis=1)
        found.boxes[own] = moved[best]
        found.scores[own] = scores[best]
        found.ious[own] = ious[np.arange(len(own)), best]
    return found
