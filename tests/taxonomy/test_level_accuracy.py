"""Accuracy per level, counted by hand."""

from __future__ import annotations

import pytest

from detpipe.structures import GroundTruth
from detpipe.taxonomy.level_accuracy import Level, level_accuracy
from tests.taxonomy.test_class_tree import CLASSES, TREE
from tests.taxonomy.test_individuals import FAR, HERE, NEAR, detections

RED, ROE, FOX, BIRD = 1, 2, 3, 4


def test_by_hand() -> None:
    truth = {
        "1": GroundTruth.from_boxes([HERE, FAR], [RED, BIRD]),
        "2": GroundTruth.from_boxes([HERE], [FOX]),
        "3": GroundTruth.from_boxes([HERE], [FOX]),
    }
    found = {
        # Roe deer by a little: the family is right. A second box of the deer finds nothing.
        "1": detections((NEAR, 0.5, ROE), (HERE, 0.25, RED), (HERE, 0.125, ROE), (FAR, 0.5, BIRD)),
        "2": detections((HERE, 0.5, ROE)),
        "3": detections((HERE, 0.25, FOX), (FAR, 0.5, FOX)),
    }
    result = level_accuracy(truth, found, CLASSES, TREE, threshold=0.7, min_score=0.5)
    assert (result.objects, result.found) == (4, 3)
    assert result.levels == (
        Level("species", names=4, counted=3, right=1, answers=2, answers_right=1),  # bird; roe deer for the fox
        Level("family", names=2, counted=2, right=1, answers=1, answers_right=1),  # deer; the bird has no family
        Level("class", names=2, counted=3, right=3, answers=0, answers_right=0),
    )
    assert result.to_json()["levels"][1]["accuracy"] == pytest.approx(0.5)


def test_nothing() -> None:
    result = level_accuracy({}, {}, CLASSES, TREE, threshold=0.7, min_score=0.5)
    assert (result.objects, result.found) == (0, 0)
    assert [one.accuracy for one in result.levels] == [None, None, None]
    truth = {"1": GroundTruth.from_boxes([HERE], [RED])}
    assert level_accuracy(truth, {}, CLASSES, TREE, threshold=0.7, min_score=0.5).found == 0
