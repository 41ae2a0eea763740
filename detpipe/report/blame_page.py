"""The page of a diagnosis: what to do next, causes of missed objects, types of false detections, and examples."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TypeVar

from detpipe.datasets.image_file import read_image
from detpipe.diagnosis.causes import Cause, Miss
from detpipe.diagnosis.false_detections import FalseDetection, FalseType
from detpipe.diagnosis.result import BlameResult, Comparison, Estimate, Group
from detpipe.diagnosis.sentences import false_sentence, miss_sentence
from detpipe.report import page
from detpipe.report.blame_table import CAUSES, TYPES
from detpipe.report.drawing import GREEN, RED, Colour
from detpipe.report.error_crop import Frame, error_crop
from detpipe.report.page import Cell, Picture
from detpipe.report.text_table import number
from detpipe.storage.atomic import write_text
from detpipe.structures import Dataset, Detections, Image, ImageId

log = logging.getLogger(__name__)

BLUE: Colour = (66, 110, 230)
EXAMPLES = 6
"""Pictures of each cause and each type."""
OF_IMAGE = 2
"""Of these, at most so many from one image."""
MAX_GROUPS = 20
"""Classes in the table; the others are in blame.json."""
MAX_CHANGES = 20
"""Rows in the table of changed causes; the others are in blame.json."""
FUNNEL: tuple[tuple[str, tuple[Cause, ...]], ...] = (
    ("a stored proposal covers it", (Cause.no_proposal,)),
    ("within the budget", (Cause.budget,)),
    ("the box is good after regression", (Cause.box_regression,)),
    ("not taken for background", (Cause.background,)),
    ("the class is right", (Cause.wrong_class,)),
    ("the score reaches the threshold", (Cause.threshold,)),
    ("not suppressed: found", (Cause.suppressed,)),
)
"""The stages of a two-step detector, each with the causes of the objects that it loses."""


@dataclass(frozen=True, kw_only=True, eq=False)
class BlamePage:
    """The content of the page. result: of `dataset`. detections: all of each image, which `result` was made of."""

    result: BlameResult
    dataset: Dataset
    detections: Mapping[ImageId, Detections]


@dataclass(frozen=True)
class Stage:
    """A row of the picture of the stages: how many objects are left after it, and how many it lost.

    causes: names of the causes of the lost ones.
    """

    name: str
    left: int
    lost: int
    causes: str


@dataclass(frozen=True)
class Examples:
    """Pictures of one cause or type. name: for the heading. words: what it means. total: number of such errors."""

    name: str
    words: str
    total: int
    pictures: Sequence[Picture]


def write_blame_page(path: Path, data: BlamePage) -> None:
    """Write the page to `path` atomically. Unreadable images are logged, and have no picture."""
    write_text(path, render(data))


def render(data: BlamePage) -> str:
    """The page as HTML. Without objects, errors or traces it says so."""
    result = data.result
    missed, false = _examples(data)
    classes = sorted(result.breakdown.classes, key=lambda one: -(one.n_missed + one.n_false))
    return page.render(
        "blame.html",
        f"{result.dataset}, {result.images:,} images",
        result=result,
        cards=_cards(result),
        advice=[(one.text, " ".join(one.settings), _gain(one.at_most)) for one in result.advice],
        stages=[] if result.reduced else stages(result),
        causes=_rows({one.value: n for one, n in result.missed.items()}, CAUSE_WORDS, result, missed=True),
        types=_rows({one.value: n for one, n in result.false.items()}, TYPE_WORDS, result, missed=False),
        oracles=[("now", _with_interval(result.map)), *_oracles(result)],
        groups=[
            ("Classes", "class", [_group(one, false=True) for one in classes[:MAX_GROUPS]]),
            ("Object sizes", "area", [_group(one, false=True) for one in result.breakdown.sizes]),
            ("Crowding", "distance", [_group(one, false=False) for one in result.breakdown.crowding]),
        ],
        more_classes=max(0, len(classes) - MAX_GROUPS),
        comparison=result.comparison,
        compared=None if result.comparison is None else _compared(result.comparison),
        missed_examples=missed,
        false_examples=false,
    )


def stages(result: BlameResult) -> list[Stage]:
    """The number of objects after each stage: all of them first, the found ones last."""
    left = result.objects
    rows = [Stage("objects", left, 0, "")]
    for name, causes in FUNNEL:
        lost = sum(result.missed.get(cause, 0) for cause in causes)
        left -= lost
        rows.append(Stage(name, left, lost, ", ".join(short_name(cause) for cause in causes)))
    return rows


def short_name(one: Cause | FalseType) -> str:
    """The name of a cause or type as text: "wrong class"."""
    return str(one.value).replace("_", " ")


CAUSE_WORDS = {cause.value: words for cause, words in CAUSES.items()}
TYPE_WORDS = {kind.value: words for kind, words in TYPES.items()}


def _cards(result: BlameResult) -> list[tuple[str, str]]:
    return [
        (f"{result.n_missed:,} of {result.objects:,}", "objects are missed"),
        (f"{result.n_false:,}", "detections are false"),
        (number(result.map.value), f"mAP at IoU 0.5{_between(result.map)}"),
        (f"{result.threshold:.2f}", f"smallest score that counts, {result.threshold_why}"),
    ]


def _rows(
    counts: Mapping[str, int], words: Mapping[str, str], result: BlameResult, *, missed: bool
) -> list[tuple[str | Cell, ...]]:
    """A row for each cause or type: its name and meaning, number with a bar, and worth."""
    total = max(sum(counts.values()), 1)
    rows: list[tuple[str | Cell, ...]] = []
    for name, n in counts.items():
        worth = result.worth.get(name)
        part = None if worth is None else worth.missed if missed else worth.false
        rows.append(
            (
                Cell(name.replace("_", " "), below=words[name]),
                Cell(f"{n:,}", bar=n / total),
                _signed(part) if n else "",
            )
        )
    return rows


def _oracles(result: BlameResult) -> list[tuple[str, str | Cell]]:
    return [(f"with perfect {name}", _with_interval(one)) for name, one in result.oracle.items()]


def _group(one: Group, *, false: bool) -> list[str | Cell]:
    most = short_name(max(one.missed, key=lambda cause: one.missed[cause])) if one.n_missed else "–"
    share = one.n_missed / one.objects if one.objects else 0.0
    missed = Cell(f"{one.n_missed:,}", bar=share) if one.objects else "–"
    return [one.name, f"{one.objects:,}", missed, most, *([f"{one.n_false:,}"] if false else [])]


def _compared(comparison: Comparison) -> list[tuple[str, str]]:
    """A row for each pair of outcomes that differ, the most frequent first."""
    changed = {pair: n for pair, n in comparison.changes.items() if pair[0] != pair[1] and n}
    order = sorted(changed, key=lambda pair: -changed[pair])
    return [(f"{_words(before)} → {_words(after)}", f"{changed[before, after]:,}") for before, after in order][
        :MAX_CHANGES
    ]


def _words(outcome: str) -> str:
    return outcome.replace("_", " ")


def _examples(data: BlamePage) -> tuple[list[Examples], list[Examples]]:
    """Of each cause the largest objects, and of each type the most confident detections."""
    truth = data.dataset.measured_truth or {}
    misses = sorted(data.result.misses, key=lambda one: -float(truth[one.image].areas[one.object]))
    wrong = sorted(data.result.wrong, key=lambda one: -one.score)
    of_cause = {cause: _chosen([one for one in misses if one.cause is cause]) for cause in data.result.missed}
    of_type = {kind: _chosen([one for one in wrong if one.type is kind]) for kind in data.result.false}
    pictures = _pictures(data, [*chain(*of_cause.values()), *chain(*of_type.values())])
    return (
        [
            Examples(short_name(cause), CAUSES[cause], data.result.missed[cause], _those_of(some, pictures))
            for cause, some in of_cause.items()
            if some
        ],
        [
            Examples(short_name(kind), TYPES[kind], data.result.false[kind], _those_of(some, pictures))
            for kind, some in of_type.items()
            if some
        ],
    )


Error = TypeVar("Error", Miss, FalseDetection)
_Key = tuple[ImageId, str, int]


def _key(error: Miss | FalseDetection) -> _Key:
    """What tells the error apart from all others."""
    if isinstance(error, Miss):
        return error.image, "object", error.object
    return error.image, "detection", error.detection


def _chosen(ordered: Sequence[Error]) -> list[Error]:
    """The first EXAMPLES of them, at most OF_IMAGE from one image."""
    chosen: list[Error] = []
    of_image: Counter[ImageId] = Counter()
    for one in ordered:
        if len(chosen) < EXAMPLES and of_image[one.image] < OF_IMAGE:
            chosen.append(one)
            of_image[one.image] += 1
    return chosen


def _those_of(errors: Sequence[Miss | FalseDetection], pictures: Mapping[_Key, Picture]) -> list[Picture]:
    return [pictures[_key(one)] for one in errors if _key(one) in pictures]


def _pictures(data: BlamePage, shown: Sequence[Miss | FalseDetection]) -> dict[_Key, Picture]:
    """The picture of each error. Each image is read once. Errors in unreadable images are left out."""
    records = {record.image_id: record for record in data.dataset.records}
    pictures: dict[_Key, Picture] = {}
    for image_id in dict.fromkeys(one.image for one in shown):
        record = records[image_id]
        try:
            image = read_image(record.path, record.options)
        except (OSError, ValueError) as error:  # a page must not fail if a file was deleted after the run
            log.warning("blame: left out an image: %s", error)
            continue
        name = record.path.name
        for one in shown:
            if one.image == image_id:
                if isinstance(one, Miss):
                    pictures[_key(one)] = _miss_picture(data, one, image, name)
                else:
                    pictures[_key(one)] = _false_picture(data, one, image, name)
    return pictures


def _miss_picture(data: BlamePage, miss: Miss, image: Image, file: str) -> Picture:
    """The object (green, dashed), the box that covers it best (blue), and the detection that decided (red)."""
    found = data.detections[miss.image]
    frames = [Frame(miss.box, GREEN, dashed=True)]
    if miss.covering is not None and miss.rank is not None:
        frames.append(Frame(miss.covering, BLUE))
    if miss.by is not None:
        frames.append(Frame(found.boxes[miss.by].tolist(), RED))
    x1, y1, x2, y2 = miss.box
    head = f"{miss.label}, {x2 - x1:.0f} × {y2 - y1:.0f} px"
    why = miss_sentence(miss, found, data.result.threshold)
    return Picture(
        error_crop(image, miss.box, frames),
        f"Missed {head} in {file}: {why}",
        head,
        why,
        f"{file}, object {miss.object}",
    )


def _false_picture(data: BlamePage, one: FalseDetection, image: Image, file: str) -> Picture:
    """The detection (red) and the annotated objects (green, dashed)."""
    truth = (data.dataset.measured_truth or {})[one.image]
    frames = [Frame(one.box, RED), *(Frame(box, GREEN, dashed=True) for box in truth.boxes.tolist())]
    head = f"{one.label} {one.score:.2f}"
    why = false_sentence(one, truth, data.dataset.classes)
    return Picture(
        error_crop(image, one.box, frames),
        f"False detection {head} in {file}: {why}",
        head,
        why,
        f"{file}, detection {one.detection}",
    )


def _gain(one: Estimate) -> str:
    """+0.012 (+0.001 – +0.030)."""
    ends = _ends(one, _plus)
    return _plus(one.value) + (f" ({ends})" if ends else "")


def _between(one: Estimate) -> str:
    ends = _ends(one, number)
    return f" ({ends})" if ends else ""


def _plus(value: float) -> str:
    """+0.012; a value that rounds to 0 has no sign."""
    text = f"{value:+.3f}"
    return "0.000" if float(text) == 0 else text


def _ends(one: Estimate, write: Callable[[float], str]) -> str:
    """0.001 – 0.030; "" without resamples."""
    return "" if one.low != one.low else f"{write(one.low)} – {write(one.high)}"


def _with_interval(one: Estimate | None) -> str | Cell:
    if one is None:
        return number(None)
    return Cell(number(one.value), below=_ends(one, number))


def _signed(one: Estimate | None) -> str | Cell:
    """+0.012 and its interval below, or a dash."""
    if one is None or one.value != one.value:
        return number(None)
    return Cell(_plus(one.value), below=_ends(one, _plus))
