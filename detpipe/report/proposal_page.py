"""The page of pictures with proposals: small ones in the page, each a link to its file beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

import numpy as np

from detpipe.report import page
from detpipe.report.drawing import resize
from detpipe.report.page import Picture
from detpipe.report.proposal_pictures import BestBoxes
from detpipe.storage.atomic import write_text
from detpipe.structures import Image

SIDE = 480
"""The longest side of a picture in the page, in pixels."""


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
        return self if scale >= 1 else replace(self, picture=resize(self.picture, scale))


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
