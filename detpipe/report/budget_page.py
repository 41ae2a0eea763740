"""The page of a budget curve: accuracy and time for each number of proposals."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, NullLocator

from detpipe.metrics.bootstrap import Resampled
from detpipe.metrics.budget_curve import WIDEST, BudgetCurve, BudgetPoint
from detpipe.report import page
from detpipe.report.figure_style import ACCENT, INK, SECOND, STYLE, WIDTH, hex_colour, legend, one_panel, share_axis
from detpipe.report.page import Cell, interval_cell
from detpipe.report.text_table import number, text_table
from detpipe.storage.atomic import write_text

HEAD = ("proposals", "classified", "mAP", "COCO AP", "COCO AR", "AR of proposals")
MILLISECONDS = ("propose", "score", "select", "all")
STAGES = {"propose": "proposing", "score": "scoring", "select": "selecting"}


@dataclass(frozen=True, kw_only=True, eq=False)
class BudgetPage:
    """The content of the page.

    subtitle: the data set. method: of the proposals. resamples: number for the intervals. timed: number of images whose
    stages were timed.
    """

    subtitle: str
    curve: BudgetCurve
    method: str
    resamples: int
    timed: int


def write_budget_page(path: Path, data: BudgetPage) -> None:
    """Write the page to `path` atomically."""
    write_text(path, render(data))


def render(data: BudgetPage) -> str:
    """The page as HTML. Without objects or budgets it says so."""
    points = data.curve.points
    return page.render(
        "budget.html",
        data.subtitle,
        content=data,
        sentences=budget_sentences(data.curve),
        figures=budget_figures(data.curve),
        quality_head=HEAD,
        quality=[(*_names(point), *map(_cell, _numbers(point))) for point in points],
        cost_head=("proposals", *(f"{name}, ms" for name in MILLISECONDS)),
        cost=[(_names(point)[0], *_milliseconds(point)) for point in points],
    )


def budget_text(curve: BudgetCurve) -> str:
    """A table for the terminal; "±" is half of the interval. Without points it has only the header."""
    rows = [
        [*_names(point), *(_plain(value) for value in _numbers(point)), *_milliseconds(point)] for point in curve.points
    ]
    return text_table([*HEAD, *MILLISECONDS[:-1], "ms per image"], rows)


def budget_sentences(curve: BudgetCurve) -> list[str]:
    """The smallest sufficient number of boxes and the best one, or that there are no objects or too few images."""
    best, fewest = curve.best, curve.fewest
    if best is None or fewest is None:
        return ["There are no objects, so all numbers of proposals are equally good."]
    if curve.too_few_images:
        low, high = (number(end.item()) for end in best.map.interval)
        return [
            f"Too few images to tell how many boxes are enough: {curve.images:,} images with objects, best mAP "
            f"{number(best.map.value.item())} (95 % interval {low} to {high}).",
            f"At least {math.ceil(3 / WIDEST)} such images and an interval of at most {WIDEST:g} are needed.",
        ]
    found = (
        f"The fewest boxes within {100 * curve.tolerance:g} % of the best mAP: {fewest.budget:,} per image, mAP "
        f"{number(fewest.map.value.item())} at {1000 * fewest.seconds.all:.0f} ms per image."
    )
    if fewest is best:
        return [found, "This is also the best mAP."]
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
    """0.432 ±0.021, or a dash for NaN."""
    if isinstance(value, float):
        return number(value)
    low, high = value.interval
    half = (high - low).item() / 2
    text = number(value.value.item())
    return text if np.isnan(half) else f"{text} ±{half:.3f}"


def _cell(value: Resampled | float) -> str | Cell:
    return number(value) if isinstance(value, float) else interval_cell(value)


def budget_figures(curve: BudgetCurve) -> dict[str, Figure]:
    """Two figures by title: mAP with its interval, COCO's AP and AR, the proposals' recall; and milliseconds by stage.

    Both over the number of proposals on a log axis, with a line at the smallest sufficient number, unless there are too
    few images to know it. With less than two numbers there are no figures: one point is not a curve.
    """
    if len(curve.points) < 2:
        return {}
    return {
        "accuracy": one_panel(WIDTH, 4.2, lambda axes: _quality(axes, curve)),
        "milliseconds per image": one_panel(WIDTH, 4.2, lambda axes: _cost(axes, curve)),
    }


def budget_curve_figure(curve: BudgetCurve) -> Figure:
    """The panels of `budget_figures` next to each other, for a PNG file. Without points it is empty."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10, 3.9), layout="constrained")
        if curve.points:
            quality, cost = figure.subplots(1, 2)
            _quality(quality, curve)
            _cost(cost, curve)
        return figure


def _quality(axes: Axes, curve: BudgetCurve) -> None:
    budgets = [point.budget for point in curve.points]
    low, high = (np.concatenate(ends) for ends in zip(*(point.map.interval for point in curve.points), strict=True))
    axes.fill_between(budgets, low, high, color=ACCENT, alpha=0.2, linewidth=0)
    lines = {
        "mAP at IoU 0.5": [point.map.value.item() for point in curve.points],
        "COCO AP": [point.ap for point in curve.points],
        "COCO AR": [point.ar for point in curve.points],
        "AR of proposals": [point.proposal_ar.value.item() for point in curve.points],
    }
    for (name, values), colour in zip(lines.items(), (ACCENT, SECOND, hex_colour(2), INK), strict=True):
        style = ":" if colour == INK else "-"
        axes.plot(budgets, values, marker="o", markersize=3, label=name, color=colour, linestyle=style)
    axes.set_ylabel("accuracy")
    share_axis(axes, percent=False)
    legend(axes, columns=2)
    _budget_axis(axes, curve)


def _cost(axes: Axes, curve: BudgetCurve) -> None:
    budgets = [point.budget for point in curve.points]
    parts = {
        title: [1000 * _known(getattr(point.seconds, name)) for point in curve.points] for name, title in STAGES.items()
    }
    colours = [hex_colour(label) for label in range(1, len(parts) + 1)]
    axes.stackplot(budgets, *parts.values(), labels=parts.keys(), colors=colours, alpha=0.7, linewidth=0)
    axes.set_ylabel("milliseconds per image")
    axes.set_ylim(bottom=0)
    legend(axes)
    _budget_axis(axes, curve)


def _budget_axis(axes: Axes, curve: BudgetCurve) -> None:
    budgets = [point.budget for point in curve.points]
    axes.set_xscale("log")
    axes.set_xlabel("proposals per image")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xticks(budgets, [f"{budget:,}" for budget in budgets], rotation=45, fontsize=8)
    if curve.fewest is not None and not curve.too_few_images:
        axes.axvline(curve.fewest.budget, color=INK, linewidth=0.8, linestyle="--")


def _known(seconds: float) -> float:
    return 0.0 if math.isnan(seconds) else seconds
