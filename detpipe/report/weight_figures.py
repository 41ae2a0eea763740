"""Figures of a file of weights: how the numbers of each tensor are spread, how far they are from another file's."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from detpipe.inspect.weight_change import WeightChange
from detpipe.report.figure_style import ACCENT, SECOND, STYLE, plain_log_axis, short_name

BINS = 61
"""Parts of a histogram."""
MAX_PANELS = 24
"""Histograms in a figure."""

Histogram = tuple[Sequence[int], float, float]
"""Counts in equal parts of [low, high], and these ends."""


def histograms_figure(histograms: Mapping[str, Histogram]) -> Figure:
    """A panel each of them, by the tensor's name, the height on its own scale. None give an empty figure."""
    columns = 4
    rows = max(1, -(-len(histograms) // columns))
    with matplotlib.rc_context({**STYLE, "font.size": 8, "axes.titlesize": 8}):
        figure = Figure(figsize=(10, 1.55 * rows + 0.3), layout="constrained")
        panels = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
        for axes in panels[len(histograms) :]:
            axes.set_visible(False)
        for axes, (name, (counts, low, high)) in zip(panels, histograms.items(), strict=False):
            edges = np.linspace(low, high, len(counts) + 1)
            axes.stairs(counts, edges, fill=True, color=ACCENT)
            axes.set_title(_end_of(name, 30), loc="left")
            axes.set_yticks([])
            axes.xaxis.set_major_locator(MaxNLocator(3))
        return figure


def change_figure(change: WeightChange) -> Figure:
    """The relative change of each tensor in the order of the file, on a log axis; equal ones stand on the floor."""
    there = [one for one in change.parameters if not math.isnan(one.relative)]
    values = np.array([one.relative for one in there])
    positive = values[(values > 0) & np.isfinite(values)]
    floor = 10 ** math.floor(math.log10(positive.min()) - 0.5) if len(positive) else 1e-3
    top = 10 ** math.ceil(math.log10(positive.max()) + 0.1) if len(positive) else 1.0
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10, 3.6), layout="constrained")
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
        if len(there):
            axes.legend()
        return figure


def _end_of(name: str, length: int) -> str:
    """The end of a name says which tensor it is."""
    clean = short_name(name, len(name))
    return clean if len(clean) <= length else "…" + clean[1 - length :]
