"""What happened to each object of one image, and what each false detection shows, in sentences.

The facts come from the object's trace, its cause and the stored proposals. No network is needed.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from detpipe import boxes as geometry
from detpipe.classify.object_trace import Fate, ObjectTrace
from detpipe.classify.settings import Duplicates
from detpipe.diagnosis.advice import NMS_STEPS, DetectorSettings
from detpipe.diagnosis.causes import BACKGROUND, BACKGROUND_NAME, FOREGROUND, NOT_BEST, Cause, Miss, above, find_misses
from detpipe.diagnosis.false_detections import FalseDetection, FalseType, find_false
from detpipe.diagnosis.sentences import miss_sentence
from detpipe.metrics.matching import match_detections
from detpipe.structures import Detections, Float32Array, GroundTruth, ImageId

Box = tuple[float, float, float, float]
SAME_PLACE = 0.7
"""From this IoU on, two boxes are too similar for any usual threshold of NMS to keep both."""


class Role(enum.Enum):
    """What a box is in an explanation."""

    object = "object"
    """The annotated object."""
    proposal = "proposal"
    """The best proposal."""
    moved = "moved"
    """The box that covers the object, or comes nearest, after box regression."""
    remover = "remover"
    """The detection that removed this box."""
    voted = "voted"
    """The detection that box voting made of it."""
    detection = "detection"
    """The detection that is explained, or that found the object."""


@dataclass(frozen=True)
class Frame:
    """One box of a picture. text: what it is, with its numbers."""

    role: Role
    box: Box
    text: str


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """The story of one object or of one false detection.

    title: what it is and how it ended. lines: the facts in the order of the stages. change: what to do about it; "" for
    an object that was found. frames: the boxes of the story, the most important first. is_error: whether it was missed,
    or is false.
    """

    title: str
    lines: Sequence[str]
    change: str = ""
    frames: Sequence[Frame] = field(default_factory=list)
    is_error: bool = True


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageFacts:
    """What is known of one image. G objects, N detections, P stored proposals.

    truth: the objects as their file has them. detections: all of them. threshold: the smallest score that counts.
    threshold_why: where it comes from. traces: one for each object; None if the run has none. proposals: (P, 4), best
    first; None if there are none. detector: the settings that held. score_floor: the smallest score of a detection.
    """

    image: ImageId
    truth: GroundTruth
    detections: Detections
    classes: Sequence[str]
    threshold: float
    threshold_why: str
    traces: Sequence[ObjectTrace] | None
    proposals: Float32Array | None
    detector: DetectorSettings
    score_floor: float | None = None


def explain_objects(facts: ImageFacts) -> list[Explanation]:
    """One explanation for each object, in their order. An image without objects gives []."""
    shown = above(facts.detections, facts.threshold)
    matches = match_detections(facts.truth, shown, iou_threshold=FOREGROUND)
    found_by = {int(matches.object_index[index]): index for index in np.flatnonzero(matches.true_positive).tolist()}
    misses = {
        one.object: one
        for one in find_misses(
            facts.image,
            facts.truth,
            facts.detections,
            facts.classes,
            threshold=facts.threshold,
            traces=facts.traces,
            proposals=facts.proposals,
        )
    }
    return [_object(facts, index, misses.get(index), found_by.get(index)) for index in range(len(facts.truth))]


def explain_false(facts: ImageFacts) -> list[Explanation]:
    """One explanation for each false detection with at least the threshold's score, by descending score."""
    found = find_false(facts.image, facts.truth, facts.detections, facts.classes, threshold=facts.threshold)
    return [_false(facts, one) for one in found]


def _object(facts: ImageFacts, index: int, miss: Miss | None, found_by: int | None) -> Explanation:
    label = facts.classes[facts.truth.labels[index] - 1]
    box = _corners(facts.truth.boxes[index])
    trace = facts.traces[index] if facts.traces is not None else None
    frames = [Frame(Role.object, box, f"object {index}: {label}")]
    if miss is not None:
        ending = f"missed ({miss.cause.value})"
    elif found_by is not None:
        iou = geometry.iou(facts.truth.boxes[[index]], facts.detections.boxes[[found_by]])[0, 0]
        ending = f"found by {_named(facts, found_by)}, IoU {iou:.2f}"
        frames.append(_detection_frame(facts, found_by, Role.detection))
    elif facts.truth.crowd[index]:
        ending = "a crowd, which does not count"
    else:
        ending = "difficult, which does not count"
    lines = list(_proposal_lines(facts, index, trace))
    if trace is not None:
        lines += _trace_lines(facts, label, trace, miss)
        frames += _trace_frames(facts, label, trace, found_by)
    elif miss is not None and miss.by is not None:
        lines.append(f"Nearest: {_named(facts, miss.by)}, IoU {miss.iou:.2f}.")
        frames.append(_detection_frame(facts, miss.by, Role.detection))
    if miss is not None:
        lines.append(f"Threshold: {facts.threshold:.2f}, {facts.threshold_why}.")
        sentence = miss_sentence(miss, facts.detections, facts.threshold)
        lines.append(f"Cause: {miss.cause.value.replace('_', ' ')}: {sentence}.")
    return Explanation(
        title=f"object {index}, {label}, box {_text(box)}: {ending}",
        lines=lines,
        change=_change(facts, miss) if miss is not None else "",
        frames=frames,
        is_error=miss is not None,
    )


def _proposal_lines(facts: ImageFacts, index: int, trace: ObjectTrace | None) -> list[str]:
    """The best proposal: among the classified ones, and among all that are stored."""
    budget = facts.detector.max_proposals
    lines = []
    if trace is not None and trace.proposal_rank < 0:
        lines.append("Proposals: no region of this image was classified.")
    elif trace is not None:
        count = _classified(facts)
        of = f" of {count}" if count is not None and trace.proposal_rank < count else ""
        lines.append(f"Best proposal: rank {trace.proposal_rank + 1}{of} classified, IoU {trace.proposal_iou:.2f}.")
    if facts.proposals is not None and len(facts.proposals):
        ious = geometry.iou(facts.truth.boxes[[index]], facts.proposals)[0]
        best = int(ious.argmax())
        if trace is None or best != trace.proposal_rank:
            beyond = f", which is beyond detect.max_proposals={budget}" if budget is not None and best >= budget else ""
            lines.append(
                f"Of all {len(facts.proposals)} stored proposals: rank {best + 1}, IoU {ious[best]:.2f}{beyond}."
            )
            first = np.flatnonzero(ious >= FOREGROUND)
            is_poor = trace is None or trace.proposal_iou < FOREGROUND
            if is_poor and len(first) and first[0] != best:
                lines.append(f"The first of them with an IoU of at least {FOREGROUND}: rank {first[0] + 1}.")
    return lines


def _trace_lines(facts: ImageFacts, label: str, trace: ObjectTrace, miss: Miss | None) -> list[str]:
    """Box regression, the scores before NMS, and what became of the box."""
    if trace.rank < 0:
        return []
    lines = []
    if trace.proposal_moved != trace.proposal_box:
        lines.append(
            f"Box regression for {label} moved it from IoU {trace.proposal_iou:.2f} to {trace.proposal_moved_iou:.2f}."
        )
    if miss is not None and trace.rank != trace.proposal_rank:
        lines.append(f"The scores of this proposal: {_scores(facts.classes, trace.proposal_scores)}.")
    scores = _scores(facts.classes, trace.scores)
    if trace.iou < FOREGROUND:
        lines.append(
            f"No box covers the object: the nearest one after box regression has IoU {trace.iou:.2f} and, before NMS, "
            f"the scores {scores}."
        )
    else:
        count = _classified(facts)
        same = "this region" if trace.rank == trace.proposal_rank else f"the region of rank {trace.rank + 1}"
        if count is not None and trace.rank >= count:
            same = "a region that was refined and scored again (detect.features.refine)"
        lines.append(
            f"Best box on the object: {same}, IoU {trace.iou:.2f} after box regression. Its scores before NMS: "
            f"{scores}."
        )
    if trace.best < 1:
        lines.append(
            f"The scores of classes were multiplied by {trace.best:.2g}, the learned probability that this box is the "
            f"best one of its object (detect.fast_rcnn.duplicates={facts.detector.duplicates.value})."
        )
    if miss is None or trace.iou >= FOREGROUND:
        lines.append(_fate(facts, trace, miss))
    return lines


def _classified(facts: ImageFacts) -> int | None:
    """The number of proposals that were classified; None if it is unknown."""
    if facts.proposals is None or facts.detector.max_proposals is None:
        return None
    return min(len(facts.proposals), facts.detector.max_proposals)


def _fate(facts: ImageFacts, trace: ObjectTrace, miss: Miss | None) -> str:
    detector = facts.detector
    by = _named(facts, trace.by) if 0 <= trace.by < len(facts.detections) else ""
    neighbour = f" It counts for object {miss.by_object}." if miss is not None and miss.by_object is not None else ""
    if trace.fate is Fate.kept:
        return f"The box was kept: it is {by}.{neighbour}"
    if trace.fate is Fate.voted:
        iou = geometry.iou(np.array([trace.box], np.float32), facts.detections.boxes[[trace.by]])[0, 0]
        setting = f" (detect.vote_iou={detector.vote_iou:g})" if detector.vote_iou is not None else ""
        return f"The box was kept, and box voting{setting} moved it (IoU {iou:.2f}): it is {by}.{neighbour}"
    if trace.fate is Fate.nms:
        setting = f" (detect.nms_iou={detector.nms_iou:g})" if detector.nms_iou is not None else ""
        if not by:
            return f"Non-maximum suppression{setting} removed it. The box that removed it is beyond the limit itself."
        overlap = _overlap(facts, trace.box, trace.by)
        voted = ", after box voting" if detector.vote_iou is not None else ""
        return f"Non-maximum suppression{setting} removed it: IoU {overlap:.2f} with {by}{voted}.{neighbour}"
    if trace.fate is Fate.limit:
        setting = f"detect.max_detections={detector.max_detections}" if detector.max_detections else "the limit"
        return f"The box was left out: the image has more detections than {setting}, with higher scores."
    if trace.fate is Fate.below_floor:
        floor = f"detect.score_floor={facts.score_floor:g}" if facts.score_floor is not None else "the score floor"
        return f"The box was left out: its score is below {floor}."
    return "The box has no area within the image."


def _change(facts: ImageFacts, miss: Miss) -> str:
    """Which setting, or which data, to change for an object with this cause."""
    detector = facts.detector
    if miss.cause is Cause.budget:
        rank = _first_good(facts, miss)
        return f"classify more proposals: detect.max_proposals={math.ceil((rank + 1) / 100) * 100}"
    if miss.cause is Cause.no_proposal:
        if detector.proposes:
            return "train the proposing network longer, or on more images with objects of this size"
        larger = f", or propose in larger images ({detector.larger[0]})" if detector.larger else ""
        return f"another proposer, such as proposals={detector.other_method}{larger}; then train again"
    if miss.cause is Cause.suppressed:
        return _unsuppressed(facts, miss)
    return {
        Cause.box_regression: "compare with head.box_regression=none; check that the training boxes are exact",
        Cause.background: f"label more training images in which {miss.label} looks like this",
        Cause.wrong_class: f"label more training images with {miss.label} and {miss.taken_for}; check their labels",
        Cause.threshold: f"label more training images in which {miss.label} looks like this; a threshold of "
        f"{math.floor(miss.score * 100) / 100:.2f} would show it, with more false detections",
        Cause.localisation: "train box regression (head.box_regression), or use detect.vote_iou=0.75",
        Cause.missed: "run `detpipe detect` with overwrite=true, which stores at which stage the object was lost",
    }[miss.cause]


def _unsuppressed(facts: ImageFacts, miss: Miss) -> str:
    detector = facts.detector
    if miss.fate == NOT_BEST:
        return (
            "find duplicates by non-maximum suppression alone: detect.fast_rcnn.duplicates=nms; or train on more "
            "images in which such objects are close together"
        )
    if miss.fate == "limit":
        more = 3 * (detector.max_detections or len(facts.detections))
        return f"allow more detections: detect.max_detections={more}"
    if miss.fate == "voted" and miss.by_object is None:
        return f"vote with nearer boxes only: {detector.stricter_voting}"
    if miss.fate == "nms" and miss.covering is not None and miss.by is not None:
        if _shows_same_object(facts, miss):
            exact = "label the boxes of such objects exactly, and train box regression on them"
            voting = "" if detector.vote_iou is None else f"; vote with nearer boxes only: {detector.stricter_voting}"
            return f"the box that was kept shows this object, too, but its place is worse: {exact}{voting}"
        overlap = _overlap(facts, miss.covering, miss.by)
        step = next((one for one in NMS_STEPS if one > max(overlap, detector.nms_iou or 0)), None)
        if step is not None and overlap < SAME_PLACE:
            # The overlap with a voted box is not the one that non-maximum suppression saw.
            would = "would" if detector.vote_iou is None else "may"
            return f"a higher threshold of non-maximum suppression: detect.nms_iou={step:g} {would} keep this box"
        return (
            "no threshold of non-maximum suppression keeps two boxes that are so similar; train on more crowded images"
        )
    close = "label more training images in which such objects are close together"
    return close if detector.duplicates is Duplicates.learned else f"{close}; try a higher detect.nms_iou"


def _shows_same_object(facts: ImageFacts, miss: Miss) -> bool:
    """Whether the box that removed the covering one shows this object, and no other one of its class better."""
    if miss.by is None or miss.by_object is not None:
        return False
    ious = geometry.iou(facts.detections.boxes[[miss.by]], facts.truth.boxes)[0]
    own = np.where(facts.truth.labels == facts.truth.labels[miss.object], ious, np.float32(0))
    return bool(own[miss.object] >= BACKGROUND and own.argmax() == miss.object)


def _first_good(facts: ImageFacts, miss: Miss) -> int:
    """The rank, from 0, of the first stored proposal that is good enough."""
    assert facts.proposals is not None
    ious = geometry.iou(facts.truth.boxes[[miss.object]], facts.proposals)[0]
    return int(np.flatnonzero(ious >= FOREGROUND)[0])


def _trace_frames(facts: ImageFacts, label: str, trace: ObjectTrace, found_by: int | None) -> list[Frame]:
    frames = []
    if trace.rank >= 0 and not (trace.by == found_by and trace.fate is Fate.kept):
        text = f"after box regression: {label} {trace.score:.2f}, IoU {trace.iou:.2f}"
        frames.append(Frame(Role.moved, trace.box, text))
    if 0 <= trace.by < len(facts.detections) and trace.by != found_by and trace.fate is not Fate.kept:
        role = Role.voted if trace.fate is Fate.voted else Role.remover
        frames.append(_detection_frame(facts, trace.by, role))
    if trace.proposal_rank >= 0:
        text = f"best proposal: rank {trace.proposal_rank + 1}, IoU {trace.proposal_iou:.2f}"
        frames.append(Frame(Role.proposal, trace.proposal_box, text))
    return frames


def _false(facts: ImageFacts, one: FalseDetection) -> Explanation:
    """The explanation of a false detection, with the objects that it is nearest to."""
    ious = geometry.iou(np.array([one.box], np.float32), facts.truth.boxes)[0]
    nearest = [index for index in np.argsort(-ious, kind="stable")[:2].tolist() if ious[index] > 0]
    names = [facts.classes[label - 1] for label in facts.truth.labels]
    lines = [f"IoU {ious[index]:.2f} with object {index}, {names[index]}." for index in nearest]
    if not nearest:
        lines = ["No object is near it."]
    frames = [Frame(Role.detection, one.box, f"detection {one.detection}: {one.label} {one.score:.2f}")]
    frames += [
        Frame(Role.object, _corners(facts.truth.boxes[index]), f"object {index}: {names[index]}") for index in nearest
    ]
    other = names[one.object] if one.object is not None else "the other class"
    told, change = {
        FalseType.duplicate: (
            f"object {one.object} was already found by a detection with a higher score.",
            "detect.fast_rcnn.duplicates=both, which also suppresses boxes that overlap"
            if facts.detector.duplicates is Duplicates.learned
            else "a lower detect.nms_iou",
        ),
        FalseType.localisation: (
            "it shows an object of its class, but the box is not exact enough.",
            "train box regression (head.box_regression), or use detect.vote_iou=0.75; check the object's box",
        ),
        FalseType.wrong_class: (
            f"it shows object {one.object}, which has another class.",
            f"label more training images with {one.label} and {other}; check the label",
        ),
        FalseType.both: (
            f"it partly shows object {one.object}, which has another class.",
            "label more training images of both classes",
        ),
        FalseType.background: (
            "it shows no annotated object.",
            "check whether an object without a label is there; else add images without objects that look like this",
        ),
        FalseType.unlabelled: ("perhaps it shows an object without a label.", "check whether a label is missing"),
    }[one.type]
    return Explanation(
        title=f"detection {one.detection}, {one.label} {one.score:.2f}, box {_text(one.box)}: false ({one.type.value})",
        lines=[*lines, f"Type: {told}"],
        change=change,
        frames=frames,
    )


def _overlap(facts: ImageFacts, box: Box, detection: int) -> float:
    return float(geometry.iou(np.array([box], np.float32), facts.detections.boxes[[detection]])[0, 0])


def _named(facts: ImageFacts, detection: int) -> str:
    label = facts.classes[facts.detections.labels[detection] - 1]
    return f"detection {detection} ({label} {facts.detections.scores[detection]:.2f})"


def _detection_frame(facts: ImageFacts, detection: int, role: Role) -> Frame:
    return Frame(role, _corners(facts.detections.boxes[detection]), _named(facts, detection))


def _scores(classes: Sequence[str], scores: Mapping[int, float]) -> str:
    """The scores by name, from high to low."""
    ranked = sorted(scores.items(), key=lambda one: (-one[1], one[0]))
    return ", ".join(f"{classes[label - 1] if label else BACKGROUND_NAME} {score:.2f}" for label, score in ranked)


def _corners(box: Float32Array) -> Box:
    x1, y1, x2, y2 = (round(value, 2) for value in box.tolist())
    return x1, y1, x2, y2


def _text(box: Box) -> str:
    return " ".join(f"{value:.0f}" for value in box)
