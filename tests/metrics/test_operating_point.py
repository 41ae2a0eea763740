"""The score where precision and recall balance best, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from detpipe.metrics.operating_point import best_f1
from detpipe.structures import Detections, GroundTruth

CAT, DOG, NOWHERE = [0, 0, 10, 10], [20, 0, 30, 10], [60, 60, 70, 70]
TWO = {"a": GroundTruth.from_boxes([CAT, DOG], [1, 2]), "b": GroundTruth.from_boxes([], [])}


def found(*rows: tuple[float, list[float], int]) -> Detections:
    return Detections(
        np.array([box for _, box, _ in rows], np.float32).reshape(-1, 4),
        np.array([score for score, _, _ in rows], np.float32),
        np.array([label for _, _, label in rows], np.int64),
    )


def test_the_cut_after_the_last_right_one():
    # F1 after each: 2/3, 1/2, 4/5, 2/3.
    rows = found((0.9, CAT, 1), (0.8, NOWHERE, 1), (0.7, DOG, 2), (0.6, NOWHERE, 2))
    point = best_f1(TWO, {"a": rows})
    assert point is not None
    assert point.score == pytest.approx(0.7)
    assert (point.precision, point.recall) == (pytest.approx(2 / 3), 1)


def test_a_score_does_not_cut_between_equals():
    # The wrong one in b has the score of the right one in a: both are shown or none.
    point = best_f1(TWO, {"a": found((0.5, CAT, 1)), "b": found((0.5, NOWHERE, 1))})
    assert point is not None
    assert point.precision == pytest.approx(0.5)


def test_nothing_right_has_no_point():
    assert best_f1(TWO, {}) is None
    assert best_f1(TWO, {"a": found((0.9, NOWHERE, 1))}) is None
    assert best_f1({}, {}) is None
