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
from detpipe.classify.object_trace import Fate, ObjectTrace
from detpipe.metrics.matching import Matches, match_detections
from detpipe.structures import Detections, Float32Array, GroundTruth, ImageId

NEAR = 0.1
"""The smallest IoU at which a box counts as a detection of an object at all (Hoiem et al., section 2)."""
LOW_SCORE = "low score"
NOTHING = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))


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


@dataclass(frozen=True)
class Reason:
    """Why an object is missed, or a detection wrong. kind: for counting and filtering. why: the sentence below it."""

    kind: str
    why: str


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """The reasons by image id and index.

    missed: by the index of the object in the image's measured truth: objects that are missed at the threshold that the
    diagnosis was made at. wrong: by the index of the detection, at any score. low_score: the kind of an object that was
    found there, and is missed at a higher threshold.
    """

    missed: Mapping[ImageId, Mapping[int, Reason]]
    wrong: Mapping[ImageId, Mapping[int, Reason]]
    low_score: str = LOW_SCORE


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
    traces: Mapping[ImageId, Sequence[ObjectTrace]] | None = None,
    nms_iou: float | None = None,
) -> Misses:
    """False positives with at least min_score, by score, and objects without a true positive of that score, by area.

    limit: the length of each list. traces: what the detector did with each object, which tells why it is missed;
    without them, the reason is what the detections show. nms_iou: for the text. Without errors the lists are empty.
    """
    wrong: list[Miss] = []
    missed: list[Miss] = []
    for image_id, gt in ground_truth.items():
        found = detections.get(image_id, NOTHING)
        shown = above(found, min_score)
        matches = match_detections(gt, shown, iou_threshold=iou_threshold)
        wrong.extend(miss for _, miss in _wrong(image_id, gt, shown, matches, classes, iou_threshold))
        traced = (traces or {}).get(image_id)
        for index in np.flatnonzero(~matches.found(gt) & ~gt.difficult & ~gt.crowd).tolist():
            trace = traced[index] if traced is not None else None
            kind, why = _why_missed(gt, index, found, trace, classes, iou_threshold, min_score, nms_iou)
            missed.append(Miss(image_id, gt.boxes[index], int(gt.labels[index]), float(gt.areas[index]), kind, why))
    return Misses(
        wrong=_worst(wrong, limit, per_image),
        missed=_worst(missed, limit, per_image),
        wrong_counts=dict(Counter(miss.kind for miss in wrong).most_common()),
        missed_counts=dict(Counter(miss.kind for miss in missed).most_common()),
    )


def diagnose(
    ground_truth: Mapping[ImageId, GroundTruth],
    detections: Mapping[ImageId, Detections],
    classes: Sequence[str],
    *,
    min_score: float,
    iou_threshold: float = 0.5,
    traces: Mapping[ImageId, Sequence[ObjectTrace]] | None = None,
    nms_iou: float | None = None,
) -> Diagnosis:
    """The reason of every object that is missed at min_score, and of every false positive. Arguments as in find_misses.

    Whether a detection is wrong, and why, does not depend on the threshold: a match depends only on higher scores.
    """
    missed: dict[ImageId, dict[int, Reason]] = {}
    wrong: dict[ImageId, dict[int, Reason]] = {}
    for image_id, gt in ground_truth.items():
        found = detections.get(image_id, NOTHING)
        matches = match_detections(gt, found, iou_threshold=iou_threshold)
        wrong[image_id] = {
            index: Reason(miss.kind, miss.why)
            for index, miss in _wrong(image_id, gt, found, matches, classes, iou_threshold)
        }
        shown = match_detections(gt, above(found, min_score), iou_threshold=iou_threshold)
        traced = (traces or {}).get(image_id)
        missed[image_id] = {
            index: Reason(
                *_why_missed(
                    gt,
                    index,
                    found,
                    traced[index] if traced is not None else None,
                    classes,
                    iou_threshold,
                    min_score,
                    nms_iou,
                )
            )
            for index in np.flatnonzero(~shown.found(gt) & ~gt.difficult & ~gt.crowd).tolist()
        }
    return Diagnosis(missed, wrong)


def above(detections: Detections, min_score: float) -> Detections:
    """The detections with at least this score."""
    n = int((detections.scores >= min_score).sum())
    return Detections(detections.boxes[:n], detections.scores[:n], detections.labels[:n])


def _wrong(
    image_id: ImageId, gt: GroundTruth, found: Detections, matches: Matches, classes: Sequence[str], least: float
) -> Iterator[tuple[int, Miss]]:
    """Each false positive, with its index."""
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
        yield index, Miss(image_id, found.boxes[index], label, float(found.scores[index]), kind, why)


def _why_missed(
    gt: GroundTruth,
    index: int,
    found: Detections,
    trace: ObjectTrace | None,
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
    covered = trace is not None and trace.iou >= least
    if trace is not None and covered and trace.score >= min_score:
        return _why_dropped(trace, found, nms_iou)
    if len(others):
        return "other class", f"detected as {classes[found.labels[others[0]] - 1]} {found.scores[others[0]]:.2f}"
    score = float(found.scores[near[0]]) if len(near) else 0.0
    if trace is not None and covered:
        score = max(score, trace.score)
    if len(near) or covered:
        return LOW_SCORE, f"found with score {score:.2f} only"
    if trace is not None and trace.proposal_iou < least:
        return "no proposal", f"the best proposal has IoU {trace.proposal_iou:.2f}"
    if trace is not None:
        moved = f"box regression moved a proposal with IoU {trace.proposal_iou:.2f} to {trace.proposal_moved_iou:.2f}"
        return "box off", moved
    closest = float(ious[own].max(initial=0))
    if closest >= NEAR:
        return "box off", f"nearest box has IoU {closest:.2f}"
    return "not found", "no box of this class near it"


def _why_dropped(trace: ObjectTrace, found: Detections, nms_iou: float | None) -> tuple[str, str]:
    """Why a box that covers the object, with a sufficient score, is not a detection of this object."""
    what = f"a box with IoU {trace.iou:.2f} and score {trace.score:.2f}"
    if trace.fate is Fate.limit:
        return "over the limit", f"{what} was left out, because the image has more than detect.max_detections"
    if trace.fate is Fate.voted:
        return "box off", f"{what} was moved by box voting (detect.vote_iou)"
    if trace.fate is Fate.kept:
        return "shared box", "its box counts for a neighbouring object"
    setting = f" (detect.nms_iou={nms_iou:g})" if nms_iou is not None else ""
    if trace.by < 0:
        return "removed by NMS", f"{what} was removed by NMS{setting}: by a box that is beyond detect.max_detections"
    overlap = float(boxes.iou(np.array([trace.box], np.float32), found.boxes[[trace.by]])[0, 0])
    by = f"IoU {overlap:.2f} with a detection with score {found.scores[trace.by]:.2f}"
    return "removed by NMS", f"{what} was removed by NMS{setting}: {by}"


def _worst(misses: list[Miss], limit: int, per_image: int) -> list[Miss]:
    chosen: list[Miss] = []
    of_image: Counter[ImageId] = Counter()
    for miss in sorted(misses, key=lambda miss: -miss.weight):
        if len(chosen) < limit and of_image[miss.image_id] < per_image:
            chosen.append(miss)
            of_image[miss.image_id] += 1
    return chosen
