"""The page of proposal recall: a comparison of methods.

The figures follow Hosang et al. (PAMI 2015, section 4), with several methods in each and intervals as bands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter

from detpipe.metrics.bootstrap import Resampled
from detpipe.metrics.method_recall import MethodRecall
from detpipe.metrics.paired_difference import PairedDifference
from detpipe.metrics.recall_curves import THRESHOLDS, RecallCurves
from detpipe.metrics.recall_measures import MEASURES
from detpipe.report import page
from detpipe.report.figure_style import STYLE, WIDTH, hex_colour, one_panel, share_axis, short_name
from detpipe.report.page import Cell, interval_cell
from detpipe.report.text_table import number
from detpipe.storage.atomic import write_text

Row = tuple[str | Cell, ...]
TITLES = {
    "recall@0.5": "recall at IoU 0.5",
    "recall@0.7": "recall at IoU 0.7",
    "abo": "average best overlap",
    "mabo": "mean average best overlap",
    "ar": "average recall",
}
"""The title of each measure."""
BY_BUDGET = ("ar", "recall@0.5", "abo")
"""The measures that are plotted over the number of proposals."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RecallPage:
    """The content of the page.

    subtitle: the data set. methods: by name, in order. paired: the differences between the first method and each other
    one, by its name. sources: the origin of each method's proposals. resamples: number for the intervals.
    """

    subtitle: str
    methods: Mapping[str, MethodRecall]
    paired: Mapping[str, Mapping[str, PairedDifference]] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    resamples: int


def write_recall_page(path: Path, data: RecallPage) -> None:
    """Write the page to `path` atomically."""
    write_text(path, render(data))


def render(data: RecallPage) -> str:
    """The page as HTML. Without methods or objects it says so."""
    all_curves = {name: method.curves for name, method in data.methods.items()}
    methods = [_method_row(name, data, label) for label, name in enumerate(data.methods, start=1)]
    if not any(curves.objects for curves in all_curves.values()):
        return page.render("recall.html", data.subtitle, methods=methods, figures=None)
    budgets = next(iter(data.methods.values())).budgets
    return page.render(
        "recall.html",
        data.subtitle,
        content=data,
        methods=methods,
        figures=recall_figures(all_curves),
        legend=[(name, hex_colour(label)) for label, name in enumerate(data.methods, start=1)],
        titles=list(TITLES.values()),
        numbers={_at(budget): _number_rows(data.methods, budget) for budget in budgets},
        differences=_differences(data),
        names=list(data.methods),
        sizes=_part_rows([method.by_size for method in data.methods.values()], budgets[-1]),
        classes=_part_rows([method.by_class for method in data.methods.values()], budgets[-1]),
        last=_at(budgets[-1]),
    )


def _method_row(name: str, data: RecallPage, label: int) -> Row:
    method = data.methods[name]
    return (
        Cell(name, colour=hex_colour(label)),
        f"{method.images:,}",
        f"{method.empty:,}",
        f"{method.curves.objects:,}",
        number(method.mean_proposals, 0),
        data.sources.get(name, ""),
    )


def _number_rows(methods: Mapping[str, MethodRecall], budget: int) -> list[Row]:
    """One row per method."""
    return [
        (Cell(name, colour=hex_colour(label)), *map(interval_cell, method.curves.at(budget).values()))
        for label, (name, method) in enumerate(methods.items(), start=1)
    ]


def _differences(data: RecallPage) -> dict[str, list[Row]]:
    """A table by title for each other method, with one row per budget."""
    first = next(iter(data.methods))
    return {
        f"{first} minus {name}": [
            (_at(budget), *(_difference(differences[measure], i) for measure in MEASURES))
            for i, budget in enumerate(data.methods[name].budgets)
        ]
        for name, differences in data.paired.items()
    }


def _part_rows(parts: Sequence[Mapping[str, RecallCurves]], budget: int) -> list[Row]:
    """Average recall of each method for each class or size at this budget. parts: curves by name, for each method."""
    return [
        (name, f"{curves.objects:,}", *(interval_cell(of_method[name].at(budget)["ar"]) for of_method in parts))
        for name, curves in parts[0].items()
    ]


def _difference(difference: PairedDifference, i: int) -> str | Cell:
    value, p = difference.difference.columns([i]), difference.p[i].item()
    text = "–" if np.isnan(value.value.item()) else f"{value.value.item():+.3f}"
    low, high = value.interval
    return text if np.isnan(p) else Cell(text, below=f"{low.item():+.3f} to {high.item():+.3f}, p {p:.3f}")


def _at(budget: int) -> str:
    return f"At {budget:,} {'proposal' if budget == 1 else 'proposals'} per image"


def recall_figures(methods: Mapping[str, RecallCurves]) -> dict[str, Figure]:
    """Figures by title: each measure of BY_BUDGET (log axis), and recall over IoU for each budget of all methods.

    Figures over the number of proposals are left out if no method has more than one: a point is not a curve.
    """
    figures = {}
    if any(len(curves.curve("ar")[0]) > 1 for curves in methods.values()):
        for name in BY_BUDGET:
            figures[TITLES[name]] = one_panel(WIDTH, 3.4, partial(_by_budget, name=name, methods=methods))
    for budget in _budgets(methods):
        figures[_by_iou_title(budget)] = one_panel(WIDTH, 3.4, partial(_by_iou, budget=budget, methods=methods))
    return figures


def _budgets(methods: Mapping[str, RecallCurves]) -> list[int]:
    """The budgets of all methods, in increasing order."""
    return sorted(set.intersection(*(set(curves.by_iou) for curves in methods.values()))) if methods else []


def recall_curves_figure(methods: Mapping[str, RecallCurves]) -> Figure:
    """The panels of `recall_figures` in one figure, with a legend, for a PNG file.

    methods: by name, in the order of the legend, which has the average recall of all proposals. Without methods the
    panels are empty.
    """
    budgets = _budgets(methods)
    n_panels = len(BY_BUDGET) + len(budgets)
    rows = -(-(n_panels + 1) // 2)  # one panel holds the legend
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9, 3.1 * rows), layout="constrained")
        panels = figure.subplots(rows, 2, squeeze=False).ravel().tolist()
        for axes, name in zip(panels, BY_BUDGET, strict=False):
            _by_budget(axes, name, methods)
        _legend(panels[len(BY_BUDGET)], methods)
        for axes, budget in zip(panels[len(BY_BUDGET) + 1 :], budgets, strict=False):
            _by_iou(axes, budget, methods)
        for axes in panels[n_panels + 1 :]:
            axes.set_visible(False)
        return figure


def _by_budget(axes: Axes, name: str, methods: Mapping[str, RecallCurves]) -> None:
    longest = 10
    for label, curves in enumerate(methods.values(), start=1):
        budgets, values = curves.curve(name)
        longest = max(longest, budgets[-1])
        _line(axes, budgets, values, hex_colour(label))
    axes.set_xscale("log")
    decades = [10**power for power in range(int(np.log10(longest)) + 1)]
    axes.set_xticks(decades, [f"{decade:,}" for decade in decades])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set(xlabel="proposals per image", xlim=(0.9, longest * 1.1))
    share_axis(axes, percent=name != "abo")  # an average overlap is not a share of objects
    axes.set_title(TITLES[name], loc="left")


def _by_iou(axes: Axes, budget: int, methods: Mapping[str, RecallCurves]) -> None:
    for label, curves in enumerate(methods.values(), start=1):
        _line(axes, THRESHOLDS, curves.by_iou[budget], hex_colour(label))
    axes.set(xlabel="IoU", xlim=(0.5, 1))
    share_axis(axes)
    axes.set_title(_by_iou_title(budget), loc="left")


def _by_iou_title(budget: int) -> str:
    return f"recall of {budget:,} {'proposal' if budget == 1 else 'proposals'} per image"


def _line(axes: Axes, x: Sequence[float], values: Resampled, colour: str) -> None:
    low, high = values.interval
    axes.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
    axes.plot(x, values.value, color=colour, marker="o" if len(x) == 1 else "", markersize=4)


def _legend(axes: Axes, methods: Mapping[str, RecallCurves]) -> None:
    axes.set_axis_off()
    if not methods:
        return
    lines = [Line2D([], [], color=hex_colour(label)) for label in range(1, len(methods) + 1)]
    # The number comes first because matplotlib leaves labels that start with "_" out of the legend.
    names = [f"{_last_ar(curves)}  {short_name(name, 40)}" for name, curves in methods.items()]
    axes.legend(lines, names, title="average recall of all proposals", loc="center left", alignment="left")


def _last_ar(curves: RecallCurves) -> str:
    last = curves.curve("ar")[1].value[-1]
    return "–" if np.isnan(last) else f"{last:.2f}"
