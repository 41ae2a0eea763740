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
from detpipe.classify.nearest_regions import NearestRegions
from detpipe.metrics.matching import Matches, match_detections
from detpipe.structures import BoolArray, Detections, Float32Array, GroundTruth, ImageId

NEAR = 0.1
"""The smallest IoU at which a box counts as a detection of an object at all (Hoiem et al., section 2)."""
SAME_BOX = 0.5
"""The smallest IoU at which a detection of the same score is taken for a box before box voting."""


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
    nearest: Mapping[ImageId, NearestRegions] | None = None,
    nms_iou: float | None = None,
) -> Misses:
    """False positives with at least min_score, by score, and objects without a true positive of that score, by area.

    limit: the length of each list. nearest: the region nearest to each object before NMS, which tells why an object is
    missed; without it, the reason is what the detections show. nms_iou: for the text. Without errors the lists are
    empty.
    """
    wrong: list[Miss] = []
    missed: list[Miss] = []
    nothing = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))
    for image_id, gt in ground_truth.items():
        found = detections.get(image_id, nothing)
        shown = above(found, min_score)
        matches = match_detections(gt, shown, iou_threshold=iou_threshold)
        wrong.extend(_wrong(image_id, gt, shown, matches, classes, iou_threshold))
        regions = (nearest or {}).get(image_id)
        for index in np.flatnonzero(~matches.found(gt) & ~gt.difficult & ~gt.crowd).tolist():
            kind, why = _why_missed(gt, index, found, regions, classes, iou_threshold, min_score, nms_iou)
            missed.append(Miss(image_id, gt.boxes[index], int(gt.labels[index]), float(gt.areas[index]), kind, why))
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


def _why_missed(
    gt: GroundTruth,
    index: int,
    found: Detections,
    regions: NearestRegions | None,
    classes: Sequence[str],
    least: float,
    min_score: float,
    nms_iou: float | None,
) -> tuple[str, str]:
    """The kind and the reason of a missed object. found: all detections, also those below min_score."""
    ious = boxes.iou(gt.boxes[index : index + 1], found.boxes)[0]
    own, shown = found.labels == gt.labels[index], found.scores >= min_score
    near = np.flatnonzero(own & (ious >= least))
    others = np.flatnonzero(~own & shown & (ious >= least))
    if len(near) and shown[near[0]]:
        return "shared box", "its box counts for a neighbouring object"
    if regions is not None and regions.ious[index] >= least and regions.scores[index] >= min_score:
        return _why_dropped(regions, index, found, own, nms_iou)
    if len(others):
        return "other class", f"detected as {classes[found.labels[others[0]] - 1]} {found.scores[others[0]]:.2f}"
    score = float(found.scores[near[0]]) if len(near) else 0.0
    if regions is not None and regions.ious[index] >= least:
        score = max(score, float(regions.scores[index]))
    if len(near) or (regions is not None and regions.ious[index] >= least):
        return "low score", f"found with score {score:.2f} only"
    if regions is not None and regions.proposal_ious[index] < least:
        return "no proposal", f"the best proposal has IoU {regions.proposal_ious[index]:.2f}"
    if regions is not None:
        moved = (
            f"box regression moved a proposal with IoU {regions.proposal_ious[index]:.2f} to {regions.ious[index]:.2f}"
        )
        return "box off", moved
    closest = float(ious[own].max(initial=0))
    if closest >= NEAR:
        return "box off", f"nearest box has IoU {closest:.2f}"
    return "not found", "no box of this class near it"


def _why_dropped(
    regions: NearestRegions, index: int, found: Detections, own: BoolArray, nms_iou: float | None
) -> tuple[str, str]:
    """Why a box that covers the object, with a sufficient score, is not among the detections."""
    what = f"a box with IoU {regions.ious[index]:.2f} and score {regions.scores[index]:.2f}"
    overlaps = boxes.iou(regions.boxes[index : index + 1], found.boxes)[0]
    # Scores in files are rounded.
    better = np.flatnonzero(own & (found.scores >= regions.scores[index] - 1e-4) & (overlaps > 0))
    if not len(better):
        return "over the limit", f"{what} was left out, because the image has more than detect.max_detections"
    first = better[overlaps[better].argmax()]
    if abs(found.scores[first] - regions.scores[index]) <= 1e-4 and overlaps[first] >= SAME_BOX:
        return "box off", f"{what} was moved by box voting (detect.vote_iou)"
    setting = f" (detect.nms_iou={nms_iou:g})" if nms_iou is not None else ""
    overlap = f"IoU {overlaps[first]:.2f} with a detection with score {found.scores[first]:.2f}"
    return "removed by NMS", f"{what} was removed by NMS{setting}: {overlap}"


def _worst(misses: list[Miss], limit: int, per_image: int) -> list[Miss]:
    chosen: list[Miss] = []
    of_image: Counter[ImageId] = Counter()
    for miss in sorted(misses, key=lambda miss: -miss.weight):
        if len(chosen) < limit and of_image[miss.image_id] < per_image:
            chosen.append(miss)
            of_image[miss.image_id] += 1
    return chosen
