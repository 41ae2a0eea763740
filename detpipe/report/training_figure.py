"""The figure of a training log: loss, accuracy, recall, learning rate and speed over iterations."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from detpipe.report.curves import Curve
from detpipe.report.figure_style import ACCENT, SECOND, STYLE, WIDTH, hex_colour, legend, share_axis
from detpipe.solver.training_summary import is_number
from detpipe.structures import Float64Array

Rows = Sequence[Mapping[str, Any]]
"""Rows of a training log: "iteration" and any other keys."""
RECALLS = r"val_(recall|ar)_.*"
"""The keys of the recall of proposals."""


def training_figure(rows: Rows, *, progress: bool = True) -> Figure:
    """A panel over iterations for each group of keys in a training log: loss, accuracy, recall of proposals.

    Loss and accuracy are drawn faintly as logged, and strongly as a moving average over a twentieth of the log.
    Training and validation share an axis only if they are the same loss: with a box loss in training, the validation's
    loss is the class loss, and is drawn with the training's class loss.
    progress: also panels for learning rate, speed and waiting. A panel is left out if each of its keys has one value
    (see `single_values`): one point is not a curve. Without panels there is an empty one.
    """
    panels = _panels(rows, progress=progress)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 2.1 * max(len(panels), 1) + 0.6), layout="constrained")
        axes = figure.subplots(max(len(panels), 1), 1, sharex=True, squeeze=False)[:, 0]
        for one, (draw, names) in zip(axes, panels, strict=False):
            draw(one, rows, names)
        axes[-1].set(xlabel="iteration")
        return figure


def has_curves(rows: Rows, *, progress: bool = True) -> bool:
    """Whether `training_figure` has anything to draw."""
    return bool(_panels(rows, progress=progress))


Draw = Callable[[Axes, Rows, Sequence[str]], None]


def _panels(rows: Rows, *, progress: bool) -> list[tuple[Draw, list[str]]]:
    """The function that draws each panel, with its keys."""
    groups: list[tuple[Draw, str]]
    if _names(rows, "class_loss") and _names(rows, "val_loss"):
        groups = [(_class_losses, "class_loss|val_loss"), (_losses, r"(?!val_|class_loss).*loss")]
        if not _names(rows, "box_loss"):  # the loss is the class loss
            groups = groups[:1]
    else:
        groups = [(_losses, r".*loss")]
    groups += [(_accuracies, r".*accuracy"), (_recalls, RECALLS)]
    if progress:
        groups += [(_rate, "lr"), (_speed, "examples_per_second"), (_waiting, "waiting")]
    return [(draw, names) for draw, pattern in groups if _longest(rows, names := _names(rows, pattern)) > 1]


def single_values(rows: Rows) -> list[str]:
    """A phrase for each key with one value, such as "validation accuracy 0.95 (iteration 600)"."""
    return [
        f"{_label(name)} {values[0]:.4g} (iteration {iterations[0]:,.0f})"
        for name in _names(rows, rf".*(loss|accuracy)|{RECALLS}")
        for iterations, values in [_column(rows, name)]
        if len(values) == 1
    ]


def _label(name: str) -> str:
    """A key of the log in words."""
    if re.fullmatch(RECALLS, name):
        kind = "average recall" if name.startswith("val_ar_") else "recall"
        return f"{kind}, {name.rpartition('_')[2]} boxes,"
    return name.replace("val_", "validation ").replace("_", " ")


def _longest(rows: Rows, names: Sequence[str]) -> int:
    """The largest number of values of a key; 0 without keys."""
    return max((len(_column(rows, name)[0]) for name in names), default=0)


def _names(rows: Rows, pattern: str) -> list[str]:
    """The keys that match the whole pattern and have a finite value in a row, in order of appearance."""
    keys = dict.fromkeys(key for row in rows for key in row)
    return [key for key in keys if re.fullmatch(pattern, key) and len(_column(rows, key)[0])]


def _losses(axes: Axes, rows: Rows, names: Sequence[str]) -> None:
    for i, name in enumerate(names):
        if name == "loss":
            _noisy(axes, _column(rows, name), ACCENT, "training" if "val_loss" in names else "loss")
        elif name.startswith("val_"):
            _line(axes, _column(rows, name), SECOND, "validation")
        else:
            iterations, values = _column(rows, name)
            label = name.replace("_", " ")
            _line(axes, (iterations, smoothed(values)), hex_colour(i + 4), label, style="--", marker=None)
    # Alone, these are losses of the training; beside class losses they must not be taken for them.
    axes.set(ylabel="loss" if "val_loss" in names or not any("val_loss" in row for row in rows) else "training loss")
    axes.set_ylim(bottom=0)
    legend(axes)


def _class_losses(axes: Axes, rows: Rows, names: Sequence[str]) -> None:
    """The loss of the classes, in training and validation."""
    for name in sorted(names):  # training first
        if name == "val_loss":
            _line(axes, _column(rows, name), SECOND, "validation")
        else:
            _noisy(axes, _column(rows, name), ACCENT, "training")
    axes.set(ylabel="class loss")
    axes.set_ylim(bottom=0)
    legend(axes)


def _accuracies(axes: Axes, rows: Rows, names: Sequence[str]) -> None:
    for name in names:
        if name == "accuracy":
            _noisy(axes, _column(rows, name), ACCENT, "training")
        else:
            colour = SECOND if name == "val_accuracy" else hex_colour(5)
            label = "validation" if name == "val_accuracy" else name.removeprefix("val_").replace("_", " ")
            _line(axes, _column(rows, name), colour, label)
    axes.set(ylabel="accuracy")
    axes.set_ylim(top=min(1.0, axes.get_ylim()[1]))
    for line in axes.lines:
        line.set_clip_on(False)  # else a line at 100 % would be half as wide
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    legend(axes)


def _rate(axes: Axes, rows: Rows, names: Sequence[str]) -> None:
    _line(axes, _column(rows, names[0]), ACCENT, "", marker=None)
    axes.set(ylabel="learning rate")
    axes.set_ylim(bottom=0)


def _speed(axes: Axes, rows: Rows, names: Sequence[str]) -> None:
    _line(axes, _column(rows, names[0]), ACCENT, "", marker=None)
    axes.set(ylabel="examples/s, so far")
    axes.set_ylim(0, 1.1 * axes.get_ylim()[1])  # else a constant speed would be drawn at the upper edge


def _waiting(axes: Axes, rows: Rows, names: Sequence[str]) -> None:
    """The axis covers at least 1 %, so that negligible waiting looks negligible."""
    iterations, shares = _column(rows, names[0])
    _line(axes, (iterations, shares), ACCENT, "", marker=None)
    axes.set(ylabel="waiting, so far", ylim=(0, max(0.01, 1.1 * float(shares.max()))))
    axes.yaxis.set_major_formatter(PercentFormatter(1))


def _noisy(axes: Axes, curve: Curve, colour: str, label: str) -> None:
    axes.plot(*curve, color=colour, alpha=0.3, linewidth=1)
    _line(axes, (curve[0], smoothed(curve[1])), colour, label, marker=None)


def _line(axes: Axes, curve: Curve, colour: str, label: str, *, style: str = "-", marker: str | None = "o") -> None:
    # A line with one point would be invisible.
    shown = "o" if len(np.atleast_1d(curve[0])) == 1 else marker
    axes.plot(*curve, style, color=colour, label=label or None, marker=shown, markersize=4)


def _recalls(axes: Axes, rows: Rows, names: Sequence[str]) -> None:
    """Recall at IoU 0.5 as solid lines, average recall as dashed lines, with a colour for each number of boxes."""
    budgets = list(dict.fromkeys(name.rpartition("_")[2] for name in names))
    for name in names:
        average, budget = name.startswith("val_ar_"), name.rpartition("_")[2]
        label = f"{'average recall' if average else 'recall'}, {budget} boxes"
        colour = hex_colour(budgets.index(budget) + 3)
        axes.plot(*_column(rows, name), "--" if average else "-", marker="o", markersize=4, color=colour, label=label)
    axes.set(ylabel="validation recall")
    share_axis(axes)
    legend(axes, columns=2)


def _column(rows: Rows, key: str) -> Curve:
    """Iterations and values of the rows with a finite value for the key."""
    pairs = [(row["iteration"], row[key]) for row in rows if is_number(row.get(key)) and "iteration" in row]
    points = np.array(pairs, dtype=np.float64).reshape(-1, 2)
    points = points[np.isfinite(points).all(axis=1)]
    return points[:, 0], points[:, 1]


def smoothed(values: Float64Array) -> Float64Array:
    """The moving average over a twentieth of the values, with a narrower window at both ends."""
    window = np.ones(len(values) // 20 + 1)
    if not len(values):
        return values
    return np.convolve(values, window, "same") / np.convolve(np.ones_like(values), window, "same")
