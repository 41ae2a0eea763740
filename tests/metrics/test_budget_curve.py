"""The curve of a detector over the number of proposals: small answers by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from detpipe.metrics.budget_curve import BudgetCurve, StageSeconds, budget_curve, share_of_scoring
from detpipe.metrics.overlap_table import overlap_table
from detpipe.structures import Dataset, Detections, GroundTruth, ImageId, ImageRecord, Proposals

TRUTH: dict[ImageId, GroundTruth] = {
    "a": GroundTruth.from_boxes([[0, 0, 10, 10]], [1]),
    "b": GroundTruth.from_boxes([[0, 0, 10, 10]], [1]),
}
BOXES = np.array([[20, 20, 30, 30], [0, 0, 10, 10]], dtype=np.float32)


def found(*boxes: int) -> Detections:
    n = len(boxes)
    return Detections(BOXES[list(boxes)], np.linspace(1, 0.5, n, dtype=np.float32), np.ones(n, np.int64))


def curve(
    detections: dict[int, dict[ImageId, Detections]],
    truth: dict[ImageId, GroundTruth] | None = TRUTH,
    tolerance: float = 0.01,
    propose: float = 0.5,
) -> BudgetCurve:
    """Of images with two proposals each, the second of which is the object: two unless `truth` has others."""
    records = tuple(ImageRecord(name, Path(f"{name}.jpg"), (40, 40)) for name in truth or {})
    dataset = Dataset("drawn", ("thing",), (1,), records, truth)
    proposals = {name: Proposals(BOXES, np.array([1, 0.5], np.float32)) for name in truth or {}}
    table = overlap_table(truth or {}, proposals, 1, [1, 2, 4])
    seconds = {budget: StageSeconds(propose, float(budget), 0.25) for budget in detections}
    return budget_curve(dataset, table, detections, seconds, resamples=20, seed=0, tolerance=tolerance)


def test_by_hand():
    """One object of two found with one box, both with two; with four a wrong one of a higher score as well."""
    of_one = {"a": found(1), "b": found()}
    of_two = {"a": found(1), "b": found(1)}
    of_four = {"a": found(0, 1), "b": found(1)}
    made = curve({4: of_four, 1: of_one, 2: of_two})
    assert [point.budget for point in made.points] == [1, 2, 4]
    assert [point.map.value.item() for point in made.points] == pytest.approx([0.5, 1, 2 / 3])
    assert [point.ar for point in made.points] == pytest.approx([0.5, 1, 1])
    assert [point.proposal_ar.value.item() for point in made.points] == [0, 1, 1]
    assert [point.proposals for point in made.points] == [1, 2, 2]
    assert [point.seconds.all for point in made.points] == [1.75, 2.75, 4.75]
    assert made.best is made.fewest is made.points[1]
    assert json.loads(json.dumps(made.to_json()))["fewest"] == 2


def test_the_fewest_boxes_within_the_tolerance():
    half, whole = {"a": found(1), "b": found()}, {"a": found(1), "b": found(1)}
    detections = {1: half, 2: whole, 4: whole}
    assert [made.budget for made in (curve(detections).best, curve(detections).fewest) if made] == [2, 2]
    generous = curve(detections, tolerance=0.5)  # 0.5 is at least half of 1
    assert (generous.best.budget, generous.fewest.budget) == (2, 1)


def test_a_method_whose_time_is_not_known():
    (point,) = curve({1: {}}, propose=math.nan).points
    assert point.seconds.all == 1.25
    assert point.to_json()["seconds"] == {"propose": None, "score": 1, "select": 0.25, "all": 1.25}


def test_nothing_to_find():
    for truth in ({}, {"a": GroundTruth.from_boxes([], [])}):
        made = curve({1: {}, 2: {}}, truth)
        assert made.best is made.fewest is None
        assert made.to_json()["fewest"] is None
        assert made.to_json()["points"][0]["map"]["value"] is None
    assert curve({}).points == ()
    with pytest.raises(ValueError, match="expected annotations"):
        curve({1: {}}, None)


def test_the_share_of_scoring_lies_on_a_line():
    """0.2 s with one region, 1.2 s with 101: 0.01 s a region, and 0.19 s for the image."""
    assert share_of_scoring((1, 0.2), (101, 1.2), 51) == pytest.approx(0.7)
    assert share_of_scoring((1, 0.2), (101, 1.2), 101) == 1.2
    assert share_of_scoring((1, 0.2), (101, 0.1), 51) == 0.1  # noise: level
    assert share_of_scoring((1, 0.2), (1, 0.3), 1) == 0.3
    assert share_of_scoring((0, 0.0), (0, 0.0), 0) == 0


def of_images(n: int, found_in: int) -> BudgetCurve:
    """n images with an object each, which is found in the first `found_in` with two proposals."""
    truth: dict[ImageId, GroundTruth] = {str(k): TRUTH["a"] for k in range(n)}
    return curve({2: {str(k): found(1) for k in range(found_in)}}, truth)


def test_few_images_cannot_tell():
    # All 14 found: the interval is 1 to 1, but 3 of 14 is more than 0.2 (rule of three).
    assert of_images(14, 14).too_few_images
    assert not of_images(15, 15).too_few_images
    # Half found: the mAP of 20 images is uncertain by more than 0.2, that of 300 is not.
    assert of_images(20, 10).too_few_images
    assert not of_images(300, 150).too_few_images
    assert of_images(20, 10).to_json()["too_few_images"] is True
    assert of_images(15, 15).to_json()["images_with_objects"] == 15


def test_images_without_objects_do_not_count():
    truth: dict[ImageId, GroundTruth] = {str(k): GroundTruth.from_boxes([], []) for k in range(30)} | TRUTH
    made = curve({2: {name: found(1) for name in "ab"}}, truth)
    assert made.images == 2
    assert made.too_few_images
