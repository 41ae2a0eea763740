"""The page of proposals: how many objects they find, method beside method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from detpipe.metrics.method_recall import MethodRecall
from detpipe.metrics.paired_difference import PairedDifference
from detpipe.metrics.recall_curves import RecallCurves
from detpipe.metrics.recall_measures import MEASURES
from detpipe.report import page
from detpipe.report.figure_style import hex_colour
from detpipe.report.page import Cell, interval_cell
from detpipe.report.recall_figures import TITLES, recall_curves_figure
from detpipe.report.text_table import number
from detpipe.storage.atomic import write_text

Row = tuple[str | Cell, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class RecallPage:
    """What the page shows.

    subtitle: the data set. methods: from a name, in order. paired: the first method minus each other one, by its name.
    sources: where each method's proposals are from. resamples: of the intervals.
    """

    subtitle: str
    methods: Mapping[str, MethodRecall]
    paired: Mapping[str, Mapping[str, PairedDifference]] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    resamples: int


def write_recall_page(path: Path, data: RecallPage) -> None:
    """Write the page to `path`, whole or not at all."""
    write_text(path, render(data))


def render(data: RecallPage) -> str:
    """The page as HTML; without methods or objects it says so."""
    all_curves = {name: method.curves for name, method in data.methods.items()}
    methods = [_method_row(name, data, label) for label, name in enumerate(data.methods, start=1)]
    if not any(curves.objects for curves in all_curves.values()):
        return page.render("recall.html", data.subtitle, methods=methods, figure=None)
    budgets = next(iter(data.methods.values())).budgets
    return page.render(
        "recall.html",
        data.subtitle,
        data=data,
        methods=methods,
        figure=recall_curves_figure(all_curves),
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
    """A row a method."""
    return [
        (Cell(name, colour=hex_colour(label)), *map(interval_cell, method.curves.at(budget).values()))
        for label, (name, method) in enumerate(methods.items(), start=1)
    ]


def _differences(data: RecallPage) -> dict[str, list[Row]]:
    """By the title of a table for each other method, a row a budget."""
    first = next(iter(data.methods))
    return {
        f"{first} minus {name}": [
            (_at(budget), *(_difference(differences[measure], place) for measure in MEASURES))
            for place, budget in enumerate(data.methods[name].budgets)
        ]
        for name, differences in data.paired.items()
    }


def _part_rows(parts: Sequence[Mapping[str, RecallCurves]], budget: int) -> list[Row]:
    """Average recall of each method for each class or size at this budget. parts: by its name, of each method."""
    return [
        (name, f"{curves.objects:,}", *(interval_cell(of_method[name].at(budget)["ar"]) for of_method in parts))
        for name, curves in parts[0].items()
    ]


def _difference(difference: PairedDifference, place: int) -> str | Cell:
    value, p = difference.difference.columns([place]), difference.p[place].item()
    text = "–" if np.isnan(value.value.item()) else f"{value.value.item():+.3f}"
    low, high = value.interval
    return text if np.isnan(p) else Cell(text, below=f"{low.item():+.3f} to {high.item():+.3f}, p {p:.3f}")


def _at(budget: int) -> str:
    return f"At {budget:,} {'proposal' if budget == 1 else 'proposals'} an image"
