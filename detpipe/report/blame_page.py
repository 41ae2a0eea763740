"""The page of a diagnosis: what to do next, causes of missed objects, types of false detections, and examples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from detpipe.diagnosis.causes import Cause, Miss
from detpipe.diagnosis.false_detections import FalseDetection
from detpipe.diagnosis.result import BlameResult, Comparison, Estimate, Group
from detpipe.report import page
from detpipe.report.blame_table import CAUSES, TYPES
from detpipe.report.error_pictures import draw_errors, worst_false, worst_misses
from detpipe.report.page import Cell, Picture
from detpipe.report.text_table import number
from detpipe.storage.atomic import write_text
from detpipe.structures import Dataset, Detections, ImageId

EXAMPLES = 6
"""Pictures of each cause and each type at most."""
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
    missed, false = (sorted(some, key=lambda one: -one.total) for some in _examples(data))
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
        without_files=page.without_files(data.dataset),
    )


def stages(result: BlameResult) -> list[Stage]:
    """The number of objects after each stage: all of them first, the found ones last."""
    left = result.objects
    rows = [Stage("objects", left, 0, "")]
    for name, causes in FUNNEL:
        lost = sum(result.missed.get(cause, 0) for cause in causes)
        left -= lost
        rows.append(Stage(name, left, lost, ", ".join(_words(cause.value) for cause in causes)))
    return rows


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
                Cell(_words(name), below=words[name]),
                Cell(f"{n:,}", bar=n / total),
                _signed(part) if n else "",
            )
        )
    return rows


def _oracles(result: BlameResult) -> list[tuple[str, str | Cell]]:
    return [(f"with perfect {name}", _with_interval(one)) for name, one in result.oracle.items()]


def _group(one: Group, *, false: bool) -> list[str | Cell]:
    most = _words(max(one.missed, key=lambda cause: one.missed[cause]).value) if one.n_missed else "–"
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


def _words(name: str) -> str:
    """A cause, type or outcome by its name in blame.json, the same in all parts of the page."""
    return name.replace("_", " ")


def _examples(data: BlamePage) -> tuple[list[Examples], list[Examples]]:
    """Of each cause the largest objects, and of each type the most confident detections."""
    result, dataset = data.result, data.dataset
    of_cause = {
        cause: worst_misses([one for one in result.misses if one.cause is cause], dataset, EXAMPLES)
        for cause in result.missed
    }
    of_type = {kind: worst_false([one for one in result.wrong if one.type is kind], EXAMPLES) for kind in result.false}
    shown: list[Miss | FalseDetection] = [*chain(*of_cause.values()), *chain(*of_type.values())]
    drawn = draw_errors(dataset, data.detections, shown, threshold=result.threshold)
    return (
        [
            Examples(_words(cause.value), CAUSES[cause], result.missed[cause], drawn.of(some))
            for cause, some in of_cause.items()
            if some
        ],
        [
            Examples(_words(kind.value), TYPES[kind], result.false[kind], drawn.of(some))
            for kind, some in of_type.items()
            if some
        ],
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
