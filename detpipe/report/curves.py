"""Figures of a report, by matplotlib's objects alone: no pyplot, no global state, no window.

Each function gives a Figure, `to_svg` and `to_png` its picture. Ink and grid of an SVG follow the page that it stands
in: they take the page's text colour, so that one figure serves a light and a dark page.
"""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from detpipe.metrics.voc_ap import Float64Array
from detpipe.report.figure_style import ACCENT, FAINT, INK, SECOND, STYLE, hex_colour, legend, short_name
from detpipe.solver.training_summary import is_number

Curve = tuple[Float64Array, Float64Array]
"""Recall and precision, each (P,) float64."""

MAX_TOGETHER = 10
"""More curves than this can't be told apart by colour: each class then has a small panel of its own."""


def precision_recall_figure(curves: Mapping[str, Curve], per_class: Mapping[str, float]) -> Figure:
    """Precision over recall of each class, as the envelope whose area is VOC 2010's AP.

    curves: of every class, in label order. Classes without objects (AP NaN) are left out. Up to MAX_TOGETHER share one
    plot, in their colours; more get a panel each, the best AP first.
    """
    labels = {name: label for label, name in enumerate(curves, start=1)}
    names = sorted((name for name in curves if not np.isnan(per_class[name])), key=lambda name: -per_class[name])
    with matplotlib.rc_context(STYLE):
        if len(names) > MAX_TOGETHER:
            return _panels(curves, per_class, names)
        figure = Figure(figsize=(7, 4.2), layout="constrained")
        axes = figure.add_subplot()
        for name in names:
            # The number first: matplotlib leaves a label that starts with "_" out of the legend.
            label = f"{per_class[name]:.2f}  {short_name(name, 24)}"
            axes.plot(*_envelope(curves[name]), color=hex_colour(labels[name]), label=label)
        axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1.01), ylim=(0, 1.02))
        if names:
            axes.legend(title="AP", loc="center left", bbox_to_anchor=(1.0, 0.5), alignment="left")
        return figure


def _panels(curves: Mapping[str, Curve], per_class: Mapping[str, float], names: Sequence[str]) -> Figure:
    columns = 6
    rows = -(-len(names) // columns)
    height = 1.5 * rows + 0.6
    figure = Figure(figsize=(10, height))
    # By hand: the constrained layout takes seconds for 80 panels.
    figure.subplots_adjust(left=0.06, right=0.99, bottom=0.45 / height, top=1 - 0.25 / height, hspace=0.35, wspace=0.14)
    # Not sharex, sharey: matplotlib then asks each panel about all the others.
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for place, (axes, name) in enumerate(zip(panels, names, strict=False)):
        lowest, leftmost = place >= len(names) - columns, place % columns == 0
        axes.set(xlim=(0, 1.02), ylim=(0, 1.04))
        axes.set(xticks=(0, 0.5, 1) if lowest else (), yticks=(0, 0.5, 1) if leftmost else ())
        recall, precision = _envelope(curves[name])
        axes.plot(recall, precision, color=ACCENT, linewidth=1.3)
        axes.fill_between(recall, precision, color=ACCENT, alpha=0.15, linewidth=0)
        axes.set_title(f"{per_class[name]:.2f}  {short_name(name, 15)}", fontsize=9, loc="left", pad=3)
        axes.tick_params(labelsize=7, length=0)
        axes.grid(visible=False)
    for axes in panels[len(names) :]:
        axes.set_visible(False)
    figure.supxlabel("recall", fontsize=9)
    figure.supylabel("precision", fontsize=9)
    return figure


def recall_figure(recall: Mapping[str, Mapping[str, float | None]]) -> Figure:
    """Recall over the number of proposals (log axis), from the content of recall.json.

    Key: the number of proposals. Value: "recall@0.5", "recall@0.7", "ar", "mabo" ... in [0, 1], None where unknown.
    """
    numbers = sorted(map(int, recall))
    lines = {"recall@0.5": "at IoU 0.5", "recall@0.7": "at IoU 0.7", "ar": "average recall", "mabo": "MABO"}
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7, 3.8), layout="constrained")
        axes = figure.add_subplot()
        for place, (key, name) in enumerate(lines.items(), start=1):
            values = [recall[str(n)].get(key) for n in numbers]
            points = [np.nan if value is None else value for value in values]
            if not np.isnan(points).all():
                style = "--" if key == "mabo" else "-"
                axes.plot(numbers, points, style, marker="o", markersize=4, color=hex_colour(place + 2), label=name)
        axes.set_xscale("log")
        axes.set_xticks(numbers, [f"{n:,}" for n in numbers])
        axes.minorticks_off()
        axes.set(xlabel="proposals an image", ylabel="recall", ylim=(0, 1.02))
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        legend(axes)
        return figure


def loss_figure(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Loss, and below it validation accuracy, and recall of a network that proposes, where measured, over iterations.

    rows: of a training log; "iteration" and, where the row has them, "loss", "val_loss", "val_accuracy",
    "val_recall_K" and "val_ar_K" of K boxes.
    """
    loss, val_loss, accuracy = (column(rows, key) for key in ("loss", "val_loss", "val_accuracy"))
    recalls = recall_names(rows)
    with matplotlib.rc_context(STYLE):
        panels = 1 + bool(len(accuracy[0])) + bool(recalls)
        figure = Figure(figsize=(7, 2.7 * panels + 0.6), layout="constrained")
        axes = figure.subplots(panels, 1, sharex=True, squeeze=False)[:, 0]
        axes[0].plot(*loss, color=ACCENT, alpha=0.3, linewidth=1)
        axes[0].plot(loss[0], smoothed(loss[1]), color=ACCENT, label="training, smoothed")
        if len(val_loss[0]):
            axes[0].plot(*val_loss, "o-", color=SECOND, markersize=4, label="validation")
        axes[0].set(ylabel="loss", ylim=(0, None))
        legend(axes[0])
        if len(accuracy[0]):
            axes[1].plot(*accuracy, "o-", color=SECOND, markersize=4)
            axes[1].set(ylabel="validation accuracy")
            axes[1].yaxis.set_major_formatter(PercentFormatter(1))
        if recalls:
            draw_recalls(axes[-1], rows, recalls)
        axes[-1].set(xlabel="iteration")
        return figure


def recall_names(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys of a log's recall and average recall that have a finite number, in order of appearance."""
    keys = dict.fromkeys(key for row in rows for key in row)
    return [key for key in keys if key.startswith(("val_recall_", "val_ar_")) and len(column(rows, key)[0])]


def draw_recalls(axes: Axes, rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> None:
    """A colour for each number of boxes: recall at IoU 0.5 as a line, average recall dashed."""
    budgets = list(dict.fromkeys(name.rpartition("_")[2] for name in names))
    for name in names:
        average, budget = name.startswith("val_ar_"), name.rpartition("_")[2]
        label = f"{'average recall' if average else 'recall'}, {budget} boxes"
        colour = hex_colour(budgets.index(budget) + 3)
        axes.plot(*column(rows, name), "--" if average else "-", marker="o", markersize=4, color=colour, label=label)
    axes.set(ylabel="validation recall", ylim=(0, 1.02))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))  # six lines leave no room between them


def seconds_figure(seconds: Mapping[str, float]) -> Figure:
    """A bar for each stage, in the order given, with its time at the end."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7, 0.5 + 0.42 * max(len(seconds), 1)), layout="constrained")
        axes = figure.add_subplot()
        places = range(len(seconds))
        bars = axes.barh(places, list(seconds.values()), height=0.62, color=ACCENT)
        axes.bar_label(bars, [f" {as_time(value)}" for value in seconds.values()], padding=2)
        axes.set_yticks(places, [short_name(name, 24) for name in seconds])
        axes.invert_yaxis()
        axes.margins(x=0.14)
        axes.grid(visible=False)
        axes.xaxis.set_visible(False)
        axes.spines[["bottom", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
        return figure


def to_svg(figure: Figure, name: str) -> str:
    """The figure as an <svg> element to stand in HTML. name: of this figure in the page, a word; it keeps ids apart."""
    text = io.StringIO()
    with matplotlib.rc_context(STYLE | {"svg.hashsalt": name}), _quiet_glyphs():
        FigureCanvasSVG(figure).print_svg(text, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = text.getvalue()
    svg = re.sub(r"<(metadata|style)\b.*?</\1>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    # The ids of groups would stand in the page once a figure; those that are referred to are hashes.
    svg = re.sub(r' id="[A-Za-z0-9.]+_\d+"', "", svg)
    svg = re.sub(r'\b(width|height)="[\d.]+pt" ?', "", svg, count=2)
    # Hundredths of a point are enough: a page with 80 classes is half as large.
    svg = re.sub(r' d="[^"]*"', lambda path: re.sub(r"(\.\d\d)\d+", r"\1", path[0]), svg)
    return svg.replace(INK, "currentColor").replace(FAINT, "currentColor")


def to_png(figure: Figure, *, dpi: int = 120) -> bytes:
    """The figure as a PNG on white."""
    data = io.BytesIO()
    with matplotlib.rc_context(STYLE), _quiet_glyphs():
        FigureCanvasAgg(figure).print_figure(data, format="png", dpi=dpi, facecolor="white")
    return data.getvalue()


def as_time(seconds: float) -> str:
    """0.42 s, 42 s, 3 min 20 s, 2 h 5 min."""
    if seconds < 10:
        return f"{seconds:.2g} s" if seconds < 1 else f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _envelope(curve: Curve) -> Curve:
    """The corners of the monotone envelope, from recall 0 down to precision 0 at the last recall."""
    recall, precision = curve
    if not recall.any():
        return np.zeros(1), np.zeros(1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    # Each level holds from the recall before it to its own.
    levels, first = np.unique(recall[recall > 0], return_index=True)
    heights = best[recall > 0][first]
    left = np.concatenate([[0.0], levels[:-1]])
    x = np.append(np.column_stack([left, levels]).ravel(), levels[-1])
    return x, np.append(np.repeat(heights, 2), 0.0)


def column(rows: Sequence[Mapping[str, Any]], key: str) -> Curve:
    """Iterations and values of the rows that have a finite number under the key."""
    pairs = [(row["iteration"], row[key]) for row in rows if is_number(row.get(key)) and "iteration" in row]
    points = np.array(pairs, dtype=np.float64).reshape(-1, 2)
    points = points[np.isfinite(points).all(axis=1)]
    return points[:, 0], points[:, 1]


def smoothed(values: Float64Array) -> Float64Array:
    """The mean over a window of a twentieth of the values, narrower at both ends."""
    window = np.ones(len(values) // 20 + 1)
    if not len(values):
        return values
    return np.convolve(values, window, "same") / np.convolve(np.ones_like(values), window, "same")


@contextlib.contextmanager
def _quiet_glyphs() -> Iterator[None]:
    """Without the warnings about letters that the font lacks: a browser has them in another font."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from")
        yield
