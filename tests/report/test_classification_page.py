"""The page of a classifier: numbers, figures, hostile names, many classes, no images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from detpipe.metrics.classification import ClassificationMetrics, classification_metrics
from detpipe.report.classification_page import (
    MAX_NAMED,
    ClassificationPage,
    calibration_figure,
    confusion_figure,
    render,
    write_classification_page,
)
from detpipe.report.curves import to_png


def measured(n_classes: int, count: int, *, right: bool = False, first: str = "a") -> ClassificationMetrics:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, n_classes, count)
    logits = generator.normal(size=(count, n_classes)).astype(np.float32)
    if right:
        logits[np.arange(count), labels] = 20
    return classification_metrics(logits, labels, [first, *(f"class {k}" for k in range(1, n_classes))])


def test_the_numbers_stand_on_the_page(tmp_path: Path) -> None:
    metrics = measured(6, 50)
    rows = [{"iteration": 1, "loss": 2.0}, {"iteration": 2, "loss": 1.0, "val_loss": 1.5, "val_accuracy": 0.5}]
    write_classification_page(
        tmp_path / "a.html", ClassificationPage(subtitle="a database", metrics=metrics, log_rows=rows)
    )
    page = (tmp_path / "a.html").read_text()
    for text in (f"{metrics.top1:.3f}", f"{metrics.calibration.ece:.3f}", "a database", "class 5", "Training"):
        assert text in page
    label, chosen, count = metrics.confused()[0]
    assert f"<td>{metrics.classes[label]}</td><td>{metrics.classes[chosen]}</td><td>{count}</td>" in page
    assert page.count("<svg") == 3


def test_a_hostile_name_is_text() -> None:
    page = render(ClassificationPage(subtitle="<b>", metrics=measured(3, 40, first="<script>alert(1)</script>")))
    assert "<script>" not in page
    assert "<b>" not in page


def test_all_right_and_no_images() -> None:
    assert "All images are classified correctly" in render(
        ClassificationPage(subtitle="", metrics=measured(3, 9, right=True))
    )
    assert "There are no images" in render(ClassificationPage(subtitle="", metrics=measured(3, 0)))


@pytest.mark.parametrize("n_classes", [1, 3, MAX_NAMED + 1])
@pytest.mark.parametrize("count", [0, 60])
def test_figures_of_any_size_are_drawn(n_classes: int, count: int) -> None:
    metrics = measured(n_classes, count)
    for figure in (confusion_figure(metrics), calibration_figure(metrics.calibration)):
        assert to_png(figure)[:4] == b"\x89PNG"


def test_classes_that_do_not_occur_take_no_place() -> None:
    """Of a thousand classes with two labels and one more chosen, three rows and columns are drawn."""
    logits = np.zeros((2, 1000), dtype=np.float32)
    logits[0, 5], logits[1, 700] = 1, 1
    metrics = classification_metrics(logits, np.array([5, 9]), [str(k) for k in range(1000)])
    axes = confusion_figure(metrics).axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["5", "9", "700"]
    shown = np.asarray(axes.images[0].get_array())
    assert shown.tolist() == [[1, 0, 0], [0, 0, 1], [0, 0, 0]]
