"""Uncertainty near the threshold, and disagreement between proposer and classifier, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from detpipe.labels.uncertainty import (
    RANKS,
    disagreement,
    image_uncertainty,
    objectness_of,
    rank_objectness,
    uncertainties,
)
from detpipe.structures import Detections, GroundTruth

A, B, C = [0, 0, 10, 10], [20, 0, 30, 10], [0, 20, 10, 30]


def found(*rows: tuple[list[int], float, int]) -> Detections:
    return Detections(
        np.array([box for box, _, _ in rows], np.float32).reshape(-1, 4),
        np.array([score for _, score, _ in rows], np.float32),
        np.array([label for _, _, label in rows], np.int64),
    )


def boxes(*rows: list[int]) -> np.ndarray:
    return np.array(rows, np.float32).reshape(-1, 4)


def test_uncertain_at_the_threshold_certain_at_the_ends() -> None:
    """Threshold 0.4: 1.0 -> 0, 0.7 -> 0.3 / 0.6, 0.4 -> 1, 0.1 -> 0.1 / 0.4."""
    values = uncertainties(found((A, 1.0, 1), (B, 0.7, 1), (C, 0.4, 1), ([50, 50, 60, 60], 0.1, 1)), 0.4)
    assert values.tolist() == pytest.approx([0, 0.5, 1, 0.25], abs=1e-6)


def test_two_classes_at_one_place() -> None:
    """0.9 of a cat and 0.6 of a dog: 0.6 / 0.9, once. The dog elsewhere is certain."""
    values = uncertainties(found((A, 0.9, 1), (B, 0.9, 2), (A, 0.6, 2)), 0.5)
    assert values.tolist() == pytest.approx([2 / 3, 0.2, 0], abs=1e-6)


def test_below_the_threshold_another_class_says_nothing() -> None:
    assert uncertainties(found((A, 0.1, 1), (A, 0.1, 2)), 0.5).tolist() == pytest.approx([0.2, 0], abs=1e-6)


def test_of_an_image_the_most_uncertain_count() -> None:
    assert image_uncertainty(np.array([1.0, 0.5])) == pytest.approx(0.3)
    assert image_uncertainty(np.ones(30)) == 1
    assert image_uncertainty(np.zeros(0)) == 0
    assert uncertainties(found(), 0.5).tolist() == []


def test_an_object_that_the_classifier_does_not_see() -> None:
    """Regions A, B, C with objectness 0.9, 0.6, 0.1. A is detected; B is called background with 0.5."""
    one = disagreement(
        boxes(A, B, C), np.array([0.1, 0.5, 1.0], np.float32), np.array([0.9, 0.6, 0.1]), found((A, 0.8, 1)), 0.5
    )
    assert (one.missed, one.region) == (pytest.approx(0.3), 1)
    assert (one.unexpected, one.detection) == (pytest.approx(0.8 * 0.1), 0)


def test_an_object_that_the_proposer_does_not_expect() -> None:
    one = disagreement(
        boxes(A, C), np.array([0.0, 0.2], np.float32), np.array([0.9, 0.1]), found((A, 0.9, 1), (C, 0.8, 2)), 0.5
    )
    assert (one.unexpected, one.detection) == (pytest.approx(0.8 * 0.9), 1)


def test_detections_below_the_threshold_are_no_answer() -> None:
    one = disagreement(boxes(A), np.array([0.6], np.float32), np.array([0.5]), found((A, 0.4, 1)), 0.5)
    assert (one.missed, one.unexpected, one.detection) == (pytest.approx(0.3), 0, -1)


def test_without_regions_there_is_none() -> None:
    one = disagreement(boxes(), np.zeros(0, np.float32), np.zeros(0), found(), 0.5)
    assert (one.missed, one.region, one.unexpected, one.detection) == (0, -1, 0, -1)


def test_objectness_by_rank() -> None:
    """Rank 0 covers an object in one of two images; rank 1 in both, which is not more than rank 0; rank 2 in none."""
    truth = GroundTruth.from_boxes([A], [1])
    shares = rank_objectness([(boxes(A, A, B), truth), (boxes(B, A, B), truth)])
    assert shares[:3].tolist() == [0.5, 0.5, 0]
    assert objectness_of(shares, 4).tolist() == [0.5, 0.5, 0, 0]
    assert rank_objectness([]).tolist() == [0] * len(RANKS)
    assert rank_objectness([(boxes(A), GroundTruth.from_boxes([], []))])[0] == 0
