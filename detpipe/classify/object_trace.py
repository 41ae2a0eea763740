"""What the detector did with each annotated object: its best proposal, the scores before NMS, and what removed the box.

The final detections do not tell why an object was missed: a good box may have been removed by NMS. R: regions of an
image, of which the first are its proposals. G: its objects. K: classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from detpipe import boxes as geometry
from detpipe.classify.detect import ScoredRegions, Selection
from detpipe.structures import Float32Array, GroundTruth

COVERS = 0.5
"""The smallest IoU of a box that covers an object (VOC)."""
TOP_CLASSES = 5
"""Number of classes whose scores are kept for a region, with the background and the object's own."""

Box = tuple[float, float, float, float]
"""x1 y1 x2 y2 in pixels."""
NO_BOX: Box = (0.0, 0.0, 0.0, 0.0)


class Fate(StrEnum):
    """What became of a region's box in the class of the object. A value is equal to its text: `fate == "nms"`."""

    kept = "kept"
    """It is a detection."""
    voted = "voted"
    """It is a detection, but box voting moved it."""
    nms = "nms"
    """Non-maximum suppression removed it."""
    limit = "limit"
    """NMS kept it, but max_detections others of the image have a higher score."""
    below_floor = "below_floor"
    """Its score is below score_floor."""
    none = "none"
    """There is no region, or its box has no area after box regression."""


@dataclass(frozen=True, kw_only=True)
class ObjectTrace:
    """What happened to one object.

    proposal_box: the region with the greatest IoU before box regression, among the proposals. proposal_iou: this IoU.
    proposal_rank: its index among the classified regions, from 0. proposal_moved: this region after box regression for
    the object's class. proposal_moved_iou: the IoU of that. proposal_scores: by label, the region's five most probable
    classes, the background (0) and the object's own class.
    box: the covering region after box regression. That is the one with the highest score of the object's class among
    those with an IoU of at least 0.5 after box regression. If no region has such an IoU, it is the region with the
    greatest IoU. It can be a region that was refined and scored again; its index is then beyond the proposals.
    score: its score of the object's class. iou: of box and object. rank: its index. scores: as proposal_scores.
    best: the learned probability that this region is the best one of its object, by which the scores were multiplied
    (detect.fast_rcnn.duplicates=learned or both); 1 if it is not used.
    fate: what became of this box. by: an index among the image's detections. kept: the detection that this box is.
    voted: the detection that box voting made of it. nms: the detection that removed it, or -1 if this one is itself
    beyond max_detections. Other fates: -1.
    Without regions, the boxes, IoUs and scores are 0, the indices are -1, and there are no scores of classes.
    """

    proposal_box: Box = NO_BOX
    proposal_iou: float = 0.0
    proposal_rank: int = -1
    proposal_moved: Box = NO_BOX
    proposal_moved_iou: float = 0.0
    proposal_scores: Mapping[int, float]
    box: Box = NO_BOX
    score: float = 0.0
    iou: float = 0.0
    rank: int = -1
    scores: Mapping[int, float]
    fate: Fate = Fate.none
    by: int = -1
    best: float = 1.0


def trace_objects(
    boxes: Float32Array,
    scored: ScoredRegions,
    image_size: tuple[int, int],
    selection: Selection,
    truth: GroundTruth,
    nms_iou: float,
) -> list[ObjectTrace]:
    """The trace of each object, in their order. R and G may be 0.

    boxes: the regions (R, 4). selection: of these regions by `select`, with this nms_iou.
    """
    traces = [ObjectTrace(proposal_scores={}, scores={})] * len(truth)
    if not len(boxes):
        return traces
    n_proposals = len(boxes) if scored.proposals is None else scored.proposals
    of_proposals = geometry.iou(truth.boxes, boxes[:n_proposals])
    for label in np.unique(truth.labels).tolist():
        own = np.flatnonzero(truth.labels == label)
        moved = boxes if scored.deltas is None else geometry.decode(boxes, scored.deltas[:, label - 1])
        moved = geometry.clip(moved, image_size)
        scores = scored.probabilities[:, label]
        ious = geometry.iou(truth.boxes[own], moved)
        # A region that covers the object beats all others; among them the score decides, else the IoU.
        covering = np.where(ious >= COVERS, 2 + scores, ious).argmax(axis=1)
        for row, index in enumerate(own.tolist()):
            first, best = int(of_proposals[index].argmax()), int(covering[row])
            fate, by = fate_of(selection, label, best, moved[best], nms_iou)
            traces[index] = ObjectTrace(
                proposal_box=_box(boxes[first]),
                proposal_iou=shortest(of_proposals[index, first]),
                proposal_rank=first,
                proposal_moved=_box(moved[first]),
                proposal_moved_iou=shortest(ious[row, first]),
                proposal_scores=top_scores(scored.probabilities[first], label),
                box=_box(moved[best]),
                score=shortest(scores[best]),
                iou=shortest(ious[row, best]),
                rank=best,
                scores=top_scores(scored.probabilities[best], label),
                fate=fate,
                by=by,
                best=1.0 if scored.best is None else shortest(scored.best[best]),
            )
    return traces


def fate_of(selection: Selection, label: int, region: int, moved: Float32Array, nms_iou: float) -> tuple[Fate, int]:
    """What the selection did with a region as a box of a class, and the index of the detection that is to be named.

    moved: (4,) the region's box after box regression and clipping.
    """
    own = selection.classes[label - 1]
    place = np.flatnonzero(own.rows == region)
    if not len(place):
        return (Fate.none if geometry.area(moved[None])[0] <= 0 else Fate.below_floor), -1
    before = sum(len(one.kept) for one in selection.classes[: label - 1])
    kept = np.flatnonzero(own.kept == place[0])
    if len(kept):
        by = _index_of(selection, before + int(kept[0]))
        if by < 0:
            return Fate.limit, -1
        return (Fate.kept if np.array_equal(own.placed[kept[0]], moved) else Fate.voted), by
    overlaps = geometry.iou(own.boxes[place], own.boxes[own.kept])[0]
    # NMS takes the boxes by score: the first kept one with a sufficient IoU removed it. The last bit of torchvision's
    # IoU may differ from ours, so without such a box the greatest IoU counts.
    above = np.flatnonzero(overlaps > np.float32(nms_iou))
    remover = int(above[0]) if len(above) else int(overlaps.argmax())
    return Fate.nms, _index_of(selection, before + remover)


def _index_of(selection: Selection, kept: int) -> int:
    """The index of a kept box among the detections; -1 if it is beyond the limit."""
    found = np.flatnonzero(selection.order == kept)
    return int(found[0]) if len(found) else -1


def top_scores(probabilities: Float32Array, label: int) -> dict[int, float]:
    """The scores (K + 1,) of a region by label: the five most probable classes, the background and `label`."""
    order = 1 + np.argsort(-probabilities[1:], kind="stable")[:TOP_CLASSES]
    return {one: round(float(probabilities[one]), 6) for one in sorted({0, label, *order.tolist()})}


def shortest(value: np.float32) -> float:
    """The number with the fewest digits that is this float32. Rounded to fewer, it could cross a threshold."""
    return float(str(np.float32(value)))


def _box(box: Float32Array) -> Box:
    x1, y1, x2, y2 = (round(value, 2) for value in box.tolist())
    return x1, y1, x2, y2
