"""What an overlap is worth, and means over groups: by hand."""

from __future__ import annotations

import numpy as np
import pytest

from detpipe.metrics.recall_measures import MEASURES, mean_of_groups, reached

BEST = np.array([[0.5], [0.8], [0.0], [0.7]], np.float32)
LABELS = np.array([1, 1, 2, 2])


def test_by_hand():
    numbers = {name: measure.mean(BEST, LABELS).item() for name, measure in MEASURES.items()}
    assert numbers == pytest.approx(
        {"recall@0.5": 3 / 4, "recall@0.7": 2 / 4, "abo": 2 / 4, "mabo": (0.65 + 0.35) / 2, "ar": 2 * 0.5 / 4}
    )


def test_classes_weigh_the_same_whatever_their_number():
    best = np.array([[1.0], [1.0], [1.0], [0.0]], np.float32)
    labels = np.array([1, 1, 1, 7])
    assert MEASURES["abo"].mean(best, labels).tolist() == [0.75]
    assert MEASURES["mabo"].mean(best, labels).tolist() == [0.5]


def test_a_threshold_is_float32_as_the_overlap_is():
    best = np.array([[0.7]], np.float32).astype(np.float64)
    assert best[0, 0] < 0.7
    assert reached(best, 0.7).tolist() == [[1]]
    assert reached(best, np.array([0.5, 0.7, 0.71])).tolist() == [[1, 1, 0]]


def test_of_nothing_is_not_a_number():
    assert np.isnan(mean_of_groups(np.zeros((0, 3)), np.zeros(0, np.int64))).tolist() == [True] * 3
    for measure in MEASURES.values():
        assert np.isnan(measure.mean(np.zeros((0, 2), np.float32), np.zeros(0, np.int64))).all()
