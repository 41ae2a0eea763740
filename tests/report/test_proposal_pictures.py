"""Proposals on pictures: whose box is best, and which colour stands where."""

from __future__ import annotations

import numpy as np
import pytest

from detpipe.report.drawing import GREEN, RED, Colour
from detpipe.report.proposal_pictures import BLUE, best_boxes, draw_proposals
from detpipe.structures import GroundTruth, Image
from tests.metrics.test_proposal_recall import proposals

GREY = np.full((200, 300, 3), 128, np.uint8)
FAR = [150, 150, 190, 190]


def has(picture: Image, colour: Colour) -> bool:
    return bool((picture == colour).all(axis=2).any())


def test_the_best_box_of_each_object():
    truth = GroundTruth.from_boxes([[0, 0, 10, 10], [20, 0, 30, 10], [90, 90, 99, 99], [0, 0, 10, 10]], [1, 2, 1, 1])
    truth.difficult[3] = True
    best = best_boxes(truth, proposals([0, 0, 10, 5], [0, 0, 10, 8], [20, 0, 30, 7], [20, 0, 30, 7]))
    assert best.place.tolist() == [1, 2, -1]
    assert best.overlap == pytest.approx([0.8, 0.7, 0])
    assert best.labels.tolist() == [1, 2, 1]


def test_of_nothing():
    truth = GroundTruth.from_boxes([[0, 0, 10, 10]], [1])
    assert best_boxes(truth, proposals()).place.tolist() == [-1]
    assert best_boxes(truth, proposals()).overlap.tolist() == [0]
    nothing = best_boxes(GroundTruth.from_boxes([], []), proposals([0, 0, 1, 1]))
    assert (len(nothing.objects), nothing.place.shape) == (0, (0,))
    drawn = draw_proposals(GREY, proposals(), nothing, (), top=5, min_iou=0.5)
    assert np.array_equal(drawn, GREY)
    drawn = draw_proposals(GREY, proposals(), best_boxes(truth, proposals()), ("cat",), top=5, min_iou=0.5)
    assert has(drawn, RED)


def test_found_is_green_and_missed_is_red():
    boxes = proposals([10, 10, 90, 90])
    for object_, found in (([10, 10, 90, 80], True), ([10, 10, 90, 40], False), (FAR, False)):
        best = best_boxes(GroundTruth.from_boxes([object_], [1]), boxes)
        drawn = draw_proposals(GREY, boxes, best, ("cat",), top=0, min_iou=0.5)
        assert (has(drawn, GREEN), has(drawn, RED)) == (found, not found)


def test_the_first_boxes_are_blue_with_and_without_annotations():
    boxes = proposals([10, 10, 90, 90], [100, 100, 140, 140])
    nothing = best_boxes(GroundTruth.from_boxes([], []), boxes)
    for best in (None, nothing):
        one = draw_proposals(GREY, boxes, best, (), top=1, min_iou=0.5)
        assert has(one[:95, :95], BLUE)
        assert not has(one[95:, 95:], BLUE)
        assert has(draw_proposals(GREY, boxes, best, (), top=9, min_iou=0.5)[95:, 95:], BLUE)
        assert np.array_equal(draw_proposals(GREY, boxes, best, (), top=0, min_iou=0.5), GREY)
