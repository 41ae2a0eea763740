"""The page of proposals: how many objects they find, method beside method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from detpipe.metrics.bootstrap import Resampled
from detpipe.metrics.method_recall import MethodRecall
from detpipe.metrics.paired_difference import PairedDifference
from detpipe.metrics.recall_curves import RecallCurves
from detpipe.metrics.recall_measures import MEASURES
from detpipe.report import curves as figures
from detpipe.report.figure_style import hex_colour
from detpipe.report.markup import Markup, escape, number, paragraph, table
from detpipe.report.page import page
from detpipe.report.recall_figures import TITLES, recall_curves_figure
from detpipe.storage.atomic import write_text


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
    objects = max((curves.objects for curves in all_curves.values()), default=0)
    head = _methods(data)
    if not objects:
        return page("Proposals", data.subtitle, head + paragraph("There are no objects to find.", "none"), {})
    parts = {
        "Curves": f'<div class="plot">{figures.to_svg(recall_curves_figure(all_curves), "recall-curves")}</div>'
        + paragraph(f"Bands: the middle 95 % of {data.resamples:,} resamples of the images.", "note"),
        "Numbers": _numbers(data.methods),
        "Differences": _differences(data),
        "Sizes": _parts({name: method.by_size for name, method in data.methods.items()}, data.methods, "size"),
        "Classes": _parts({name: method.by_class for name, method in data.methods.items()}, data.methods, "class"),
    }
    return page("Proposals", data.subtitle, head, {name: part for name, part in parts.items() if part})


def _methods(data: RecallPage) -> str:
    rows = [
        (
            _name(name, label),
            f"{method.images:,}",
            f"{method.empty:,}",
            f"{method.curves.objects:,}",
            number(method.mean_proposals, 0),
            data.sources.get(name, ""),
        )
        for label, (name, method) in enumerate(data.methods.items(), start=1)
    ]
    return table(["method", "images", "without proposals", "objects", "proposals an image", "from"], rows)


def _numbers(methods: Mapping[str, MethodRecall]) -> str:
    """A table a budget, a row a method."""
    parts = []
    for budget in next(iter(methods.values())).budgets:
        rows = [
            (_name(name, label), *map(_interval, method.curves.at(budget).values()))
            for label, (name, method) in enumerate(methods.items(), start=1)
        ]
        parts.append(f"<h3>{_at(budget)}</h3>{table(['method', *TITLES.values()], rows)}")
    note = "Objects that are difficult or a crowd aren't counted; those of an image without proposals are missed."
    return "".join(parts) + paragraph(note, "note")


def _differences(data: RecallPage) -> str:
    """A table for each other method, a row a budget."""
    if not data.paired:
        return ""
    first = next(iter(data.methods))
    parts = []
    for name, differences in data.paired.items():
        budgets = data.methods[name].budgets
        rows = [
            (_at(budget), *(_difference(differences[measure], place) for measure in MEASURES))
            for place, budget in enumerate(budgets)
        ]
        head = f"<h3>{escape(first)} minus {escape(name)}</h3>"
        parts.append(head + table(["", *TITLES.values()], rows))
    note = (
        "On the same resamples of the images. p: how often chance alone would give such a difference or a greater one, "
        "in either direction."
    )
    return "".join(parts) + paragraph(note, "note")


def _parts(parts: Mapping[str, Mapping[str, RecallCurves]], methods: Mapping[str, MethodRecall], what: str) -> str:
    """Average recall of each method for each class or size, at the largest budget that has most to say: the last."""
    first = next(iter(methods.values()))
    budget = first.budgets[-1]
    rows = []
    for name, curves in next(iter(parts.values())).items():
        cells = [_interval(of_method[name].at(budget)["ar"]) for of_method in parts.values()]
        rows.append((name, f"{curves.objects:,}", *cells))
    note = f"Average recall {_at(budget).lower()}"
    if what == "size":
        note += "; small: less than 32², medium: less than 96², in pixels of the annotated area"
    return table([what, "objects", *methods], rows) + paragraph(f"{note}.", "note")


def _interval(value: Resampled) -> Markup:
    """0.432 and below it its interval."""
    low, high = value.interval
    if np.isnan(low).item():
        return Markup(number(value.value.item()))
    return Markup(f"{number(value.value.item())}<br><small>{number(low.item())} – {number(high.item())}</small>")


def _difference(difference: PairedDifference, place: int) -> Markup:
    value, p = difference.difference.columns([place]), difference.p[place].item()
    if np.isnan(p):
        return Markup("–" if np.isnan(value.value.item()) else f"{value.value.item():+.3f}")
    low, high = value.interval
    return Markup(f"{value.value.item():+.3f}<br><small>{low.item():+.3f} to {high.item():+.3f}, p {p:.3f}</small>")


def _at(budget: int) -> str:
    return f"At {budget:,} {'proposal' if budget == 1 else 'proposals'} an image"


def _name(name: str, label: int) -> Markup:
    return Markup(f'<i class="chip" style="background:{hex_colour(label)}"></i>{escape(name)}')
