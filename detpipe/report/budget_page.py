"""The page of a budget curve: which number of proposals to take, what it costs, and all numbers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from detpipe.metrics.bootstrap import Resampled
from detpipe.metrics.budget_curve import BudgetCurve, BudgetPoint
from detpipe.report import page
from detpipe.report.budget_figures import budget_curve_figure
from detpipe.report.page import Cell, interval_cell
from detpipe.report.text_table import number, text_table
from detpipe.storage.atomic import write_text

HEAD = ("proposals", "classified", "mAP", "COCO AP", "COCO AR", "AR of proposals")
MILLISECONDS = ("propose", "score", "select", "all")


@dataclass(frozen=True, kw_only=True, eq=False)
class BudgetPage:
    """What the page shows. subtitle: the data set. method: of the proposals. timed: images whose stages were timed."""

    subtitle: str
    curve: BudgetCurve
    method: str
    resamples: int
    timed: int


def write_budget_page(path: Path, data: BudgetPage) -> None:
    """Write the page to `path`, whole or not at all."""
    write_text(path, render(data))


def render(data: BudgetPage) -> str:
    """The page as HTML; without objects or budgets it says so."""
    points = data.curve.points
    return page.render(
        "budget.html",
        data.subtitle,
        data=data,
        sentences=budget_sentences(data.curve),
        figure=budget_curve_figure(data.curve),
        quality_head=HEAD,
        quality=[(*_names(point), *map(_cell, _numbers(point))) for point in points],
        cost_head=("proposals", *(f"{name}, ms" for name in MILLISECONDS)),
        cost=[(_names(point)[0], *_milliseconds(point)) for point in points],
    )


def budget_text(curve: BudgetCurve) -> str:
    """A table for the terminal; "±" is half of the interval. No points: the head alone."""
    rows = [
        [*_names(point), *(_plain(value) for value in _numbers(point)), *_milliseconds(point)] for point in curve.points
    ]
    return text_table([*HEAD, *MILLISECONDS[:-1], "ms an image"], rows)


def budget_sentences(curve: BudgetCurve) -> list[str]:
    """The fewest boxes that do, and where the best stands; or that there is nothing to find."""
    best, fewest = curve.best, curve.fewest
    if best is None or fewest is None:
        return ["There are no objects to find, so no number of proposals is better than another."]
    found = (
        f"The fewest boxes within {100 * curve.tolerance:g} % of the best mAP: {fewest.budget:,} an image, mAP "
        f"{number(fewest.map.value.item())} at {1000 * fewest.seconds.all:.0f} ms an image."
    )
    if fewest is best:
        return [found, "That is the best mAP itself."]
    return [
        found,
        f"The best: {best.budget:,}, mAP {number(best.map.value.item())} at {1000 * best.seconds.all:.0f} ms, "
        f"{_times(best.seconds.all, fewest.seconds.all)} as long.",
    ]


def _times(long: float, short: float) -> str:
    return f"{long / short:.1f} times" if short > 0 else "–"


def _names(point: BudgetPoint) -> tuple[str, str]:
    return f"{point.budget:,}", number(point.proposals, 0)


def _numbers(point: BudgetPoint) -> tuple[Resampled | float, ...]:
    return point.map, point.ap, point.ar, point.proposal_ar


def _milliseconds(point: BudgetPoint) -> list[str]:
    seconds = point.seconds
    return [number(1000 * value, 1) for value in (seconds.propose, seconds.score, seconds.select, seconds.all)]


def _plain(value: Resampled | float) -> str:
    """0.432 ±0.021, or a dash where there is no number."""
    if isinstance(value, float):
        return number(value)
    low, high = value.interval
    half = (high - low).item() / 2
    text = number(value.value.item())
    return text if np.isnan(half) else f"{text} ±{half:.3f}"


def _cell(value: Resampled | float) -> str | Cell:
    return number(value) if isinstance(value, float) else interval_cell(value)
