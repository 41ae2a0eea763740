"""Proposals on pictures: the first boxes thin, the best box of each object solid, and what no box covers dashed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from detpipe import boxes
from detpipe.report.drawing import GREEN, RED, Colour, draw_boxes
from detpipe.structures import Float32Array, GroundTruth, Image, Int64Array, Proposals

BLUE: Colour = (66, 110, 230)


@dataclass(frozen=True, eq=False)
class BestBoxes:
    """The best proposal of each of the G objects of an image that count.

    objects: (G, 4) float32. labels: (G,) int64. overlap: (G,) float32, its IoU, 0 where there are no proposals. place:
    (G,) int64, which proposal it is, from 0; -1 where none touches the object.
    """

    objects: Float32Array
    labels: Int64Array
    overlap: Float32Array
    place: Int64Array


def best_boxes(truth: GroundTruth, proposals: Proposals) -> BestBoxes:
    """The proposal with the largest IoU for each object that is neither difficult nor a crowd, the first of equals."""
    counting = truth[~truth.difficult & ~truth.crowd]
    if not len(proposals):
        nothing = np.zeros(len(counting), dtype=np.float32)
        return BestBoxes(counting.boxes, counting.labels, nothing, np.full(len(counting), -1, dtype=np.int64))
    overlaps = boxes.iou(counting.boxes, proposals.boxes)
    place = overlaps.argmax(axis=1).astype(np.int64)
    overlap = overlaps.max(axis=1, initial=0)
    return BestBoxes(counting.boxes, counting.labels, overlap, np.where(overlap > 0, place, -1))


def draw_proposals(
    image: Image, proposals: Proposals, best: BestBoxes | None, classes: tuple[str, ...], *, top: int, min_iou: float
) -> Image:
    """A copy of the image with the first `top` boxes thin and blue, and what became of its objects, where known.

    An object with a box of at least min_iou: that box, green, with its IoU and its place in the order, from 1. Others
    are missed: the object itself, red and dashed, with the best IoU there was. None: there are no annotations.
    """
    drawn = draw_boxes(image, proposals.boxes[:top], colours=[BLUE] * len(proposals.boxes[:top]), thin=True)
    if best is None:
        return drawn
    missed = best.overlap < np.float32(min_iou)
    names = [classes[label - 1] for label in best.labels.tolist()]
    captions = [
        f"{name} {overlap:.2f}" + (f", box {place}" if place else "")
        for name, overlap, place in zip(names, best.overlap.tolist(), _from_one(best.place), strict=True)
    ]
    lost, found = np.flatnonzero(missed), np.flatnonzero(~missed)
    drawn = draw_boxes(drawn, best.objects[lost], [captions[i] for i in lost], [RED] * len(lost), dashed=True)
    drawn = draw_boxes(drawn, best.objects[found], colours=[GREEN] * len(found), dashed=True, thin=True)
    chosen = proposals.boxes[best.place[found]]
    return draw_boxes(drawn, chosen, [captions[i] for i in found], [GREEN] * len(found))


def _from_one(places: Int64Array) -> list[int]:
    """Numbers as people count them; 0 for none."""
    return [number + 1 for number in places.tolist()]
