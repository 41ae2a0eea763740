"""The reason of each error on the report's page: the causes and types of `detpipe.diagnosis`, in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from detpipe.diagnosis.causes import Cause
from detpipe.diagnosis.diagnose import Errors
from detpipe.diagnosis.false_detections import FalseType, find_false
from detpipe.diagnosis.sentences import false_sentence, miss_sentence
from detpipe.structures import Detections, GroundTruth, ImageId

NAMES: Mapping[Cause | FalseType, str] = {
    Cause.budget: "beyond the budget",
    Cause.box_regression: "moved away",
    Cause.background: "taken for background",
    Cause.threshold: "score too low",
    Cause.missed: "not found",
    FalseType.both: "wrong class and box",
}
"""Names of causes and types that say too little as they are in blame.json."""


def kind_name(one: Cause | FalseType) -> str:
    """The name of a cause or type as text, as after a number: "4 wrong class"."""
    return NAMES.get(one, str(one.value).replace("_", " "))


LOW_SCORE = kind_name(Cause.threshold)
Facts = Mapping[tuple[ImageId, int], Sequence[str]]
"""Lines about a missed object, by its image and its index there."""


@dataclass(frozen=True)
class Reason:
    """Why an object is missed, or a detection wrong. kind: for counting and filtering. why: the sentence below it.

    facts: what happened at each stage, and what to change, as `detpipe explain` tells it; maybe none.
    """

    kind: str
    why: str
    facts: tuple[str, ...] = ()


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


def reasons(
    truth: Mapping[ImageId, GroundTruth],
    detections: Mapping[ImageId, Detections],
    classes: Sequence[str],
    errors: Errors,
    *,
    threshold: float,
    facts: Facts | None = None,
) -> Diagnosis:
    """The reason of every missed object, and of every false detection, also below the threshold.

    detections: all of each image. errors: at this threshold. facts: of the missed objects. Whether a detection is
    false, and its type, does not depend on the threshold, because a match depends only on higher scores.
    """
    missed: dict[ImageId, dict[int, Reason]] = {image_id: {} for image_id in truth}
    wrong: dict[ImageId, dict[int, Reason]] = {}
    for miss in errors.misses:
        why = miss_sentence(miss, detections[miss.image], threshold)
        lines = (facts or {}).get((miss.image, miss.object), ())
        missed[miss.image][miss.object] = Reason(kind_name(miss.cause), why, tuple(lines))
    for image_id, gt in truth.items():
        found = find_false(image_id, gt, detections[image_id], classes, threshold=-math.inf)
        wrong[image_id] = {
            one.detection: Reason(kind_name(one.type), false_sentence(one, gt, classes)) for one in found
        }
    for one in errors.wrong:  # these may have been asked whether they show an object without a label
        why = false_sentence(one, truth[one.image], classes)
        wrong[one.image][one.detection] = Reason(kind_name(one.type), why)
    return Diagnosis(missed, wrong)
