"""Figures of reports, with matplotlib's object interface: no pyplot, no global state, no window.

Each function returns a Figure; `to_svg` and `to_png` render it. Lines and text of an SVG have the text colour of the
page that contains it, so that one figure works on light and dark pages.
"""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence

import matplotlib
import numpy as np
from markupsafe import escape
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.text import Text

from detpipe.progress import as_time
from detpipe.report.figure_style import ACCENT, FAINT, INK, STYLE, WIDTH, hex_colour, legend, share_axis, short_name
from detpipe.report.fonts import BASE, family_of, font_of
from detpipe.structures import Float64Array

Curve = tuple[Float64Array, Float64Array]
"""Recall and precision, each (P,) float64."""

MAX_TOGETHER = 10
"""More curves than this can't be distinguished by colour: each class then has its own small panel."""


def precision_recall_figure(curves: Mapping[str, Curve], per_class: Mapping[str, float]) -> Figure:
    """Precision over recall of each class, as the monotone envelope whose area is VOC 2010's AP.

    curves: of all classes, in label order. Classes without objects (AP is NaN) are left out. Up to MAX_TOGETHER classes
    share one plot; more get one panel each, the best AP first.
    """
    labels = {name: label for label, name in enumerate(curves, start=1)}
    names = sorted((name for name in curves if not np.isnan(per_class[name])), key=lambda name: -per_class[name])
    with matplotlib.rc_context(STYLE):
        if len(names) > MAX_TOGETHER:
            return _panels(curves, per_class, names)
        height = 3.4 + 0.22 * -(-len(names) // 2)  # with the legend below
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        axes = figure.add_subplot()
        for name in names:
            # The number comes first because matplotlib leaves labels that start with "_" out of the legend.
            label = f"{per_class[name]:.2f}  {short_name(name, 24)}"
            axes.plot(*_envelope(curves[name]), color=hex_colour(labels[name]), label=label)
        axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1))
        share_axis(axes, percent=False)
        if names:
            figure.legend(title="AP", loc="outside lower left", alignment="left", ncols=2, fontsize=9)
        return figure


def _panels(curves: Mapping[str, Curve], per_class: Mapping[str, float], names: Sequence[str]) -> Figure:
    columns = 3
    rows = -(-len(names) // columns)
    height = 1.3 * rows + 0.6
    figure = Figure(figsize=(WIDTH, height))
    # Set manually: the constrained layout takes seconds for 80 panels.
    figure.subplots_adjust(left=0.11, right=0.98, bottom=0.45 / height, top=1 - 0.25 / height, hspace=0.35, wspace=0.14)
    # Without sharex and sharey, which take quadratic time in the number of panels.
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for i, (axes, name) in enumerate(zip(panels, names, strict=False)):
        lowest, leftmost = i >= len(names) - columns, i % columns == 0
        axes.set(xlim=(0, 1))
        axes.set(xticks=(0, 0.5, 1) if lowest else (), yticks=(0, 0.5, 1) if leftmost else ())
        recall, precision = _envelope(curves[name])
        axes.plot(recall, precision, color=ACCENT, linewidth=1.3)
        share_axis(axes, percent=False)
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

    Key: the number of proposals. Value: "recall@0.5", "recall@0.7", "ar", "mabo" ... in [0, 1]; None if unknown.
    """
    numbers = sorted(map(int, recall))
    lines = {"recall@0.5": "at IoU 0.5", "recall@0.7": "at IoU 0.7", "ar": "average recall", "mabo": "MABO"}
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
        axes = figure.add_subplot()
        for i, (key, name) in enumerate(lines.items(), start=1):
            values = [recall[str(n)].get(key) for n in numbers]
            points = [np.nan if value is None else value for value in values]
            if not np.isnan(points).all():
                style = "--" if key == "mabo" else "-"
                axes.plot(numbers, points, style, marker="o", markersize=4, color=hex_colour(i + 2), label=name)
        axes.set_xscale("log")
        axes.set_xticks(numbers, [f"{n:,}" for n in numbers])
        axes.minorticks_off()
        axes.set(xlabel="proposals per image", ylabel="recall")
        share_axis(axes)
        legend(axes)
        return figure


def seconds_figure(seconds: Mapping[str, float]) -> Figure:
    """A bar for each stage, in the given order, with its time at the end."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 0.5 + 0.36 * max(len(seconds), 1)), layout="constrained")
        axes = figure.add_subplot()
        rows = range(len(seconds))
        bars = axes.barh(rows, list(seconds.values()), height=0.62, color=ACCENT)
        axes.bar_label(bars, [f" {as_time(value)}" for value in seconds.values()], padding=2)
        axes.set_yticks(rows, [short_name(name, 24) for name in seconds])
        axes.invert_yaxis()
        axes.margins(x=0.24)  # for the longest time
        axes.grid(visible=False)
        axes.xaxis.set_visible(False)
        axes.spines[["bottom", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
        return figure


def to_svg(figure: Figure, name: str, alt: str = "") -> str:
    """The figure as an <svg> element for HTML. name: a word that is unique in the page and makes the ids unique.

    alt: the alternative text, which screen readers read in place of the labels.
    """
    text = io.StringIO()
    with matplotlib.rc_context(STYLE | {"svg.hashsalt": name}), _quiet_glyphs():
        FigureCanvasSVG(figure).print_svg(text, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = text.getvalue()
    svg = re.sub(r"<(metadata|style)\b.*?</\1>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    # The ids of groups would be the same in all figures of a page. The ids that are used are hashes.
    svg = re.sub(r' id="[A-Za-z0-9.]+_\d+"', "", svg)
    svg = re.sub(r'\b(width|height)="[\d.]+pt" ?', "", svg, count=2)
    # Round to hundredths of a point: this halves a page with 80 classes.
    svg = re.sub(r' d="[^"]*"', lambda path: re.sub(r"(\.\d\d)\d+", r"\1", path[0]), svg)
    svg = svg.replace(INK, "currentColor").replace(FAINT, "currentColor")
    return svg.replace("<svg ", f'<svg role="img" aria-label="{escape(alt)}" ', 1) if alt else svg


def to_png(figure: Figure, *, dpi: int = 120) -> bytes:
    """The figure as a PNG with a white background."""
    data = io.BytesIO()
    with matplotlib.rc_context(STYLE), _quiet_glyphs():
        for text in figure.findobj(Text):
            assert isinstance(text, Text)
            files = [path for c in dict.fromkeys(text.get_text()) if (path := font_of(c)) not in (None, BASE)]
            if files:  # a browser finds such fonts itself, a picture has to be drawn with them
                families = [family_of(path) for path in dict.fromkeys(files) if path is not None]
                text.set_fontfamily([*text.get_fontfamily(), *families])
        FigureCanvasAgg(figure).print_figure(data, format="png", dpi=dpi, facecolor="white")
    return data.getvalue()


def _envelope(curve: Curve) -> Curve:
    """The corners of the monotone envelope, from recall 0 to precision 0 at the last recall."""
    recall, precision = curve
    if not recall.any():
        return np.zeros(1), np.zeros(1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    # Each level holds between the previous recall and its own.
    levels, first = np.unique(recall[recall > 0], return_index=True)
    heights = best[recall > 0][first]
    left = np.concatenate([[0.0], levels[:-1]])
    x = np.append(np.column_stack([left, levels]).ravel(), levels[-1])
    return x, np.append(np.repeat(heights, 2), 0.0)


@contextlib.contextmanager
def _quiet_glyphs() -> Iterator[None]:
    """Suppress warnings about characters missing in the font: a browser takes them from another font."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from")
        yield
