"""The page of an image classifier: its numbers, confusions, calibration, and every class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from detpipe.metrics.classification import ClassificationMetrics
from detpipe.report.classification_figures import calibration_figure, confusion_figure
from detpipe.report.curves import loss_figure, to_svg
from detpipe.report.markup import number, paragraph, table
from detpipe.report.page import page
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
        return page("Classifier", data.subtitle, paragraph("There are no images to test on.", "none"), {})
    numbers = {
        "images": f"{int(metrics.confusion.sum()):,}",
        "top-1": number(metrics.top1),
        "top-5": number(metrics.top5),
        "loss": number(metrics.loss),
        "ECE": number(metrics.calibration.ece),
    }
    parts = {
        "Confusions": _plot(to_svg(confusion_figure(metrics), "confusion")) + _confused(metrics),
        "Calibration": _plot(to_svg(calibration_figure(metrics.calibration), "calibration"))
        + paragraph("ECE: how far accuracy and confidence lie apart, over images (Guo et al. 2017).", "note"),
        "Training": _plot(to_svg(loss_figure(data.log_rows), "loss")) if data.log_rows else "",
        "Classes": _classes(metrics),
    }
    head = table(list(numbers), [list(numbers.values())])
    return page("Classifier", data.subtitle, head, {name: part for name, part in parts.items() if part})


def _plot(svg: str) -> str:
    return f'<div class="plot">{svg}</div>'


def _confused(metrics: ClassificationMetrics) -> str:
    pairs = metrics.confused()
    if not pairs:
        return paragraph("Every image was chosen rightly.", "none")
    rows = [(metrics.classes[label], metrics.classes[chosen], count) for label, chosen, count in pairs[:MOST_CONFUSED]]
    more = f"{len(pairs) - MOST_CONFUSED:,} more pairs." if len(pairs) > MOST_CONFUSED else ""
    return table(["label", "chosen", "images"], rows) + (paragraph(more, "note") if more else "")


def _classes(metrics: ClassificationMetrics) -> str:
    """Worst first."""
    order = [label for label in metrics.per_class.argsort(kind="stable") if metrics.images[label]]
    rows = [
        (metrics.classes[label], f"{int(metrics.images[label]):,}", number(float(metrics.per_class[label])))
        for label in order
    ]
    return table(["class", "images", "accuracy"], rows)
