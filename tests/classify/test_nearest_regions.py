"""The region nearest to each object, on regions that can be computed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from detpipe.classify.detect import ScoredRegions
from detpipe.classify.nearest_regions import NearestRegions, nearest_regions
from detpipe.structures import GroundTruth

SIZE = (100, 100)


def scored(*rows: list[float], deltas: np.ndarray | None = None) -> ScoredRegions:
    return ScoredRegions(np.array(rows, np.float32), deltas)


def test_of_the_regions_that_cover_an_object_the_best_score_counts() -> None:
    truth = GroundTruth.from_boxes([[0, 0, 10, 10]], [1])
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 8], [0, 0, 10, 4]], np.float32)
    found = nearest_regions(boxes, scored([0.8, 0.2, 0], [0.1, 0.7, 0.2], [0, 1, 0]), SIZE, truth)
    assert found.boxes.tolist() == [[0, 0, 10, 8]]
    np.testing.assert_allclose([found.scores[0], found.ious[0], found.proposal_ious[0]], [0.7, 0.8, 1.0])


def test_without_one_that_covers_it_the_nearest_counts() -> None:
    truth = GroundTruth.from_boxes([[0, 0, 10, 10]], [2])
    boxes = np.array([[0, 0, 10, 3], [0, 0, 10, 4]], np.float32)
    found = nearest_regions(boxes, scored([0, 0, 0.9], [0, 0, 0.1]), SIZE, truth)
    np.testing.assert_allclose([found.scores[0], found.ious[0], found.proposal_ious[0]], [0.1, 0.4, 0.4])


def test_boxes_are_moved_by_the_deltas_of_the_objects_class() -> None:
    truth = GroundTruth.from_boxes([[10, 0, 20, 10]], [2])
    boxes = np.array([[0, 0, 10, 10]], np.float32)
    deltas = np.zeros((1, 2, 4), np.float32)
    deltas[0, 1, 0] = 1  # by its own width to the right, for class 2 only
    found = nearest_regions(boxes, scored([0.5, 0.1, 0.4], deltas=deltas), SIZE, truth)
    np.testing.assert_allclose(found.boxes, truth.boxes, atol=1e-4)
    np.testing.assert_allclose([found.ious[0], found.proposal_ious[0]], [1, 0], atol=1e-4)


def test_no_regions_and_no_objects() -> None:
    truth = GroundTruth.from_boxes([[0, 0, 10, 10]], [1])
    none = nearest_regions(np.zeros((0, 4), np.float32), scored(deltas=None), SIZE, truth)
    assert none.to_rows() == [[0, 0, 0, 0, 0, 0, 0]]
    boxes = np.array([[0, 0, 10, 3]], np.float32)
    assert len(nearest_regions(boxes, scored([0.5, 0.5]), SIZE, GroundTruth.from_boxes([], []))) == 0


def test_rows_are_read_back() -> None:
    rows = [[0.0, 1.0, 2.0, 3.0, 0.5, 0.25, 0.75]]
    assert NearestRegions.from_rows(rows).to_rows() == rows
    assert NearestRegions.from_rows([]).to_rows() == []
    with pytest.raises(ValueError, match="seven numbers"):
        NearestRegions.from_rows([[1.0]])
