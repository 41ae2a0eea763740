"""The page of an image classifier: its numbers, confusions, calibration, and every class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from detpipe.metrics.classification import ClassificationMetrics
from detpipe.report import page
from detpipe.report.classification_figures import calibration_figure, confusion_figure
from detpipe.report.curves import loss_figure
from detpipe.report.text_table import number
from detpipe.storage.atomic import write_text

MOST_CONFUSED = 30


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassificationPage:
    """What the page shows. subtitle: the database. log_rows: of the training, none for a network as shipped."""

    subtitle: str
    metrics: ClassificationMetrics
    log_rows: Sequence[Mapping[str, Any]] = field(default=())


def write_classification_page(path: Path, data: ClassificationPage) -> None:
    """Write the page to `path`, whole or not at all."""
    write_text(path, render(data))


def render(data: ClassificationPage) -> str:
    """The page as HTML; without images it says so."""
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
            "loss": loss_figure(data.log_rows) if data.log_rows else None,
        },
        confused=[(metrics.classes[label], metrics.classes[chosen], n) for label, chosen, n in metrics.confused()],
        most_confused=MOST_CONFUSED,
        classes=[  # the worst first
            (metrics.classes[label], f"{int(metrics.images[label]):,}", number(float(metrics.per_class[label])))
            for label in order
        ],
    )
