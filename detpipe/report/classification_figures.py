"""Figures of an image classifier: confusions and calibration. `curves.to_svg` and `to_png` give their pictures."""

from __future__ import annotations

import matplotlib
import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from detpipe.metrics.classification import Calibration, ClassificationMetrics
from detpipe.report.figure_style import ACCENT, INK, SECOND, STYLE, legend, short_name

MAX_NAMED = 40
"""With more classes than this, names on the axes could not be read."""


def confusion_figure(metrics: ClassificationMetrics) -> Figure:
    """A row a label, a column what was chosen; colour is the share of the label's images. Rows without images are bare.

    Classes are in label order; classes that are neither a label nor chosen are left out.
    """
    there = np.flatnonzero(metrics.confusion.sum(axis=0) + metrics.images)
    counts = metrics.confusion[np.ix_(there, there)].astype(np.float64)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7, 6.2), layout="constrained")
        axes = figure.add_subplot()
        axes.grid(visible=False)
        colours = LinearSegmentedColormap.from_list("share", ["#3b6fe000", ACCENT])
        if len(there):
            shown = axes.imshow(shares, cmap=colours, vmin=0, vmax=1, interpolation="nearest")
            figure.colorbar(shown, ax=axes, format=PercentFormatter(1), shrink=0.7, label="of the label's images")
        if 0 < len(there) <= MAX_NAMED:
            names = [short_name(metrics.classes[label], 20) for label in there]
            axes.set_xticks(range(len(there)), names, rotation=90, fontsize=8)
            axes.set_yticks(range(len(there)), names, fontsize=8)
        axes.set(xlabel="chosen", ylabel="label")
        return figure


def calibration_figure(calibration: Calibration) -> Figure:
    """Accuracy over confidence, with the diagonal of a calibrated classifier, and how many images are how sure."""
    middles = (calibration.edges[1:] + calibration.edges[:-1]) / 2
    width = 0.9 / len(middles)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7, 4.6), layout="constrained")
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        upper.plot([0, 1], [0, 1], color=INK, linewidth=1, alpha=0.5, label="calibrated")
        there = calibration.images > 0
        upper.bar(middles[there], calibration.accuracy[there], width=width, color=ACCENT, alpha=0.35)
        upper.plot(calibration.confidence[there], calibration.accuracy[there], "o-", color=SECOND, label="measured")
        upper.set(ylabel="accuracy", xlim=(0, 1), ylim=(0, 1.02))
        legend(upper)
        lower.bar(middles, calibration.images, width=width, color=ACCENT)
        lower.set(xlabel="confidence", ylabel="images")
        return figure
