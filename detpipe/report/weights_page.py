"""The page of a weight file: its tensors, histograms, first filters, and its difference from another file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from detpipe.inspect.tensor_statistics import TensorStatistics
from detpipe.inspect.weight_change import ParameterChange, WeightChange
from detpipe.report import page
from detpipe.report.figure_style import (
    ACCENT,
    HALF,
    SECOND,
    STYLE,
    WIDTH,
    legend,
    one_panel,
    plain_log_axis,
    short_name,
)
from detpipe.report.page import Picture
from detpipe.report.text_table import as_count, shortened, significant, text_table
from detpipe.storage.atomic import write_text
from detpipe.structures import Image

HEAD = ("tensor", "shape", "numbers", "mean", "std", "min", "max", "L1", "L2", "zeros", "not finite")
MAX_TEXT_ROWS = 60
"""Maximum rows of a table in the terminal. The page has all rows."""
BINS = 61
"""Bins of a histogram."""
MAX_PANELS = 24
"""Maximum number of histograms in the figure."""

Histogram = tuple[Sequence[int], float, float]
"""Counts in equal bins of [low, high], low, and high."""


@dataclass(frozen=True, kw_only=True, eq=False)
class WeightsPage:
    """The content of the page.

    subtitle: the file. shapes, statistics: of all tensors, by name. histograms: of some tensors. filters: the name of a
    layer and the image of its filters; None if no layer has filters to show. against: the other file, or "". change:
    the difference from the other file.
    """

    subtitle: str
    shapes: Mapping[str, tuple[int, ...]]
    statistics: Mapping[str, TensorStatistics]
    histograms: Mapping[str, Histogram] = field(default_factory=dict)
    filters: tuple[str, Image] | None = None
    against: str = ""
    change: WeightChange | None = None

    def rows(self) -> list[list[str]]:
        """One row per tensor, with the columns HEAD."""
        return [
            [
                name,
                " x ".join(map(str, self.shapes[name])) or "one number",
                f"{one.count:,}",
                *(significant(number) for number in (one.mean, one.std, one.min, one.max, one.l1, one.l2)),
                "–" if math.isnan(one.zeros) else f"{one.zeros:.1%}",
                f"{one.nan} NaN, {one.inf} inf" if one.not_finite else "",
            ]
            for name, one in self.statistics.items()
        ]


def write_weights_page(path: Path, data: WeightsPage) -> None:
    """Write the page to `path` atomically."""
    write_text(path, render(data))


def render(data: WeightsPage) -> str:
    """The page as HTML."""
    name, filters = data.filters or ("", None)
    change = data.change
    changed = () if change is None else sorted(change.parameters, key=_by_change)
    return page.render(
        "weights.html",
        data.subtitle,
        content=data,
        summary=summary(data),
        not_finite=[name for name, one in data.statistics.items() if one.not_finite],
        filters=[] if filters is None else [Picture(filters, f"filters of {name}", name, quality=95)],
        changes=_change_rows(changed),
        change_head=CHANGE_HEAD,
        change_figure=change_figure(change) if change is not None and changed else None,
        left_over={} if change is None else _left_over(change),
        histograms=histogram_figures(data.histograms),
        head=HEAD,
        rows=data.rows(),
    )


def summary(data: WeightsPage) -> str:
    """The number of tensors and values, in one sentence."""
    numbers = sum(one.count for one in data.statistics.values())
    return f"{len(data.statistics)} tensors, {numbers:,} numbers ({as_count(numbers)})."


def weights_text(data: WeightsPage) -> str:
    """The tables as plain text: all tensors (shortened), and the changed tensors, the most changed first."""
    parts = [f"{summary(data)}\n{text_table(HEAD, shortened(data.rows(), MAX_TEXT_ROWS))}"]
    if data.change is not None:
        everything = data.change.parameters
        moved = sorted((one for one in everything if one.relative != 0), key=_by_change)
        tally = f"against {data.against}: {len(moved)} of {len(everything)} tensors differ"
        parts.append(
            "\n".join([tally, *([text_table(CHANGE_HEAD, _change_rows(moved[:MAX_TEXT_ROWS]))] if moved else [])])
        )
        parts += [f"{what}: {names}" for what, names in _left_over(data.change).items()]
    return "\n\n".join(parts)


CHANGE_HEAD = ("tensor", "|now − before| / |before|", "cosine")


def _change_rows(parameters: Sequence[ParameterChange]) -> list[list[str]]:
    return [
        [one.name, significant(one.relative), "–" if math.isnan(one.cosine) else f"{one.cosine:.6f}"]
        for one in parameters
    ]


def _by_change(one: ParameterChange) -> float:
    """Sort key: NaN first, then the most changed."""
    return -math.inf if math.isnan(one.relative) else -one.relative


def _left_over(change: WeightChange) -> dict[str, str]:
    """The tensors that can't be compared, by reason."""
    shapes = [f"{name} {now} here, {before} there" for name, (now, before) in change.other_shape.items()]
    found = {
        "only here": ", ".join(change.only_now),
        "only there": ", ".join(change.only_before),
        "of other shapes": "; ".join(shapes),
    }
    return {what: names for what, names in found.items() if names}


def histogram_figures(histograms: Mapping[str, Histogram]) -> dict[str, Figure]:
    """A small figure for each histogram, by tensor name, with its own vertical scale."""
    return {
        name: one_panel(HALF, 1.5, partial(_histogram, name=name, histogram=histogram))
        for name, histogram in histograms.items()
    }


def _histogram(axes: Axes, *, name: str, histogram: Histogram) -> None:
    counts, low, high = histogram
    axes.stairs(counts, np.linspace(low, high, len(counts) + 1), fill=True, color=ACCENT)
    axes.set_title(_end_of(name, 26), loc="left", fontsize=8)
    axes.set_yticks([])
    axes.tick_params(labelsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(3))


def histograms_figure(histograms: Mapping[str, Histogram]) -> Figure:
    """The panels of `histogram_figures` in one figure, for a PNG file. Without histograms it is empty."""
    columns = 4
    rows = max(1, -(-len(histograms) // columns))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10, 1.55 * rows + 0.3), layout="constrained")
        panels = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
        for axes in panels[len(histograms) :]:
            axes.set_visible(False)
        for axes, (name, histogram) in zip(panels, histograms.items(), strict=False):
            _histogram(axes, name=name, histogram=histogram)
        return figure


def change_figure(change: WeightChange) -> Figure:
    """The relative change of each tensor in file order (log axis); unchanged tensors are at the lower end."""
    there = [one for one in change.parameters if not math.isnan(one.relative)]
    values = np.array([one.relative for one in there])
    positive = values[(values > 0) & np.isfinite(values)]
    floor = 10 ** math.floor(math.log10(positive.min()) - 0.5) if len(positive) else 1e-3
    top = 10 ** math.ceil(math.log10(positive.max()) + 0.1) if len(positive) else 1.0
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
        axes = figure.add_subplot()
        matrices = np.array([one.name.endswith(("weight", ".0")) for one in there], dtype=bool)
        shown = np.clip(np.nan_to_num(values, posinf=top), floor, top)
        for chosen, colour, label in ((matrices, ACCENT, "weights"), (~matrices, SECOND, "the others")):
            if chosen.any():
                axes.plot(np.flatnonzero(chosen), shown[chosen], "o", color=colour, markersize=4, label=label)
        axes.set_yscale("log")
        plain_log_axis(axes)
        axes.set(xlabel="tensor, in the order of the file", ylabel="|now − before| / |before|", ylim=(floor / 1.5, top))
        if (values == 0).any():
            axes.text(0, floor * 1.08, "unchanged", fontsize=8)
        legend(axes)
        return figure


def _end_of(name: str, length: int) -> str:
    """The last `length` characters of a name, which identify the tensor."""
    clean = short_name(name, len(name))
    return clean if len(clean) <= length else "…" + clean[1 - length :]
