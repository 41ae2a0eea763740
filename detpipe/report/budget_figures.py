"""The figure of a budget curve: how good, and how fast, with so many proposals."""

from __future__ import annotations

import math

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, NullLocator

from detpipe.metrics.budget_curve import BudgetCurve
from detpipe.report.figure_style import ACCENT, INK, SECOND, STYLE, hex_colour

STAGES = {"propose": "proposing", "score": "scoring", "select": "selecting"}


def budget_curve_figure(curve: BudgetCurve) -> Figure:
    """Left: mAP with its interval, COCO's AP and AR, the proposals' recall. Right: milliseconds, stage upon stage.

    Both over the number of proposals, on a log axis, with a line at the fewest that do. No points give empty panels.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10, 3.9), layout="constrained")
        quality, cost = figure.subplots(1, 2)
        _quality(quality, curve)
        _cost(cost, curve)
        for axes in (quality, cost):
            _budget_axis(axes, curve)
        return figure


def _quality(axes: Axes, curve: BudgetCurve) -> None:
    budgets = [point.budget for point in curve.points]
    if budgets:
        low, high = (np.concatenate(ends) for ends in zip(*(point.map.interval for point in curve.points), strict=True))
        axes.fill_between(budgets, low, high, color=ACCENT, alpha=0.2, linewidth=0)
    lines = {
        "mAP at IoU 0.5": [point.map.value.item() for point in curve.points],
        "COCO AP": [point.ap for point in curve.points],
        "COCO AR": [point.ar for point in curve.points],
        "average recall of the proposals": [point.proposal_ar.value.item() for point in curve.points],
    }
    for (name, values), colour in zip(lines.items(), (ACCENT, SECOND, hex_colour(2), INK), strict=True):
        style = ":" if colour == INK else "-"
        axes.plot(budgets, values, marker="o", markersize=3, label=name, color=colour, linestyle=style)
    axes.set(ylim=(0, 1.02))
    axes.set_title("how good", loc="left")
    if budgets:
        axes.legend(loc="best", fontsize=8)


def _cost(axes: Axes, curve: BudgetCurve) -> None:
    budgets = [point.budget for point in curve.points]
    parts = {
        title: [1000 * _known(getattr(point.seconds, name)) for point in curve.points] for name, title in STAGES.items()
    }
    if budgets:
        colours = [hex_colour(label) for label in range(1, len(parts) + 1)]
        axes.stackplot(budgets, *parts.values(), labels=parts.keys(), colors=colours, alpha=0.7, linewidth=0)
        # The last that was stacked on top, as in the picture.
        handles, names = axes.get_legend_handles_labels()
        axes.legend(handles[::-1], names[::-1], loc="upper left", fontsize=8)
    axes.set_ylim(bottom=0)
    axes.set_title("milliseconds an image", loc="left")


def _budget_axis(axes: Axes, curve: BudgetCurve) -> None:
    budgets = [point.budget for point in curve.points]
    axes.set_xscale("log")
    axes.set_xlabel("proposals an image")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xticks(budgets, [f"{budget:,}" for budget in budgets], rotation=45, fontsize=8)
    if curve.fewest is not None:
        axes.axvline(curve.fewest.budget, color=INK, linewidth=0.8, linestyle="--")


def _known(seconds: float) -> float:
    return 0.0 if math.isnan(seconds) else seconds
