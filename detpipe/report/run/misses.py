"""Where a detector is wrong: its most confident false positives and the largest objects it missed, each with a why.

The kinds follow Hoiem et al., "Diagnosing Error in Object Detectors", ECCV 2012: a box that is off, another class, the
background; and the duplicate, which VOC counts as wrong as well.
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
"""An IoU from which a box is about an object at all (Hoiem et al., section 2)."""


@dataclass(frozen=True, eq=False)
class Miss:
    """One error. box: (4,) float32, of the detection or of the missed object. label: its class.

    weight: how bad, the detection's score or the object's area in pixels. kind: a word to count by. why: a phrase.
    """

    image_id: ImageId
    box: Float32Array
    label: int
    weight: float
    kind: str
    why: str


@dataclass(frozen=True, eq=False)
class Misses:
    """The worst first, at most `per_image` of one image; and how many there are of each kind in all images."""

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

    limit: of each list. Nothing wrong and nothing missed give empty lists.
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
    """The detections with at least this score: the first ones, for they are sorted."""
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
            kind, why = "duplicate", "the object was found already"
        elif other >= 0 and others[other] >= least:
            kind, why = "other class", f"is annotated as {classes[gt.labels[other] - 1]}"
        elif own >= NEAR:
            kind, why = "box off", f"IoU {own:.2f} with the object"
        else:
            kind, why = "background", "nothing of the class is annotated here"
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
    """found: all detections, so that one below the shown score can be told from none."""
    ious = boxes.iou(gt.boxes, found.boxes)
    for index in np.flatnonzero(~matches.found(gt) & ~gt.difficult & ~gt.crowd).tolist():
        label = int(gt.labels[index])
        same = np.where(found.labels == label, ious[index], np.float32(0))
        near_same, near_other = np.flatnonzero(same >= least), np.flatnonzero(ious[index] - same >= least)
        if len(near_same) and found.scores[near_same[0]] < min_score:
            kind, why = "low score", f"found with score {found.scores[near_same[0]]:.2f} only"
        elif len(near_same):
            kind, why = "shared box", "its box counts for the object beside it"
        elif len(near_other):
            kind, why = "other class", f"taken for {classes[found.labels[near_other[0]] - 1]}"
        elif same.max(initial=0) >= NEAR:
            kind, why = "box off", f"nearest box has IoU {same.max():.2f}"
        else:
            kind, why = "not found", "no box of the class near it"
        yield Miss(image_id, gt.boxes[index], label, float(gt.areas[index]), kind, why)


def _worst(misses: list[Miss], limit: int, per_image: int) -> list[Miss]:
    chosen: list[Miss] = []
    of_image: Counter[ImageId] = Counter()
    for miss in sorted(misses, key=lambda miss: -miss.weight):
        if len(chosen) < limit and of_image[miss.image_id] < per_image:
            chosen.append(miss)
            of_image[miss.image_id] += 1
    return chosen
