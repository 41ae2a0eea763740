"""The figure of a network's signals: the sizes of weights, activations and gradients from layer to layer."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from detpipe.inspect.signals import LayerSignal, Signals
from detpipe.inspect.tensor_statistics import TensorStatistics
from detpipe.report.figure_style import ACCENT, INK, SECOND, STYLE, hex_colour, plain_log_axis, short_name

MAX_NAMED = 40
"""With more layers than this, names on the axis could not be read."""


def signals_figure(signals: Signals) -> Figure:
    """Above the standard deviations at the layers with weights, on a log axis; below the share of zeros of every
    output.

    A standard deviation of 0, or of no finite number, is left out.
    """
    places = [i for i, layer in enumerate(signals.layers) if layer.weight is not None]
    layers = [signals.layers[i] for i in places]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10, 6.4), layout="constrained")
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(2.6, 1))
        _stds(upper, places, [layer.activation for layer in layers], ACCENT, "activations", "o-")
        _stds(upper, places, [layer.gradient for layer in layers], SECOND, "gradients of them", "o-")
        _stds(upper, places, [layer.weight for layer in layers], hex_colour(2), "weights", "s--")
        _stds(upper, places, [layer.weight_gradient for layer in layers], hex_colour(5), "gradients of weights", "s--")
        upper.set_yscale("log")
        plain_log_axis(upper)
        upper.set_ylabel("standard deviation")
        if layers:
            upper.legend(ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0))
        _zeros(lower, signals.layers)
        named = places if len(places) <= MAX_NAMED else []
        names = [short_name(signals.layers[i].name[-24:], 24) for i in named]
        if named:
            lower.set_xticks(named, names, rotation=90, fontsize=7)
        else:
            lower.set_xlabel("layer, in the order in which they work")
        return figure


def _stds(
    axes: Axes, places: Sequence[int], found: Sequence[TensorStatistics | None], colour: str, label: str, line: str
) -> None:
    there = [(x, one.std) for x, one in zip(places, found, strict=True) if one is not None and one.std > 0]
    if there:
        axes.plot(*zip(*there, strict=True), line, color=colour, label=label, markersize=4, linewidth=1.3)


def _zeros(axes: Axes, layers: Sequence[LayerSignal]) -> None:
    shares = np.nan_to_num([layer.activation.zeros for layer in layers])
    dead = np.array([layer.dead or 0.0 for layer in layers])
    axes.bar(range(len(layers)), shares, color=INK, alpha=0.25, width=0.8, label="zeros")
    axes.bar(range(len(layers)), dead, color=hex_colour(1), width=0.8, label="of dead channels")
    axes.set(ylim=(0, 1.02), ylabel="zeros")
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    if len(layers):
        axes.legend(loc="upper left", ncols=2, fontsize=8)
