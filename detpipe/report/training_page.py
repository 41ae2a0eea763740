"""What is known of a training, finished or not: as text, and as a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from detpipe.report import page
from detpipe.report.curves import Curve, as_time, column, draw_recalls, recall_names, smoothed
from detpipe.report.figure_style import ACCENT, SECOND, STYLE, hex_colour, legend
from detpipe.report.run.sections import setting_groups
from detpipe.report.text_table import as_bytes, significant, text_table
from detpipe.solver.training_summary import Course, courses
from detpipe.storage.atomic import write_text

HEAD = ("", "first", "last", "best", "at iteration")
RATES = ("examples_per_second", "waiting")
"""Numbers of the log that have a line of their own."""
Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class SnapshotFile:
    """A file of the state of a training."""

    name: str
    size: int


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingPage:
    """What is shown. Each None is unknown.

    subtitle: the folder, and what is trained. rows: of the log. complete: whether the training has ended by itself.
    wanted: iterations in all. batch: examples of an iteration. seconds: of all processes that ended or were stopped.
    age: seconds since the log was written. settings: nested, plain values.
    """

    subtitle: str
    rows: Sequence[Mapping[str, Any]]
    complete: bool | None = None
    wanted: int | None = None
    batch: int | None = None
    seconds: float | None = None
    age: float | None = None
    snapshots: Sequence[SnapshotFile] = ()
    settings: Mapping[str, object] = field(default_factory=dict)

    @property
    def iterations(self) -> int:
        """Those of the last row; 0 without rows."""
        return int(self.rows[-1]["iteration"]) if self.rows else 0

    @property
    def iterations_per_second(self) -> float | None:
        """From the last row that has a rate."""
        rate = self.last("examples_per_second")
        return None if rate is None or not self.batch else rate / self.batch

    def last(self, name: str) -> float | None:
        """The last logged number of that name."""
        return next((one.last.value for one in courses(self.rows) if one.name == name), None)

    def facts(self) -> dict[str, str]:
        """The lines of the head, by a word."""
        waiting, rate, speed = self.last("waiting"), self.last("examples_per_second"), self.iterations_per_second
        facts = {
            "state": self._state(),
            "speed": f"{significant(speed)} iterations/s, {significant(rate)} examples/s",
            "waiting": "–" if waiting is None else f"{waiting:.2%} of the time, for data",
        }
        if self.seconds:
            facts["time"] = as_time(self.seconds)
        facts["snapshots"] = ", ".join(f"{one.name} ({as_bytes(one.size)})" for one in self.snapshots) or "none"
        return facts

    def _state(self) -> str:
        of = f" of {self.wanted}" if self.wanted is not None else ""
        if self.complete:
            return f"complete, {self.iterations}{of} iterations"
        since = f", the log was last written {as_time(self.age)} ago" if self.age is not None else ""
        speed, left = self.iterations_per_second, (self.wanted or 0) - self.iterations
        eta = f", {as_time(left / speed)} left at its speed" if speed and left > 0 else ""
        return f"not complete, {self.iterations}{of} iterations logged{eta}{since}"


def course_rows(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """A line of the table for each number of the log: name, first, last, best and where."""
    return [
        [
            one.name,
            significant(one.first.value, 4),
            significant(one.last.value, 4),
            significant(one.best.value, 4) if one.best else "",
            str(one.best.iteration) if one.best else "",
        ]
        for one in _shown(courses(rows))
    ]


def training_text(data: TrainingPage) -> str:
    """The facts and the table as plain text."""
    lines = [data.subtitle, *(f"  {name:<9} {text}" for name, text in data.facts().items())]
    rows = course_rows(data.rows)
    return "\n".join(lines) + (f"\n\n{text_table(HEAD, rows)}" if rows else "")


def write_training_page(path: Path, data: TrainingPage) -> None:
    """Write the page to `path`, whole or not at all."""
    write_text(path, render(data))


def render(data: TrainingPage) -> str:
    """The page as HTML; before the first row of the log it says so."""
    return page.render(
        "training.html",
        data.subtitle,
        facts=data.facts().items(),
        figure=training_figure(data.rows) if data.rows else None,
        head=HEAD,
        numbers=course_rows(data.rows),
        groups=setting_groups(data.settings),
    )


def _shown(found: Sequence[Course]) -> list[Course]:
    return [one for one in found if one.name not in RATES]


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
