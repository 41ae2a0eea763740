"""Cues: numbers that tell a wrong label from a right one, from the scores of regions by a head that did not see them.

They follow the scores of ObjectLab (Tkachenko, Thyagarajan & Mueller 2023: swapped, badly located and overlooked
boxes) and confident learning (Northcutt, Jiang & Chuang 2021: a label against out-of-sample probabilities).

K: classes. L: labels of an image. R: regions. C: candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from detpipe import boxes as geometry
from detpipe.labels.regions import AuditRegions, Role
from detpipe.structures import BoolArray, Float32Array, Float64Array, GroundTruth, ImageId, Int64Array

NEAR_IOU = 0.5
"""Regions with at least this IoU with a label show the same object, in another cut."""
AROUND_IOU = 0.15
"""Regions with at least this IoU with a label may show the object that a misplaced label means."""
FLOOR = 1e-3
"""Scores are at least this, and at most one minus this, before their logit is taken."""
LABEL_CUES = (
    "own_score",
    "near_score",
    "own_class",
    "near_class",
    "consensus_iou",
    "moved_iou",
    "better_place",
    "place_iou",
    "proposal_iou",
    "other_label_iou",
)
CANDIDATE_CUES = (
    "score",
    "class_margin",
    "support",
    "agreement",
    "label_iou",
    "inside_label",
    "around_label",
    "rank",
    "size",
    "shape",
    "border",
)


@dataclass(frozen=True, eq=False)
class ScoredImage:
    """One image of an audit.

    truth: the labels in the order of their file. regions: (R,) of them. scores: (R, K) by heads that did not see the
    image. moved: (R, 4), the regions after box regression.
    """

    image_id: ImageId
    split: str
    image_size: tuple[int, int]
    truth: GroundTruth
    regions: AuditRegions
    scores: Float32Array
    moved: Float32Array


@dataclass(frozen=True, eq=False)
class LabelView:
    """What the cues of one label need.

    box: (4,). label: its class, 1..K. own: the row of its box. rows: the regions that may be looked at, the own one
    first. others: (M, 4), the other labels.
    """

    box: Float32Array
    label: int
    own: int
    rows: Int64Array
    others: Float32Array


@dataclass(frozen=True, eq=False)
class LabelFacts:
    """The cues of a label, and what they say in words.

    cues: (len(LABEL_CUES),) float64. own_probability: of the label's class, among the classes. best: the class with the
    highest probability, 1..K, and its probability. score: the best score of any class near. place: (4,), where the
    model would put the box, and its score, the IoU with the label's box. proposal_iou: the best of any proposal.
    """

    cues: Float64Array
    own_probability: float
    best: int
    best_probability: float
    score: float
    place: Float32Array
    place_score: float
    place_iou: float
    proposal_iou: float


def logit(scores: Float32Array | float) -> Float64Array:
    """The logit of scores, of any shape, which are limited by FLOOR."""
    p = np.clip(np.asarray(scores, dtype=np.float64), FLOOR, 1 - FLOOR)
    return np.asarray(np.log(p / (1 - p)), dtype=np.float64)


def label_view(image: ScoredImage, label: int) -> LabelView | None:
    """The view of a label as it is; None if it has no regions (a crowd, or no area)."""
    own = image.regions.of(Role.label, label)
    if not len(own):
        return None
    return _view(image, int(own[0]), Role.near_label, label, int(image.truth.labels[label]))


def shifted_view(image: ScoredImage, label: int) -> LabelView | None:
    """The view of a label whose box was shifted; None if no such box was made."""
    own = image.regions.of(Role.shifted, label)
    if not len(own):
        return None
    return _view(image, int(own[0]), Role.near_shifted, label, int(image.truth.labels[label]))


def invented_view(image: ScoredImage, number: int) -> LabelView:
    """The view of an invented box as a label."""
    own = image.regions.of(Role.invented, number)
    label = int(image.regions.invented[number])
    return _view(image, int(own[0]), Role.near_invented, number, label, other_than=None)


def _view(
    image: ScoredImage, own: int, near: Role, owner: int, label: int, *, other_than: int | None = -1
) -> LabelView:
    """other_than: the label that the view replaces; -1: the owner; None: no label."""
    regions = image.regions
    rows = np.concatenate([[own], regions.of(near, owner), regions.of(Role.proposal)]).astype(np.int64)
    boxes = geometry.clip(image.truth.boxes, image.image_size)
    kept = ~image.truth.crowd
    if other_than is not None:
        kept[owner] = False
    return LabelView(regions.boxes[own], label, own, rows, boxes[kept])


@dataclass(frozen=True, eq=False)
class ClassShapes:
    """Mean and deviation of log area and log aspect of the labels of each class, (K + 1, 2) each; row 0 of all."""

    mean: Float64Array
    deviation: Float64Array

    def deviation_of(self, box: Float32Array, label: int, image_size: tuple[int, int]) -> tuple[float, float]:
        """How many deviations the relative area and the aspect of a box are from the mean of a class."""
        found = np.abs(_shape(box[None], image_size)[0] - self.mean[label]) / self.deviation[label]
        return float(min(found[0], 5)), float(min(found[1], 5))


def class_shapes(truths: Sequence[tuple[GroundTruth, tuple[int, int]]], classes: int) -> ClassShapes:
    """The shapes of the labels of all images. Classes with less than 5 labels have the shapes of all."""
    values = np.concatenate([np.zeros((0, 2)), *(_shape(_clipped(truth, size), size) for truth, size in truths)])
    labels = np.concatenate([np.zeros(0, dtype=np.int64), *(truth.labels for truth, _ in truths)])
    usable = np.isfinite(values).all(axis=1)
    values, labels = values[usable], labels[usable]
    mean, deviation = np.zeros((classes + 1, 2)), np.ones((classes + 1, 2))
    for label in range(classes + 1):
        mine = values[labels == label] if label else values
        mine = mine if len(mine) >= 5 else values
        if len(mine):
            # Median and quartiles: some of the labels are wrong.
            low, middle, high = np.percentile(mine, [25, 50, 75], axis=0)
            mean[label], deviation[label] = middle, np.maximum((high - low) / 1.35, 0.1)
    return ClassShapes(mean, deviation)


def _clipped(truth: GroundTruth, image_size: tuple[int, int]) -> Float32Array:
    return geometry.clip(truth.boxes, image_size)


def _shape(boxes: Float32Array, image_size: tuple[int, int]) -> Float64Array:
    """Log of the relative area and of the aspect ratio, (N, 2); not finite for a box without area."""
    w, h = (boxes[:, 2] - boxes[:, 0]).astype(np.float64), (boxes[:, 3] - boxes[:, 1]).astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.stack([np.log(w * h / (image_size[0] * image_size[1])), np.log(w / h)], axis=1)


def label_facts(image: ScoredImage, view: LabelView) -> LabelFacts:
    """The cues of one label."""
    boxes, scores, moved = image.regions.boxes[view.rows], image.scores[view.rows], image.moved[view.rows]
    fg = np.clip(scores.sum(axis=1), 0, 1)
    overlap = geometry.iou(boxes, view.box[None])[:, 0]
    near = overlap >= NEAR_IOU
    weight = (fg * overlap**2 * near).astype(np.float64)
    weight[0] = max(weight[0], 1e-6)
    mean = (scores * weight[:, None]).sum(axis=0) / weight.sum()
    probabilities = class_probabilities(mean)
    own_probabilities = class_probabilities(scores[0])
    # Regions that belong to this label: another label does not overlap them more.
    of_others = geometry.iou(boxes, view.others).max(axis=1, initial=0)
    around = (overlap >= AROUND_IOU) & (overlap >= of_others)
    around[0] = True
    moved_overlap = geometry.iou(moved, view.box[None])[:, 0]
    votes = (fg**2 * around).astype(np.float64)
    votes[0] = max(votes[0], 1e-6)
    best = int(np.argmax(fg * around))
    # The consensus: the mean of the moved boxes that agree with the one of the best region.
    agree = geometry.iou(moved, moved[best][None])[:, 0] >= 0.6
    place = (moved * (votes * agree)[:, None]).sum(axis=0) / max(float((votes * agree).sum()), 1e-12)
    place = place.astype(np.float32)
    place_iou = float(geometry.iou(place[None], view.box[None])[0, 0])
    is_proposal = np.arange(len(view.rows)) >= len(view.rows) - int((image.regions.roles[view.rows] == 0).sum())
    proposal_iou = float(overlap[is_proposal].max(initial=0))
    own = view.label - 1
    cues = np.array(
        [
            logit(float(fg[0])),
            logit(float(fg[near].max(initial=fg[0]))),
            margin(own_probabilities, own),
            margin(probabilities, own),
            place_iou,
            float(moved_overlap[0]),
            logit(float(fg[best])) - logit(float(fg[0])),
            float(overlap[best]),
            proposal_iou,
            float(geometry.iou(view.box[None], view.others).max(initial=0)),
        ],
        dtype=np.float64,
    )
    likeliest = int(probabilities.argmax())
    return LabelFacts(
        cues,
        float(probabilities[own]),
        likeliest + 1,
        float(probabilities[likeliest]),
        float(fg[near].max(initial=fg[0])),
        place,
        float(fg[best]),
        place_iou,
        proposal_iou,
    )


def class_probabilities(scores: Float32Array) -> Float64Array:
    """Scores of the classes (K,) as probabilities among the classes, given that there is an object."""
    kept = scores.astype(np.float64) + FLOOR / max(len(scores), 1)
    return np.asarray(kept / kept.sum(), dtype=np.float64)


def margin(probabilities: Float64Array, own: int) -> float:
    """Log ratio of the probability of class `own` (0..K - 1) and the best other one; 5 with a single class."""
    others = np.delete(probabilities, own)
    if not len(others):
        return 5.0
    return float(np.clip(np.log(probabilities[own] / max(float(others.max()), 1e-6)), -7, 7))


@dataclass(frozen=True, eq=False)
class Candidates:
    """Places of an image where the model sees an object.

    boxes: (C, 4). scores: (C,), by descending score. labels: (C,), the likeliest class. probabilities: (C,), of this
    class among the classes. matched: (C,), the label that the candidate belongs to, one to one; FREE without a label,
    SECOND for a second candidate of a label or one in a crowd. cues: (C, n) float64, as if a matched label did not
    exist. supports: (C,), the number of regions that agree.
    """

    boxes: Float32Array
    scores: Float32Array
    labels: Int64Array
    probabilities: Float64Array
    matched: Int64Array
    cues: Float64Array
    supports: Int64Array


def candidates(image: ScoredImage, shapes: ClassShapes, *, floor: float, most: int = 60) -> Candidates:
    """The places with a score of at least `floor`, at most `most`, after NMS of the proposals' moved boxes.

    Only proposals count, not the regions around labels: an object without a label has only proposals.
    """
    rows = image.regions.of(Role.proposal)
    fg = np.clip(image.scores[rows].sum(axis=1), 0, 1).astype(np.float32)
    rows, fg = rows[fg >= floor], fg[fg >= floor]
    moved = image.moved[rows]
    kept = geometry.nms(moved, fg, 0.4)[:most]
    labels = geometry.clip(image.truth.boxes, image.image_size)
    boxes = geometry.vote(moved, fg, kept, 0.6) if len(kept) else np.zeros((0, 4), dtype=np.float32)
    matched = match(boxes, labels, image.truth.crowd)
    agree = geometry.iou(boxes, moved)
    supported = agree >= 0.5
    supports = supported.sum(axis=1)
    cues = np.zeros((len(kept), len(CANDIDATE_CUES)))
    best = np.zeros(len(kept), dtype=np.int64)
    sure = np.zeros(len(kept))
    label_ious = geometry.iou(boxes, labels)
    inside, around = geometry.overlap_of_first(boxes, labels), geometry.overlap_of_first(labels, boxes).T
    for one, row in enumerate(kept):
        weights = (fg * supported[one]).astype(np.float64)
        mean = (image.scores[rows] * weights[:, None]).sum(axis=0) / max(float(weights.sum()), 1e-12)
        probabilities = class_probabilities(mean)
        best[one], sure[one] = int(probabilities.argmax()) + 1, float(probabilities.max())
        left = np.arange(len(labels)) != matched[one]
        size, shape = shapes.deviation_of(boxes[one], int(best[one]), image.image_size)
        cues[one] = (
            logit(float(fg[row])),
            margin(probabilities, int(best[one]) - 1),
            np.log1p(weights.sum()),
            float((agree[one] * weights).sum() / max(float(weights.sum()), 1e-12)),
            float(label_ious[one][left].max(initial=0)),
            float(inside[one][left].max(initial=0)),
            float(around[one][left].max(initial=0)),
            np.log(image.regions.ranks[rows[row]] + 3.0),
            size,
            shape,
            float(at_border(boxes[one], image.image_size)),
        )
    return Candidates(boxes, fg[kept], best, sure, matched, cues, supports)


def at_border(box: Float32Array, image_size: tuple[int, int]) -> bool:
    """Whether a box touches the border of the image."""
    height, width = image_size
    return bool(box[0] < 2 or box[1] < 2 or box[2] > width - 2 or box[3] > height - 2)


MATCH_IOU = 0.25
"""A candidate and a label with at least this IoU may belong together, one to one."""
FREE, SECOND = -1, -2
"""A candidate without a label; a second candidate of a label, or one in a crowd."""


def match(boxes: Float32Array, labels: Float32Array, crowd: BoolArray) -> Int64Array:
    """The label that each candidate (C, 4) belongs to, (C,), one to one by descending IoU.

    FREE: it belongs to none. SECOND: its IoU with a label is 0.5 or more, but another candidate fits the label better;
    or half of it is in a crowd.
    """
    matched = np.full(len(boxes), FREE, dtype=np.int64)
    if not len(labels) or not len(boxes):
        return matched
    overlap = geometry.iou(boxes, labels)
    overlap[:, crowd] = 0
    left = overlap.copy()
    for _ in range(min(len(boxes), len(labels))):
        one, label = np.unravel_index(int(left.argmax()), left.shape)
        if left[one, label] < MATCH_IOU:
            break
        matched[one] = label
        left[one, :], left[:, label] = 0, 0
    in_crowd = geometry.overlap_of_first(boxes, labels)
    in_crowd[:, ~crowd] = 0
    second = (overlap.max(axis=1) >= 0.5) | (in_crowd.max(axis=1) >= 0.5)
    matched[(matched == FREE) & second] = SECOND
    return matched
