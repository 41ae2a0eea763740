"""The detections in the images of a `source` as a page: counts by class, and the images with their boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import numpy as np

from detpipe.report import page
from detpipe.report.drawing import draw_detections, scaled
from detpipe.report.figure_style import hex_colour
from detpipe.report.fonts import stand_ins
from detpipe.report.page import Cell, Picture
from detpipe.report.text_table import shortened, text_table
from detpipe.storage.atomic import write_text
from detpipe.structures import Detections, Image

MAX_IMAGES = 100
"""Maximum images on the page. The pictures of all images are in the folder beside it."""
SIDE = 480
"""Longest side of an image on the page, in pixels."""
MAX_BAD, MAX_CLASSES = 20, 30
"""Maximum unreadable files on the page, and classes in the terminal."""
HEAD = ("class", "detections", "images")


@dataclass(frozen=True, kw_only=True, eq=False)
class SourcePage:
    """The content of the page.

    source: as the user typed it. classes: of the detector. min_score: of what is shown and counted. why: what it was
    chosen by. counts: class, detections and images of each class. images: their number. bad: unreadable files with
    reasons. pictures: of the first MAX_IMAGES images.
    """

    source: str
    classes: Sequence[str]
    min_score: float
    why: str
    counts: Sequence[tuple[str, int, int]]
    images: int
    bad: Sequence[str] = ()
    pictures: list[Picture] = field(default_factory=list)

    @property
    def rows(self) -> list[list[str]]:
        """A table row for each class with detections, the most frequent first."""
        found = sorted((one for one in self.counts if one[1]), key=lambda one: -one[1])
        return [[name, f"{detections:,}", f"{images:,}"] for name, detections, images in found]

    @property
    def total(self) -> int:
        """The number of shown detections."""
        return sum(detections for _, detections, _ in self.counts)


def picture(
    image: Image, found: Detections, classes: Sequence[str], *, file: str, link: str, min_score: float
) -> Picture:
    """An image of the page with its detections. file: its name. link: the path of the drawn image, not encoded."""
    scale = min(1.0, SIDE / max(image.shape[:2]))
    small = Detections(found.boxes * np.float32(scale), found.scores, found.labels)
    shown = int((found.scores >= min_score).sum())
    return Picture(
        draw_detections(scaled(image, scale), small, classes, min_score=min_score),
        f"{file} with its detections",
        name=file,
        text=f"{shown} {'detection' if shown == 1 else 'detections'}",
        link=quote(link.encode("utf-8", "surrogateescape")),
    )


def counts_text(data: SourcePage) -> str:
    """The counts by class as plain text, and the threshold that they were counted from."""
    score = f"a score of at least {data.min_score:.2f} ({data.why})"
    head = f"{data.total:,} detections with {score} in {data.images:,} images"
    rows = shortened(data.rows, MAX_CLASSES)
    return head + (f"\n\n{text_table(HEAD, rows)}" if rows else "")


def write_source_page(path: Path, data: SourcePage) -> None:
    """Write the page to `path` atomically."""
    write_text(path, render(data))


def render(data: SourcePage) -> str:
    """The page as HTML."""
    colours = {name: hex_colour(label) for label, name in enumerate(data.classes, start=1)}
    return page.render(
        "source.html",
        data.source,
        content=data,
        counts=[(Cell(name, colour=colours[name]), *numbers) for name, *numbers in data.rows],
        head=HEAD,
        max_bad=MAX_BAD,
        stand_ins=stand_ins(data.classes),
    )
