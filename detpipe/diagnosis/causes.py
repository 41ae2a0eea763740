"""Why an object was missed: the first stage of a two-step detector that failed, exactly one cause for each object.

An object is missed if it is neither difficult nor a crowd, and no detection with at least the threshold's score is its
true positive by PASCAL VOC's rules at IoU 0.5 (`match_detections`). G: objects of an image. N: its detections.

With a trace, let C be the classified regions whose box, after box regression for the object's class, has an IoU of at
least 0.5 with the object. The covering region is the one of C with the highest score of the object's class.

1. C is empty:
   `box_regression` if a classified region had an IoU of at least 0.5 before box regression,
   else `budget` if a stored proposal that was not classified has,
   else `no_proposal`.
2. The covering region's score of the object's class is at least the threshold:
   `suppressed`: its box was removed or replaced (by NMS, box voting, detect.max_detections), or counts for a
   neighbouring object. `by` is the detection that did it. The score counts before it was multiplied by the learned
   probability of being the best box of an object (detect.fast_rcnn.duplicates). If only this factor made it too low,
   `by` is the detection of the class that overlaps the box most.
3. The object was taken for another class: `wrong_class`. That is so if the covering region's most probable class is
   another one, or has at least the threshold's score; or if a false detection of another class, with at least this
   score, has an IoU of at least 0.5 with the object, from whichever region. `by` is this detection.
4. The covering region's most probable class is the background: `background`; the object's own: `threshold`, the score
   is just too low. Scores count before the factor of 2. (Heads with one score per class call 1 minus the best score
   the background. Then `background` means a score below 0.5.)

Without a trace, as for detections of another program, the detections alone decide, in this order:

1. `suppressed`: a detection of the class with at least the threshold's score and IoU 0.5; it counts for a neighbour.
2. `wrong_class`: a detection of another class with at least this score and IoU 0.5.
3. `threshold`: a detection of the class with IoU 0.5 and a lower score.
4. `localisation`: a detection of the class with at least the threshold's score and an IoU from 0.1 to 0.5.
5. `missed`: none of these. It is the sixth type of TIDE (Bolya et al. 2020).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from detpipe import boxes
from detpipe.classify.object_trace import ObjectTrace
from detpipe.metrics.matching import match_detections
from detpipe.structures import Detections, Float32Array, GroundTruth, ImageId

FOREGROUND = 0.5
"""The smallest IoU of a box that covers an object (VOC; t_f in TIDE)."""
BACKGROUND = 0.1
"""Below this IoU with all objects, a box shows background (t_b in TIDE)."""
NOT_BEST = "not_best"
"""The fate of a covering region whose score the learned probability of being the best box made too low."""
BACKGROUND_NAME = "background"
"""The name of label 0 among the scores of a region."""


class Cause(enum.Enum):
    """Why an object was missed. The first seven need a trace, the last two are of detections without one."""

    no_proposal = "no_proposal"
    """No stored proposal has an IoU of at least 0.5."""
    budget = "budget"
    """A stored proposal has, but it was not classified: its rank is beyond detect.max_proposals."""
    box_regression = "box_regression"
    """A classified region had, but box regression moved it away."""
    background = "background"
    """The region that covers the object was classified as background."""
    wrong_class = "wrong_class"
    """It was classified as another class."""
    threshold = "threshold"
    """It was classified correctly, but its score is below the threshold."""
    suppressed = "suppressed"
    """It was scored high enough, but its box was removed, replaced, not the best one of an object by the learned
    probability, or counts for a neighbouring object."""
    localisation = "localisation"
    """Without a trace: a detection of the class is near, but its IoU is below 0.5."""
    missed = "missed"
    """Without a trace: no detection tells more."""


STAGES = tuple(Cause)[:7]
"""The causes of objects with a trace, in the order of the stages."""
REDUCED = (Cause.localisation, Cause.wrong_class, Cause.threshold, Cause.suppressed, Cause.missed)
"""The causes of objects without a trace."""


@dataclass(frozen=True, kw_only=True)
class Miss:
    """One missed object with its cause and the facts that it rests on, as plain values.

    image: its id. object: the index of the object in the image's annotation. label: the class. box: x1 y1 x2 y2.
    difficult objects and crowds are never missed.
    proposal_iou, proposal_rank: the classified region with the greatest IoU before box regression, and its 0-based
    rank. stored_iou, stored_rank: the same of all stored proposals; None if they were not given.
    iou, rank, score: the covering region after box regression, its rank, and its score of the object's class. Without a
    trace, iou and score belong to the detection that decided. They are 0 if there is no such detection.
    best_label, best_score: the most probable class of the covering region ("background" for the background), or the
    class of the detection that decided; None if there is none.
    scores: of the covering region, by class, highest first; empty without a trace.
    best: the learned probability by which the covering region's scores were multiplied; 1 if it is not used.
    fate: what became of the covering region: kept, below_floor, nms, limit, voted, not_best (its score is too low by
    this probability only), or none; "unknown" without a trace.
    by: the index, among the image's detections, of the box that removed or replaced the covering region, that counts
    for a neighbour, or that shows the object as another class; without a trace, of the detection that decided. None if
    there is none. by_object: the index of the neighbour that this box counts for; None if there is none.
    taken_for: the other class, for `wrong_class`; else None. covering: x1 y1 x2 y2 of the covering region after box
    regression; None without a trace, or without regions.
    """

    image: ImageId
    object: int
    label: str
    box: tuple[float, float, float, float]
    cause: Cause
    proposal_iou: float | None = None
    proposal_rank: int | None = None
    stored_iou: float | None = None
    stored_rank: int | None = None
    iou: float = 0.0
    rank: int | None = None
    score: float = 0.0
    best_label: str | None = None
    best_score: float | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    best: float = 1.0
    fate: str = "unknown"
    by: int | None = None
    by_object: int | None = None
    taken_for: str | None = None
    covering: tuple[float, float, float, float] | None = None


def find_misses(
    image: ImageId,
    truth: GroundTruth,
    detections: Detections,
    classes: Sequence[str],
    *,
    threshold: float,
    traces: Sequence[ObjectTrace] | None = None,
    proposals: Float32Array | None = None,
) -> list[Miss]:
    """The missed objects of one image, in the order of the objects. An image without objects gives [].

    traces: one for each object; None for detections of another program. proposals: all stored proposals (P, 4), best
    first; None if there are none stored, then no object has the cause `budget`.
    Raises ValueError if there are not as many traces as objects.
    """
    if traces is not None and len(traces) != len(truth):
        raise ValueError(f"{image}: expected a trace for each of {len(truth)} objects, got {len(traces)}")
    shown = above(detections, threshold)
    matches = match_detections(truth, shown, iou_threshold=FOREGROUND)
    missed = np.flatnonzero(~matches.found(truth) & ~truth.difficult & ~truth.crowd).tolist()
    if not missed:
        return []
    overlaps = boxes.iou(truth.boxes, detections.boxes)
    stored = boxes.iou(truth.boxes, proposals) if proposals is not None else None
    found = []
    for index in missed:
        x1, y1, x2, y2 = truth.boxes[index].tolist()
        label = int(truth.labels[index])
        miss = Miss(image=image, object=index, label=classes[label - 1], box=(x1, y1, x2, y2), cause=Cause.missed)
        if stored is not None:
            best = int(stored[index].argmax()) if stored.shape[1] else None
            best_iou = float(stored[index, best]) if best is not None else 0.0
            miss = replace(miss, stored_iou=best_iou, stored_rank=best)
        if traces is None:
            miss = _by_detections(miss, label, detections, len(shown), overlaps[index], classes)
        else:
            miss = _by_trace(miss, label, traces[index], threshold, classes)
            if miss.cause is Cause.suppressed:
                miss = replace(miss, by=_suppressor(miss.fate, traces[index], label, detections, len(shown)))
            elif miss.cause in (Cause.background, Cause.threshold, Cause.wrong_class):
                others = matches.false_positive & (shown.labels != label)
                taken = np.flatnonzero(others & (overlaps[index, : len(shown)] >= FOREGROUND))
                if len(taken):
                    by = int(taken[0])
                    name = classes[shown.labels[by] - 1]
                    miss = replace(miss, cause=Cause.wrong_class, by=by, taken_for=name)
        if miss.by is not None and miss.by < len(shown) and matches.true_positive[miss.by]:
            miss = replace(miss, by_object=int(matches.object_index[miss.by]))
        found.append(miss)
    return found


def above(detections: Detections, least: float) -> Detections:
    """The detections with at least this score: the first ones, since they are sorted."""
    n = int((detections.scores >= np.float32(least)).sum())
    return Detections(detections.boxes[:n], detections.scores[:n], detections.labels[:n])


def _by_trace(miss: Miss, label: int, trace: ObjectTrace, threshold: float, classes: Sequence[str]) -> Miss:
    """The miss with its cause and the facts of the trace."""
    before = _before_best(trace)
    ranked = sorted(trace.scores.items(), key=lambda one: (-before[one[0]], one[0] != label, one[0]))
    best = ranked[0][0] if ranked else None
    miss = replace(
        miss,
        proposal_iou=float(trace.proposal_iou),
        proposal_rank=_or_none(trace.proposal_rank),
        iou=float(trace.iou),
        rank=_or_none(trace.rank),
        score=float(trace.score),
        best_label=_name(best, classes) if best is not None else None,
        best_score=float(ranked[0][1]) if ranked else None,
        scores={_name(one, classes): float(score) for one, score in ranked},
        best=float(trace.best),
        fate=trace.fate.value,
        covering=_box(trace.box) if trace.rank >= 0 else None,
    )
    others = [one for one, _ in ranked if one not in (0, label)]
    other = others[0] if others else None
    if trace.rank < 0 or trace.iou < FOREGROUND:
        if trace.proposal_rank >= 0 and trace.proposal_iou >= FOREGROUND:
            cause = Cause.box_regression
        elif miss.stored_iou is not None and miss.stored_iou >= FOREGROUND:
            cause = Cause.budget
        else:
            cause = Cause.no_proposal
    elif np.float32(trace.score) >= np.float32(threshold) and miss.fate != "below_floor":
        cause = Cause.suppressed
    elif trace.best < 1 and best == label and np.float32(before[label]) >= np.float32(threshold):
        cause, miss = Cause.suppressed, replace(miss, fate=NOT_BEST)
    elif best is None or best == label:
        cause = Cause.threshold
    elif best == 0 and (other is None or np.float32(trace.scores[other]) < np.float32(threshold)):
        cause = Cause.background
    else:
        cause = Cause.wrong_class
    if cause is Cause.wrong_class and other is not None:
        miss = replace(miss, taken_for=classes[other - 1])
    return replace(miss, cause=cause)


def _before_best(trace: ObjectTrace) -> dict[int, float]:
    """The covering region's scores before they were multiplied by the probability of being the best box."""
    return {label: score / trace.best if label and trace.best > 0 else score for label, score in trace.scores.items()}


def _suppressor(fate: str, trace: ObjectTrace, label: int, detections: Detections, shown: int) -> int | None:
    """The detection that removed or replaced the covering region, or that is its box and counts for a neighbour.

    fate: of the miss. shown: number of detections with at least the threshold's score. None if no detection of the
    class is near it.
    """
    if 0 <= trace.by < len(detections) and fate != NOT_BEST:
        return trace.by
    overlap = boxes.iou(np.array([trace.box], dtype=np.float32).reshape(1, 4), detections.boxes[:shown])[0]
    overlap = np.where(detections.labels[:shown] == label, overlap, np.float32(0))
    return int(overlap.argmax()) if fate in ("kept", "voted", NOT_BEST) and overlap.any() else None


def _by_detections(
    miss: Miss, label: int, detections: Detections, shown: int, overlap: Float32Array, classes: Sequence[str]
) -> Miss:
    """The miss with its cause in the reduced form. shown: as above. overlap: (N,), IoU of the object and detections."""
    own, is_shown = detections.labels == label, np.arange(len(detections)) < shown
    covers = overlap >= FOREGROUND
    near = (overlap >= BACKGROUND) & ~covers
    for cause, which in (
        (Cause.suppressed, own & is_shown & covers),
        (Cause.wrong_class, ~own & is_shown & covers),
        (Cause.threshold, own & ~is_shown & covers),
        (Cause.localisation, own & is_shown & near),
    ):
        if which.any():
            # The most confident one; of a box that is off, the nearest one.
            first = int(np.where(which, overlap, -1).argmax() if cause is Cause.localisation else which.argmax())
            name, score = classes[detections.labels[first] - 1], float(detections.scores[first])
            own_score = score if cause is not Cause.wrong_class else 0.0
            return replace(
                miss,
                cause=cause,
                iou=float(overlap[first]),
                score=own_score,
                best_label=name,
                best_score=score,
                by=first,
                taken_for=name if cause is Cause.wrong_class else None,
            )
    return miss


def _box(box: Sequence[float]) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = map(float, box)
    return x1, y1, x2, y2


def _name(label: int, classes: Sequence[str]) -> str:
    return classes[label - 1] if label else BACKGROUND_NAME


def _or_none(rank: int) -> int | None:
    return rank if rank >= 0 else None
