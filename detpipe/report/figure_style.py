"""The style of all figures: colours, fonts and lines; and shortened names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter, PercentFormatter

from detpipe.report.drawing import class_colour

INK, FAINT = "#010203", "#010204"
"""Placeholders that `to_svg` replaces by the text colour of the page. Unreplaced, they look black."""
ACCENT, SECOND = "#3b6fe0", "#e0702b"
STYLE: dict[Any, Any] = {
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlesize": 10,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.linewidth": 0.6,
    "axes.grid": True,
    "grid.color": FAINT,
    "grid.alpha": 0.14,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "svg.fonttype": "none",  # text stays text: small, searchable, in any font of the reader
    "svg.hashsalt": "detpipe",  # equal figures give equal bytes
    "text.parse_math": False,  # a class name may contain "$"
}
"""matplotlib settings for all figures, used with `matplotlib.rc_context`."""


WIDTH = 5.2
"""Width of a figure in inches: its text is readable on a screen of 400 pixels, and not too large on a wide one."""
HALF = 2.5
"""Width of a small figure in inches: two are next to each other on a screen of 400 pixels."""


def one_panel(width: float, height: float, draw: Callable[[Axes], None]) -> Figure:
    """A figure of this size in inches with one panel, which `draw` fills."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure.add_subplot())
        return figure


def share_axis(axes: Axes, *, percent: bool = True) -> None:
    """A y axis from 0 to 1 for shares, which the lines may touch. Call it after the lines are drawn.

    percent: label it in percent.
    """
    axes.set_ylim(0, 1)
    for line in axes.lines:
        line.set_clip_on(False)  # else a line at the edge of the panel would be half as wide
    if percent:
        axes.yaxis.set_major_formatter(PercentFormatter(1))


def legend(axes: Axes, columns: int = 3) -> None:
    """Add a legend above the axes, where it covers no line, if there are labels."""
    handles, labels = axes.get_legend_handles_labels()
    if labels:
        # Filled by rows, as text is read; matplotlib fills columns.
        rows = -(-len(labels) // columns)
        order = [i for column in range(columns) for i in range(column, len(labels), columns)] if rows > 1 else None
        pairs = [(handles[i], labels[i]) for i in order or range(len(labels))]
        axes.legend(
            *zip(*pairs, strict=True),
            loc="lower left",
            bbox_to_anchor=(0.0, 1.0),
            ncols=columns,
            fontsize=9,
            columnspacing=1.2,
            borderaxespad=0.3,
        )


def plain_log_axis(axes: Axes) -> None:
    """Plain numbers at the decades of the y axis: matplotlib's labels are formulas, which our style turns off."""
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def hex_colour(label: int) -> str:
    """The colour of label 1..K as "#rrggbb"."""
    return "#{:02x}{:02x}{:02x}".format(*class_colour(label))


def short_name(name: str, length: int) -> str:
    """A name of at most `length` characters without control characters and lone surrogates, which XML forbids."""
    clean = "".join(c if c.isprintable() else " " for c in name.encode("utf-8", "replace").decode("utf-8"))
    return clean if len(clean) <= length else clean[: length - 1] + "…"
