"""The figure of a training: losses, accuracies, recalls, learning rate, speed and waiting, one below the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from detpipe.report.curves import Curve, column, draw_recalls, recall_names, smoothed
from detpipe.report.figure_style import ACCENT, SECOND, STYLE, hex_colour, legend

Rows = Sequence[Mapping[str, Any]]


def training_figure(rows: Rows) -> Figure:
    """A panel for each kind of number that the rows of a training log have, over iterations.

    Of loss and accuracy the logged numbers are faint, those smoothed over a twentieth of the log strong. No rows give
    one bare panel.
    """
    panels = [
        (draw, names)
        for draw, names in (
            (_losses, _names(rows, "loss")),
            (_accuracies, _names(rows, "accuracy")),
            (draw_recalls, recall_names(rows)),
            (_rate, _names(rows, "lr", whole=True)),
            (_speed, _names(rows, "examples_per_second", whole=True)),
            (_waiting, _names(rows, "waiting", whole=True)),
        )
        if names
    ]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7, 2.1 * max(len(panels), 1) + 0.6), layout="constrained")
        axes = figure.subplots(max(len(panels), 1), 1, sharex=True, squeeze=False)[:, 0]
        for one, (draw, names) in zip(axes, panels, strict=False):
            draw(one, rows, names)
        axes[-1].set(xlabel="iteration")
        return figure


def _names(rows: Rows, ending: str, *, whole: bool = False) -> list[str]:
    """The keys with this ending (or that are it) under which a row has a finite number, in order of appearance."""
    keys = dict.fromkeys(key for row in rows for key in row)
    return [key for key in keys if (key == ending if whole else key.endswith(ending)) and len(column(rows, key)[0])]


def _losses(axes: Axes, rows: Rows, names: Sequence[str]) -> None:
    for place, name in enumerate(names):
        if name == "loss":
            _noisy(axes, column(rows, name), ACCENT, "training")
        elif name.startswith("val_"):
            _line(axes, column(rows, name), SECOND, "validation")
        else:
            iterations, values = column(rows, name)
            label = name.replace("_", " ")
            _line(axes, (iterations, smoothed(values)), hex_colour(place + 4), label, style="--", marker=None)
    axes.set(ylabel="loss")
    axes.set_ylim(bottom=0)
    legend(axes)


def _accuracies(axes: Axes, rows: Rows, names: Sequence[str]) -> None:
    for name in names:
        if name == "accuracy":
            _noisy(axes, column(rows, name), ACCENT, "training")
        else:
            colour = SECOND if name == "val_accuracy" else hex_colour(5)
            label = "validation" if name == "val_accuracy" else name.removeprefix("val_").replace("_", " ")
            _line(axes, column(rows, name), colour, label)
    axes.set(ylabel="accuracy")
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    legend(axes)


def _rate(axes: Axes, rows: Rows, names: Sequence[str]) -> None:
    _line(axes, column(rows, names[0]), ACCENT, "", marker=None)
    axes.set(ylabel="learning rate")
    axes.set_ylim(bottom=0)


def _speed(axes: Axes, rows: Rows, names: Sequence[str]) -> None:
    _line(axes, column(rows, names[0]), ACCENT, "", marker=None)
    axes.set(ylabel="examples/s, so far")
    axes.set_ylim(0, 1.1 * axes.get_ylim()[1])  # a steady speed is a line at the upper edge, else


def _waiting(axes: Axes, rows: Rows, names: Sequence[str]) -> None:
    """Never less than 1 % high: a training that doesn't wait is to look like one."""
    iterations, shares = column(rows, names[0])
    _line(axes, (iterations, shares), ACCENT, "", marker=None)
    axes.set(ylabel="waiting, so far", ylim=(0, max(0.01, 1.1 * float(shares.max()))))
    axes.yaxis.set_major_formatter(PercentFormatter(1))


def _noisy(axes: Axes, curve: Curve, colour: str, label: str) -> None:
    axes.plot(*curve, color=colour, alpha=0.3, linewidth=1)
    _line(axes, (curve[0], smoothed(curve[1])), colour, label, marker=None)


def _line(axes: Axes, curve: Curve, colour: str, label: str, *, style: str = "-", marker: str | None = "o") -> None:
    # A line of one point would not be seen.
    shown = "o" if len(np.atleast_1d(curve[0])) == 1 else marker
    axes.plot(*curve, style, color=colour, label=label or None, marker=shown, markersize=4)
