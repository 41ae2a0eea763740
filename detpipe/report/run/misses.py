"""A detector's errors: its most confident false positives and the largest missed objects, each with a reason.

The kinds follow Hoiem et al., "Diagnosing Error in Object Detectors", ECCV 2012: localisation, another class,
background; and duplicates, which VOC also counts as wrong.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from detpipe import boxes
from detpipe.metrics.matching import Matches, match_detections
from detpipe.structures import Detections, Float32Array, GroundTruth, ImageId

NEAR = 0.1
"""The smallest IoU at which a box counts as a detection of an object at all (Hoiem et al., section 2)."""


@dataclass(frozen=True, eq=False)
class Miss:
    """One error. box: (4,) float32, of the detection or of the missed object. label: its class.

    weight: the severity: the detection's score, or the object's area in pixels. kind: for counting. why: the reason.
    """

    image_id: ImageId
    box: Float32Array
    label: int
    weight: float
    kind: str
    why: str


@dataclass(frozen=True, eq=False)
class Misses:
    """The worst errors first, at most `per_image` per image; and the number of each kind in all images."""

    wrong: list[Miss]
    missed: list[Miss]
    wrong_counts: dict[str, int]
    missed_counts: dict[str, int]


def find_misses(
    ground_truth: Mapping[ImageId, GroundTruth],
    detections: Mapping[ImageId, Detections],
    classes: Sequence[str],
    *,
    min_score: float,
    limit: int = 12,
    per_image: int = 2,
    iou_threshold: float = 0.5,
) -> Misses:
    """False positives with at least min_score, by score, and objects without a true positive of that score, by area.

    limit: the length of each list. Without errors the lists are empty.
    """
    wrong: list[Miss] = []
    missed: list[Miss] = []
    nothing = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))
    for image_id, gt in ground_truth.items():
        found = detections.get(image_id, nothing)
        shown = above(found, min_score)
        matches = match_detections(gt, shown, iou_threshold=iou_threshold)
        wrong.extend(_wrong(image_id, gt, shown, matches, classes, iou_threshold))
        missed.extend(_missed(image_id, gt, found, matches, classes, iou_threshold, min_score))
    return Misses(
        wrong=_worst(wrong, limit, per_image),
        missed=_worst(missed, limit, per_image),
        wrong_counts=dict(Counter(miss.kind for miss in wrong).most_common()),
        missed_counts=dict(Counter(miss.kind for miss in missed).most_common()),
    )


def above(detections: Detections, min_score: float) -> Detections:
    """The detections with at least this score."""
    n = int((detections.scores >= min_score).sum())
    return Detections(detections.boxes[:n], detections.scores[:n], detections.labels[:n])


def _wrong(
    image_id: ImageId, gt: GroundTruth, found: Detections, matches: Matches, classes: Sequence[str], least: float
) -> Iterator[Miss]:
    ious = boxes.iou(found.boxes, gt.boxes)
    for index in np.flatnonzero(matches.false_positive).tolist():
        label, own = int(found.labels[index]), float(matches.overlap[index])
        others = np.where(gt.labels != label, ious[index], np.float32(0))
        other = int(others.argmax()) if len(others) else -1
        if own >= least:
            kind, why = "duplicate", "the object was already found"
        elif other >= 0 and others[other] >= least:
            kind, why = "other class", f"is annotated as {classes[gt.labels[other] - 1]}"
        elif own >= NEAR:
            kind, why = "box off", f"IoU {own:.2f} with the object"
        else:
            kind, why = "background", "no object of this class is annotated here"
        yield Miss(image_id, found.boxes[index], label, float(found.scores[index]), kind, why)


def _missed(
    image_id: ImageId,
    gt: GroundTruth,
    found: Detections,
    matches: Matches,
    classes: Sequence[str],
    least: float,
    min_score: float,
) -> Iterator[Miss]:
    """found: all detections, to distinguish a low score from no detection."""
    ious = boxes.iou(gt.boxes, found.boxes)
    for index in np.flatnonzero(~matches.found(gt) & ~gt.difficult & ~gt.crowd).tolist():
        label = int(gt.labels[index])
        same = np.where(found.labels == label, ious[index], np.float32(0))
        near_same, near_other = np.flatnonzero(same >= least), np.flatnonzero(ious[index] - same >= least)
        if len(near_same) and found.scores[near_same[0]] < min_score:
            kind, why = "low score", f"found with score {found.scores[near_same[0]]:.2f} only"
        elif len(near_same):
            kind, why = "shared box", "its box counts for a neighbouring object"
        elif len(near_other):
            kind, why = "other class", f"detected as {classes[found.labels[near_other[0]] - 1]}"
        elif same.max(initial=0) >= NEAR:
            kind, why = "box off", f"nearest box has IoU {same.max():.2f}"
        else:
            kind, why = "not found", "no box of this class near it"
        yield Miss(image_id, gt.boxes[index], label, float(gt.areas[index]), kind, why)


def _worst(misses: list[Miss], limit: int, per_image: int) -> list[Miss]:
    chosen: list[Miss] = []
    of_image: Counter[ImageId] = Counter()
    for miss in sorted(misses, key=lambda miss: -miss.weight):
        if len(chosen) < limit and of_image[miss.image_id] < per_image:
            chosen.append(miss)
            of_image[miss.image_id] += 1
    return chosen
