"""Images to label next: the content of next.json."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from detpipe.labels.corrections import checked_box
from detpipe.labels.selection import Criterion
from detpipe.storage.atomic import write_json
from detpipe.storage.dataclass_json import read_dataclass


@dataclass(frozen=True, kw_only=True)
class DrawnBox:
    """A detection that is drawn in advance. box: x1 y1 x2 y2 in pixels. Raises ValueError for an empty box."""

    box: tuple[float, float, float, float]
    label: str
    score: float

    def __post_init__(self) -> None:
        checked_box(self.box)


@dataclass(frozen=True, kw_only=True)
class NextScores:
    """The scores of an image by criterion.

    uncertain: in [0, 1], of `image_uncertainty`. disagreement: in [0, 1), the share of the candidates with less of it.
    distance: to the nearest labelled or earlier chosen image, 0 to 2; null without any.
    """

    uncertain: float
    disagreement: float
    distance: float | None


@dataclass(frozen=True, kw_only=True)
class NextImage:
    """An image to label. file: relative to the source. criterion: by which it was chosen. random: whether it belongs to
    the random control. why: one sentence. boxes: the best first."""

    file: str
    criterion: Criterion
    random: bool
    why: str
    scores: NextScores
    boxes: list[DrawnBox]


@dataclass(frozen=True, kw_only=True)
class NextFile:
    """The content of next.json.

    dataset: the digest of the labels that the detector has. source: the folder. classes: of the detector. threshold:
    the score at which detections count. draw_score: the lowest score of a drawn box. candidates: the number of images
    that could be chosen. known: files that are in the data set already, or twice in the folder. unreadable: files that
    can't be read, with the reason. images: in the order in which to label them.
    """

    dataset: str
    source: str
    classes: list[str]
    threshold: float
    draw_score: float
    candidates: int
    known: list[str]
    unreadable: list[str]
    images: list[NextImage]


def write_next(path: Path, content: NextFile) -> None:
    """Write next.json atomically."""
    write_json(path, {**asdict(content), "images": _rows(content.images)})


def read_next(path: Path) -> NextFile:
    """Read next.json. Raises DataclassJsonError, which names file and key, and FileNotFoundError."""
    return read_dataclass(path, NextFile, "run `detpipe labels next` again")


def _rows(images: Sequence[NextImage]) -> list[dict[str, object]]:
    return [{**asdict(one), "criterion": one.criterion.value} for one in images]
