"""A sentence for each missed object and false detection, with the facts that its cause or type rests on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from detpipe import boxes
from detpipe.diagnosis.causes import FOREGROUND, NOT_BEST, Cause, Miss
from detpipe.diagnosis.false_detections import FalseDetection, FalseType
from detpipe.structures import Detections, GroundTruth

SHOWN_SCORES = 3
"""Number of classes in a sentence, with their scores."""


def miss_sentence(miss: Miss, detections: Detections, threshold: float) -> str:
    """Why this object was missed. detections: all of its image. threshold: the smallest score that counts.

    It begins with a small letter and has no full stop, as the text below a picture.
    """
    match miss.cause:
        case Cause.no_proposal:
            return _no_proposal(miss)
        case Cause.budget:
            assert miss.stored_iou is not None
            rank = f" (rank {miss.stored_rank + 1:,})" if miss.stored_rank is not None else ""
            return (
                f"a stored proposal has IoU {miss.stored_iou:.2f}{rank}, but it is beyond detect.max_proposals; the "
                f"best classified one has IoU {miss.proposal_iou or 0:.2f}"
            )
        case Cause.box_regression:
            rank = f" (rank {miss.proposal_rank + 1:,})" if miss.proposal_rank is not None else ""
            return (
                f"a proposal with IoU {miss.proposal_iou or 0:.2f}{rank} was moved away; the nearest box after box "
                f"regression has IoU {miss.iou:.2f}"
            )
        case Cause.suppressed:
            return _suppressed(miss, detections)
        case Cause.background | Cause.wrong_class:
            taken = f"detected as {miss.taken_for} {detections.scores[miss.by]:.2f}" if miss.by is not None else ""
            if miss.covering is None:  # the detections alone decided
                return f"{taken}, IoU {miss.iou:.2f}"
            scored = f"the best box, IoU {miss.iou:.2f}, was scored {_scores(miss.scores, miss.label)}"
            return f"{taken}; {scored}" if taken else scored
        case Cause.threshold:
            return f"{miss.label} {miss.score:.2f} with IoU {miss.iou:.2f}, below the threshold {threshold:.2f}"
        case Cause.localisation:
            return f"the nearest detection of its class, {miss.score:.2f}, has IoU {miss.iou:.2f}"
        case _:
            return "no detection of its class near it"


def false_sentence(one: FalseDetection, truth: GroundTruth, classes: Sequence[str]) -> str:
    """What this false detection shows. truth: the objects of its image. classes: label k is classes[k - 1]."""
    name = classes[truth.labels[one.object] - 1] if one.object is not None else ""
    match one.type:
        case FalseType.duplicate:
            return f"the object was already found; IoU {one.iou:.2f} with it"
        case FalseType.localisation:
            return f"IoU {one.iou:.2f} with the object, less than {FOREGROUND:g}"
        case FalseType.wrong_class:
            return f"is annotated as {name}, IoU {one.iou:.2f}"
        case FalseType.both:
            return f"near an object that is annotated as {name}, IoU {one.iou:.2f}"
        case FalseType.unlabelled:
            second = f": a second classifier scores it {one.second_score:.2f}" if one.second_score is not None else ""
            return f"perhaps an object without a label{second}"
        case _:
            return "no object is annotated here"


def _no_proposal(miss: Miss) -> str:
    if miss.stored_iou is not None:
        return f"the best of all stored proposals has IoU {miss.stored_iou:.2f}"
    if miss.proposal_rank is None:
        return "no region of the image was classified"
    return f"the best proposal has IoU {miss.proposal_iou or 0:.2f}"


def _suppressed(miss: Miss, detections: Detections) -> str:
    if miss.covering is None:  # the detections alone decided
        return f"the box on it, {miss.label} {miss.score:.2f}, counts for a neighbouring object"
    box = f"{miss.label} {miss.score:.2f} with IoU {miss.iou:.2f}"
    what = {
        "nms": "was removed by non-maximum suppression",
        "limit": "was left out: the image has more than detect.max_detections",
        "voted": "was moved by box voting",
    }.get(miss.fate, "counts for a neighbouring object")
    if miss.fate == NOT_BEST:
        what = f"was multiplied by {miss.best:.2g}, the learned probability of being the best box of its object"
        if miss.by is None:
            return f"{box} {what}"
        near = _overlap(miss, miss.covering, detections)
        return f"{box} {what}; IoU {near:.2f} with a detection of score {detections.scores[miss.by]:.2f}"
    if miss.by is None or miss.fate not in ("nms", "voted"):
        return f"{box} {what}"
    score = float(detections.scores[miss.by])
    overlap = _overlap(miss, miss.covering, detections)
    if miss.fate == "voted":
        return f"{box} {what}; IoU {overlap:.2f} with the result"
    counts = ", which counts for a neighbouring object" if miss.by_object is not None else ""
    return f"{box} {what}: IoU {overlap:.2f} with a detection of score {score:.2f}{counts}"


def _overlap(miss: Miss, covering: tuple[float, float, float, float], detections: Detections) -> float:
    """The IoU of the covering region with the detection `by`."""
    assert miss.by is not None
    return float(boxes.iou(np.array([covering], dtype=np.float32), detections.boxes[[miss.by]])[0, 0])


def _scores(scores: Mapping[str, float], label: str) -> str:
    """The highest scores by name, and the score of the object's class."""
    shown = dict(list(scores.items())[:SHOWN_SCORES])
    shown |= {label: scores[label]} if label in scores else {}
    return ", ".join(f"{name} {score:.2f}" for name, score in shown.items())
