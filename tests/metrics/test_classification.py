"""Top-1, top-5, loss, confusions and calibration: by hand, against torch, and empty."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from detpipe.metrics.classification import BINS, calibrate, classification_metrics

NAMES = ("a", "b", "c", "d", "e", "f", "g")


def test_by_hand() -> None:
    """Three images: right, second, and sixth of seven."""
    logits = np.array(
        [[9, 0, 0, 0, 0, 0, 0], [5, 4, 0, 0, 0, 0, 0], [6, 5, 4, 3, 2, 1, 0]],
        dtype=np.float32,
    )
    metrics = classification_metrics(logits, np.array([0, 1, 5]), NAMES)
    assert metrics.top1 == pytest.approx(1 / 3)
    assert metrics.top5 == pytest.approx(2 / 3)
    assert metrics.images.tolist() == [1, 1, 0, 0, 0, 1, 0]
    assert metrics.per_class[[0, 1, 5]].tolist() == [1, 0, 0]
    assert np.isnan(metrics.per_class[2])
    assert metrics.confused() == [(1, 0, 1), (5, 0, 1)]
    content = metrics.to_json(1.5)
    assert content["top1"] == 0.333333
    assert content["per_class"]["b"] == {"accuracy": 0.0, "images": 1}
    assert "c" not in content["per_class"]
    assert "top-1 0.3333" in metrics.to_text()


@given(st.integers(0, 100), st.integers(1, 8), st.integers(1, 30))
def test_equals_torch(seed: int, n_classes: int, count: int) -> None:
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 5, (count, n_classes)).astype(np.float32)
    labels = generator.integers(0, n_classes, count)
    metrics = classification_metrics(logits, labels, [str(label) for label in range(n_classes)])
    wanted = torch.from_numpy(logits)
    top5 = wanted.topk(min(5, n_classes), dim=1).indices.numpy()
    assert metrics.top5 == pytest.approx((top5 == labels[:, None]).any(axis=1).mean())
    assert metrics.top1 == pytest.approx((logits.argmax(axis=1) == labels).mean())
    loss = torch.nn.functional.cross_entropy(wanted.double(), torch.from_numpy(labels))
    assert metrics.loss == pytest.approx(float(loss))
    assert metrics.confusion.sum() == count
    assert 0 <= metrics.calibration.ece <= 1


def test_equal_logits_choose_the_first() -> None:
    metrics = classification_metrics(np.zeros((7, 7), np.float32), np.arange(7), NAMES)
    assert metrics.top1 == pytest.approx(1 / 7)
    assert metrics.top5 == 1.0
    assert metrics.loss == pytest.approx(math.log(7))


def test_large_logits_do_not_overflow() -> None:
    metrics = classification_metrics(np.array([[1e30, 0.0]], np.float32), np.array([0]), ("a", "b"))
    assert metrics.loss == 0.0


def test_calibration_by_hand() -> None:
    """Two bins: 0.62 sure and right half of the time, 0.95 sure and always right."""
    confidence = np.array([0.62, 0.62, 0.95, 0.95])
    found = calibrate(confidence, np.array([True, False, True, True]))
    assert found.images.sum() == 4
    assert found.images[int(0.62 * BINS)] == 2
    assert found.accuracy[int(0.62 * BINS)] == 0.5
    assert found.ece == pytest.approx((2 * 0.12 + 2 * 0.05) / 4)
    # Edges belong to the bin below; 0 and 1 to the first and the last.
    edges = calibrate(np.array([0.0, 1 / BINS, 1.0]), np.array([True] * 3))
    assert edges.images[0] == 2
    assert edges.images[-1] == 1


def test_no_images() -> None:
    for shape in ((0, 0), (0, 2)):
        metrics = classification_metrics(np.zeros(shape, np.float32), np.zeros(0, np.int64), ("a", "b"))
        content = metrics.to_json(0.0)
        assert [content[name] for name in ("top1", "top5", "loss", "ece", "images")] == [None, None, None, None, 0]
        assert metrics.confusion.shape == (2, 2)


@pytest.mark.parametrize(
    ("logits", "labels", "expected"),
    [
        (np.zeros((2, 3)), [0, 1], "expected logits of shape"),
        (np.zeros((2, 2)), [0, 2], "expected labels in 0..1, got 0 to 2"),
        (np.zeros((2, 2)), [-1, 0], "got -1 to 0"),
        (np.array([[np.nan, 0], [0, 0]]), [0, 1], "training has diverged"),
    ],
)
def test_what_does_not_fit_is_refused(logits: np.ndarray, labels: list[int], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        classification_metrics(logits.astype(np.float32), np.array(labels), ("a", "b"))
