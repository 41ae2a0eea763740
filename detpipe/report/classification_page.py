"""The page of an image classifier: accuracy, confusion matrix, calibration, and all classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from detpipe.metrics.classification import Calibration, ClassificationMetrics
from detpipe.report import page
from detpipe.report.figure_style import ACCENT, INK, SECOND, STYLE, WIDTH, legend, share_axis, short_name
from detpipe.report.text_table import number
from detpipe.report.training_figure import has_curves, single_values, training_figure
from detpipe.storage.atomic import write_text

MOST_CONFUSED = 30
MAX_NAMED = 40
"""With more classes than this, names on the axes are unreadable and left out."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassificationPage:
    """The content of the page. subtitle: the database. log_rows: of the training log, empty for pretrained weights."""

    subtitle: str
    metrics: ClassificationMetrics
    log_rows: Sequence[Mapping[str, Any]] = field(default=())


def write_classification_page(path: Path, data: ClassificationPage) -> None:
    """Write the page to `path` atomically."""
    write_text(path, render(data))


def render(data: ClassificationPage) -> str:
    """The page as HTML. Without images it says so."""
    metrics = data.metrics
    if not metrics.confusion.sum():
        return page.render("classification.html", data.subtitle, figures=None)
    numbers = {
        "images": f"{int(metrics.confusion.sum()):,}",
        "top-1": number(metrics.top1),
        "top-5": number(metrics.top5),
        "loss": number(metrics.loss),
        "ECE": number(metrics.calibration.ece),
    }
    order = [label for label in metrics.per_class.argsort(kind="stable") if metrics.images[label]]
    return page.render(
        "classification.html",
        data.subtitle,
        numbers=numbers,
        figures={
            "confusion": confusion_figure(metrics),
            "calibration": calibration_figure(metrics.calibration),
            "loss": training_figure(data.log_rows, progress=False)
            if has_curves(data.log_rows, progress=False)
            else None,
        },
        single=single_values(data.log_rows),
        confused=[(metrics.classes[label], metrics.classes[chosen], n) for label, chosen, n in metrics.confused()],
        most_confused=MOST_CONFUSED,
        classes=[  # the worst first
            (metrics.classes[label], f"{int(metrics.images[label]):,}", number(float(metrics.per_class[label])))
            for label in order
        ],
    )


def confusion_figure(metrics: ClassificationMetrics) -> Figure:
    """The confusion matrix: a row per label, a column per predicted class, coloured by the share of the label's images.

    Classes are in label order; classes without images and predictions are left out.
    """
    there = np.flatnonzero(metrics.confusion.sum(axis=0) + metrics.images)
    counts = metrics.confusion[np.ix_(there, there)].astype(np.float64)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 4.8), layout="constrained")
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
        axes.set(xlabel="predicted", ylabel="label")
        return figure


def calibration_figure(calibration: Calibration) -> Figure:
    """Accuracy over confidence, with the diagonal of a calibrated classifier, and a histogram of the confidence."""
    middles = (calibration.edges[1:] + calibration.edges[:-1]) / 2
    width = 0.9 / len(middles)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 4.6), layout="constrained")
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        upper.plot([0, 1], [0, 1], color=INK, linewidth=1, alpha=0.5, label="calibrated")
        there = calibration.images > 0
        upper.bar(middles[there], calibration.accuracy[there], width=width, color=ACCENT, alpha=0.35)
        upper.plot(calibration.confidence[there], calibration.accuracy[there], "o-", color=SECOND, label="measured")
        upper.set(ylabel="accuracy", xlim=(0, 1))
        share_axis(upper, percent=False)
        legend(upper)
        lower.bar(middles, calibration.images, width=width, color=ACCENT)
        lower.set(xlabel="confidence", ylabel="images")
        return figure
