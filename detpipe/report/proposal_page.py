"""The page of pictures with proposals: small ones in the page, each a link to its file beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

import numpy as np

from detpipe import boxes
from detpipe.report import page
from detpipe.report.drawing import GREEN, RED, Colour, draw_boxes, scaled
from detpipe.report.page import Picture
from detpipe.storage.atomic import write_text
from detpipe.structures import Float32Array, GroundTruth, Image, Int64Array, Proposals

SIDE = 480
"""The longest side of a picture in the page, in pixels."""
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


@dataclass(frozen=True, eq=False)
class ShownImage:
    """A drawn image: its name, the picture, how many proposals it has, and how many of its objects one finds.

    found, objects: None where there are no annotations.
    """

    name: str
    picture: Image
    proposals: int
    found: int | None
    objects: int | None

    @classmethod
    def of(cls, name: str, picture: Image, proposals: int, best: BestBoxes | None, min_iou: float) -> ShownImage:
        """Count an image's objects whose best box has at least min_iou."""
        if best is None:
            return cls(name, picture, proposals, None, None)
        return cls(name, picture, proposals, int((best.overlap >= np.float32(min_iou)).sum()), len(best.overlap))

    def small(self) -> ShownImage:
        """The same with the picture as the page has it, so that many take little memory."""
        scale = SIDE / max(self.picture.shape[:2])
        return self if scale >= 1 else replace(self, picture=scaled(self.picture, scale))


def write_proposal_page(
    path: Path, subtitle: str, shown: Sequence[tuple[str, ShownImage]], *, top: int, budget: int, min_iou: float
) -> None:
    """Write the page of (file name beside the page, image), whole or not at all; no images give a sentence."""
    pictures = [_picture(file, one) for file, one in shown]
    write_text(path, page.render("proposal.html", subtitle, shown=pictures, top=top, budget=budget, min_iou=min_iou))


def _picture(file: str, one: ShownImage) -> Picture:
    # A name that is no UTF-8 holds lone surrogates; a link has them as the bytes that they stand for.
    link = quote(file.encode("utf-8", "surrogateescape"))
    tally = "" if one.objects is None else f", {one.found} of {one.objects} objects found"
    text = f"{one.proposals:,} boxes{tally}"
    return Picture(one.small().picture, f"{one.name} with its proposals", one.name, text, link=link)
