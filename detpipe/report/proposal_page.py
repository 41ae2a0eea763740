"""The page of images with their proposals: small images, each with a link to its full-size file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

import numpy as np

from detpipe import boxes
from detpipe.report import page
from detpipe.report.drawing import GREEN, RED, Colour, Place, draw_boxes, scaled
from detpipe.report.page import Picture
from detpipe.storage.atomic import write_text
from detpipe.structures import Float32Array, GroundTruth, Image, Int64Array, Proposals

SIDE = 480
"""The longest side of an image in the page, in pixels."""
BLUE: Colour = (66, 110, 230)


@dataclass(frozen=True, eq=False)
class BestBoxes:
    """The best proposal for each of the G objects of an image that are neither difficult nor crowds.

    objects: (G, 4) float32. labels: (G,) int64. overlap: (G,) float32, the IoU of the best proposal, 0 without
    proposals. index: (G,) int64, the index of this proposal, -1 if no proposal overlaps the object.
    """

    objects: Float32Array
    labels: Int64Array
    overlap: Float32Array
    index: Int64Array


def best_boxes(truth: GroundTruth, proposals: Proposals) -> BestBoxes:
    """The proposal with the largest IoU for each object that is neither difficult nor a crowd; ties by the order."""
    counting = truth[~truth.difficult & ~truth.crowd]
    if not len(proposals):
        nothing = np.zeros(len(counting), dtype=np.float32)
        return BestBoxes(counting.boxes, counting.labels, nothing, np.full(len(counting), -1, dtype=np.int64))
    overlaps = boxes.iou(counting.boxes, proposals.boxes)
    index = overlaps.argmax(axis=1).astype(np.int64)
    overlap = overlaps.max(axis=1, initial=0)
    return BestBoxes(counting.boxes, counting.labels, overlap, np.where(overlap > 0, index, -1))


def draw_proposals(
    image: Image, proposals: Proposals, best: BestBoxes | None, classes: tuple[str, ...], *, top: int, min_iou: float
) -> Image:
    """A copy of the image with the first `top` boxes thin and blue, and the found and missed objects.

    An object with a box of at least min_iou is found: the box is green, with its IoU and its rank from 1. Other objects
    are missed: their own box is red and dashed, with the best IoU. best: None without annotations.
    """
    drawn = draw_boxes(image, proposals.boxes[:top], colours=[BLUE] * len(proposals.boxes[:top]), thin=True)
    if best is None:
        return drawn
    missed = best.overlap < np.float32(min_iou)
    names = [classes[label - 1] for label in best.labels.tolist()]
    captions = [
        f"{name} {overlap:.2f}" + (f", box {index + 1}" if index >= 0 else "")
        for name, overlap, index in zip(names, best.overlap.tolist(), best.index.tolist(), strict=True)
    ]
    lost, found = np.flatnonzero(missed), np.flatnonzero(~missed)
    taken: list[Place] = []
    drawn = draw_boxes(
        drawn, best.objects[lost], [captions[i] for i in lost], [RED] * len(lost), dashed=True, taken=taken
    )
    drawn = draw_boxes(drawn, best.objects[found], colours=[GREEN] * len(found), dashed=True, thin=True)
    chosen = proposals.boxes[best.index[found]]
    return draw_boxes(drawn, chosen, [captions[i] for i in found], [GREEN] * len(found), taken=taken)


@dataclass(frozen=True, eq=False)
class ShownImage:
    """A drawn image with its name, and the numbers of its proposals, found objects and objects.

    found, objects: None without annotations.
    """

    name: str
    picture: Image
    proposals: int
    found: int | None
    objects: int | None

    @classmethod
    def of(cls, name: str, picture: Image, proposals: int, best: BestBoxes | None, min_iou: float) -> ShownImage:
        """Count the objects of an image; those whose best box has at least min_iou are found."""
        if best is None:
            return cls(name, picture, proposals, None, None)
        return cls(name, picture, proposals, int((best.overlap >= np.float32(min_iou)).sum()), len(best.overlap))

    def small(self) -> ShownImage:
        """The same with the picture reduced to its size in the page, to save memory."""
        scale = SIDE / max(self.picture.shape[:2])
        return self if scale >= 1 else replace(self, picture=scaled(self.picture, scale))


def write_proposal_page(
    path: Path, subtitle: str, shown: Sequence[tuple[str, ShownImage]], *, top: int, budget: int, min_iou: float
) -> None:
    """Write the page atomically. shown: pairs of (name of a file next to the page, image); may be empty."""
    pictures = [_picture(file, one) for file, one in shown]
    write_text(path, page.render("proposal.html", subtitle, shown=pictures, top=top, budget=budget, min_iou=min_iou))


def _picture(file: str, one: ShownImage) -> Picture:
    # A name that is not valid UTF-8 has lone surrogates; a link has the original bytes.
    link = quote(file.encode("utf-8", "surrogateescape"))
    tally = "" if one.objects is None else f", {one.found} of {one.objects} objects found"
    text = f"{one.proposals:,} boxes{tally}"
    return Picture(one.small().picture, f"{one.name} with its proposals", one.name, text, link=link)
