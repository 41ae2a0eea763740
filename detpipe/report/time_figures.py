"""The figure of a step's time: the slowest layers and the types of layers, forward and backward."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from detpipe.inspect.step_cost import LayerCost, StepCost
from detpipe.report.figure_style import ACCENT, SECOND, STYLE, short_name

MAX_BARS = 25
"""Layers in the figure."""


def time_figure(cost: StepCost) -> Figure:
    """Bars of milliseconds, the slowest at the top: left the types of layers, right the layers, MAX_BARS at most."""
    kinds = [layer for _, layer in cost.by_kind().values()][:MAX_BARS]
    layers = cost.slowest()[:MAX_BARS]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10, 0.22 * max(len(layers), len(kinds), 6) + 1.2), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=(1, 1.5))
        _bars(left, kinds, "by type")
        _bars(right, layers, "by layer" + (", the slowest" if len(layers) < len(cost.layers) else ""))
        if layers:
            right.legend(loc="lower right")
        return figure


def _bars(axes: Axes, rows: Sequence[LayerCost], title: str) -> None:
    places = range(len(rows))
    forward, backward = [1e3 * row.forward for row in rows], [1e3 * row.backward for row in rows]
    axes.barh(places, forward, color=ACCENT, label="forward")
    if any(backward):
        axes.barh(places, backward, left=forward, color=SECOND, label="backward")
    axes.set_yticks(places, [short_name(row.name[-32:], 32) for row in rows], fontsize=7.5)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("milliseconds")
    axes.set_title(title, loc="left")
