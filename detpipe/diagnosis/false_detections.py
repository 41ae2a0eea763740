"""What kind of error a false detection is, exactly one type for each.

A false detection has at least the threshold's score and is a false positive by PASCAL VOC's rules at IoU 0.5
(`match_detections`). Detections that VOC or COCO ignore, of difficult objects and in crowds, have no type.

The types and the IoU thresholds 0.5 and 0.1 come from TIDE (Bolya et al., "TIDE: A General Toolbox for Identifying
Object Detection Errors", ECCV 2020, section 2.2). In this order:

1. `duplicate`: IoU >= 0.5 with an object of its class, which another detection has found.
2. `localisation`: 0.1 <= IoU < 0.5 with an object of its class.
3. `wrong_class`: IoU >= 0.5 with an object of another class.
4. `both`: IoU >= 0.1 with an object of another class.
5. `background`: IoU < 0.1 with every object.

tidecv tests duplicates after localisation and wrong class. Both orders give the same type, except for a detection that
has IoU >= 0.5 with a found object of its class and with an object of another class: tidecv calls it a wrong class, here
it is a duplicate, because the detector's class was right. tidecv also matches by COCO's rule, in which a detection
whose best object is taken may find its second best; VOC's rule makes it a duplicate.

`unlabelled` is a background detection that may show an object without a label: it is confident, and a second detector
that never saw this image finds it too (`second_opinion.py`). G: objects of an image. N: its detections.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from detpipe import boxes
from detpipe.diagnosis.causes import BACKGROUND, FOREGROUND, above
from detpipe.metrics.matching import match_detections
from detpipe.structures import Detections, GroundTruth, ImageId


class FalseType(enum.Enum):
    """What kind of error a false detection is."""

    wrong_class = "wrong_class"
    """It shows an object of another class."""
    localisation = "localisation"
    """It shows an object of its class, but the IoU is below 0.5."""
    both = "both"
    """It shows an object of another class, and the IoU is below 0.5."""
    duplicate = "duplicate"
    """The object was already found by a detection with a higher score."""
    background = "background"
    """It shows no object."""
    unlabelled = "unlabelled"
    """It shows no annotated object, but perhaps one without a label."""


@dataclass(frozen=True, kw_only=True)
class FalseDetection:
    """One false detection, as plain values.

    image: its id. detection: its index among the image's detections, best first. label: its class. score. box: x1 y1 x2
    y2. iou, object: the object that it is nearest to, by its index in the image's annotation: of its own class for
    duplicates and localisation, of another class for wrong class and both, of any for background. object is None if
    the image has no object with an IoU above 0. second_score: of the second detector for this class, None if it was not
    asked.
    """

    image: ImageId
    detection: int
    label: str
    score: float
    box: tuple[float, float, float, float]
    type: FalseType
    iou: float = 0.0
    object: int | None = None
    second_score: float | None = None


def find_false(
    image: ImageId, truth: GroundTruth, detections: Detections, classes: Sequence[str], *, threshold: float
) -> list[FalseDetection]:
    """The false detections of one image, by descending score. No detections give [].

    None has the type `unlabelled`: that needs a second detector.
    """
    shown = above(detections, threshold)
    matches = match_detections(truth, shown, iou_threshold=FOREGROUND)
    # As in the matching, difficult objects are objects, and crowds are none.
    overlaps = np.where(truth.crowd, np.float32(0), boxes.iou(shown.boxes, truth.boxes))
    found = []
    for index in np.flatnonzero(matches.false_positive).tolist():
        own = truth.labels == shown.labels[index]
        own_object, own_iou = _nearest(np.where(own, overlaps[index], np.float32(0)))
        other_object, other_iou = _nearest(np.where(own, np.float32(0), overlaps[index]))
        if own_iou >= FOREGROUND:
            kind = FalseType.duplicate
        elif own_iou >= BACKGROUND:
            kind = FalseType.localisation
        elif other_iou >= FOREGROUND:
            kind = FalseType.wrong_class
        elif other_iou >= BACKGROUND:
            kind = FalseType.both
        else:
            kind = FalseType.background
        is_own = kind in (FalseType.duplicate, FalseType.localisation) or (
            kind is FalseType.background and own_iou >= other_iou
        )
        x1, y1, x2, y2 = shown.boxes[index].tolist()
        found.append(
            FalseDetection(
                image=image,
                detection=index,
                label=classes[shown.labels[index] - 1],
                score=float(shown.scores[index]),
                box=(x1, y1, x2, y2),
                type=kind,
                iou=own_iou if is_own else other_iou,
                object=own_object if is_own else other_object,
            )
        )
    return found


def _nearest(overlap: np.typing.NDArray[np.float32]) -> tuple[int | None, float]:
    """The index of the greatest IoU, the first of equal ones, and this IoU; None and 0 if all are 0."""
    best = int(overlap.argmax()) if len(overlap) else -1
    return (best, float(overlap[best])) if best >= 0 and overlap[best] > 0 else (None, 0.0)
