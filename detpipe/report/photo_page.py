"""The classes of the photos of a `source` as a page: counts by class, and the photos with their classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from detpipe.report import page
from detpipe.report.drawing import scaled
from detpipe.report.page import Picture
from detpipe.report.text_table import number, shortened, text_table
from detpipe.storage.atomic import write_text
from detpipe.structures import Image

MAX_IMAGES = 200
"""Maximum photos on the page. The table has all of them."""
SIDE = 320
"""Longest side of a photo on the page, in pixels."""
MAX_BAD, MAX_CLASSES = 20, 30
"""Maximum unreadable files on the page, and classes in the terminal."""
HEAD = ("class", "images", "mean probability")


@dataclass(frozen=True, kw_only=True, eq=False)
class PhotoPage:
    """The content of the page.

    source: as the user typed it. classes: of the classifier. best: the class and the probability of each photo. bad:
    unreadable files with reasons. pictures: of the first MAX_IMAGES photos.
    """

    source: str
    classes: Sequence[str]
    best: Sequence[tuple[str, float]]
    bad: Sequence[str] = ()
    pictures: list[Picture] = field(default_factory=list)

    @property
    def rows(self) -> list[list[str]]:
        """A table row for each class with photos, the most frequent first."""
        counts = Counter(name for name, _ in self.best)
        sums: Counter[str] = Counter()
        for name, score in self.best:
            sums[name] += score  # type: ignore[assignment]
        order = sorted(counts, key=lambda name: (-counts[name], self.classes.index(name)))
        return [[name, f"{counts[name]:,}", number(sums[name] / counts[name], 2)] for name in order]


def picture(image: Image, file: str, best: Sequence[tuple[str, float]]) -> Picture:
    """A photo of the page with its classes. file: its name. best: classes with probabilities, best first."""
    scale = min(1.0, SIDE / max(image.shape[:2]))
    (name, score), *others = best
    return Picture(
        scaled(image, scale) if scale < 1 else image,
        f"{file}: {name}",
        name=name,
        text=number(score, 2),
        below=" · ".join([file, *(f"{other} {number(value, 2)}" for other, value in others[:2])]),
    )


def counts_text(data: PhotoPage) -> str:
    """The counts by class as plain text."""
    return text_table(HEAD, shortened(data.rows, MAX_CLASSES))


def write_photo_page(path: Path, data: PhotoPage) -> None:
    """Write the page to `path` atomically."""
    write_text(path, render(data))


def render(data: PhotoPage) -> str:
    """The page as HTML."""
    return page.render("photos.html", data.source, content=data, head=HEAD, max_bad=MAX_BAD)
