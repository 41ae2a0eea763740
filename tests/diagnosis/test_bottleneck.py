"""What limits a detector: three scenes with the answer written by hand."""

from __future__ import annotations

import numpy as np
import pytest

from detpipe.diagnosis.bottleneck import Bottleneck, Lever, TestObjects, bottleneck, examine
from detpipe.metrics.bootstrap import Resampled
from detpipe.structures import Detections, GroundTruth, ImageId

IMAGES, RESAMPLES = 30, 200


def constant(value: float) -> Resampled:
    return Resampled(np.full(1, value), np.full((RESAMPLES, 1), value))


def objects(covered: list[bool], found: list[float], sides: list[float] | None = None) -> TestObjects:
    """Each of IMAGES images has all of these objects, of class 1."""
    n = len(covered)
    return TestObjects(
        images=np.repeat(np.arange(IMAGES), n),
        labels=np.ones(IMAGES * n, dtype=np.int64),
        sides=np.tile(np.array(sides if sides is not None else range(1, n + 1), dtype=np.float64), IMAGES),
        covered=np.tile(np.array(covered, dtype=np.bool_), IMAGES),
        found=np.tile(np.array(found), IMAGES),
    )


def limits(accuracy: float, doubling: Resampled, of: TestObjects) -> Bottleneck:
    return bottleneck(constant(accuracy), doubling, of, images=IMAGES, resamples=RESAMPLES, seed=0)


def test_more_labels():
    found = limits(0.6, constant(0.2), objects([True] * 3, [0.5] * 3))
    assert found.gains[Lever.proposals].value[0] == 0
    assert found.gains[Lever.pixels].value[0] == pytest.approx(0)
    assert found.best is Lever.labels
    assert found.certain
    assert found.as_good == ()


def test_better_proposals():
    """Half of the objects are covered: mAP 0.4 would be 0.8."""
    found = limits(0.4, constant(0.01), objects([True, False] * 3, [1.0, 0.0] * 3))
    assert found.proposal_recall.value[0] == 0.5
    assert found.gains[Lever.proposals].value[0] == pytest.approx(0.4)
    assert found.best is Lever.proposals


def test_more_pixels():
    """The largest third is found always, all objects half of the time: mAP 0.4 would be 0.8."""
    found = limits(0.4, constant(0.01), objects([True] * 3, [0.2, 0.3, 1.0]))
    assert [one.name for one in found.sizes] == ["small", "medium", "large"]
    assert [one.side for one in found.sizes] == [1, 2, 3]
    assert found.gains[Lever.pixels].value[0] == pytest.approx(0.4)
    assert found.best is Lever.pixels


def test_a_gain_is_at_most_what_is_missing():
    found = limits(0.8, constant(0.0), objects([True, False] * 3, [1.0, 0.0] * 3))
    assert found.gains[Lever.proposals].value[0] == pytest.approx(0.2)


def test_two_that_can_not_be_told_apart():
    wide = Resampled(np.array([0.2]), np.linspace(0.05, 0.45, RESAMPLES)[:, None])
    found = limits(0.5, wide, objects([True, True, True, True, True, False], [1.0] * 5 + [0.0]))
    assert found.best is Lever.labels
    assert found.as_good == (Lever.proposals,)  # 0.1
    assert found.gains[Lever.pixels].value[0] == 0


def test_nothing_is_certain():
    unsure = Resampled(np.array([0.02]), np.linspace(-0.1, 0.1, RESAMPLES)[:, None])
    found = limits(0.9, unsure, objects([True] * 3, [0.9] * 3))
    assert found.best is Lever.labels
    assert not found.certain
    flat = limits(0.9, constant(-0.01), objects([True] * 3, [0.9] * 3))
    assert (flat.best, flat.certain, flat.as_good) == (None, False, ())


def test_without_objects_nothing_is_known():
    found = limits(float("nan"), constant(float("nan")), objects([], []))
    assert found.sizes == ()
    assert found.best is None
    assert all(np.isnan(gain.value[0]) for gain in found.gains.values())


def test_the_facts_of_each_object():
    truth: dict[ImageId, GroundTruth] = {
        "a": GroundTruth.from_boxes([[0, 0, 10, 10], [20, 20, 30, 60]], [1, 2]),
        "b": GroundTruth.from_boxes([], []),
        "c": GroundTruth.from_boxes([[0, 0, 40, 10]], [1]),
    }
    regions = {"a": np.array([[0, 0, 10, 10], [20, 20, 30, 30]], np.float32)}  # the second object by a quarter
    hit = Detections(np.array([[0, 0, 10, 10]], np.float32), np.array([0.9], np.float32), np.array([1]))
    facts = examine(truth, regions, [{"a": hit}, {}], {"a": 2.0, "b": 1.0, "c": 0.5})
    assert facts.images.tolist() == [0, 0, 2]
    assert facts.labels.tolist() == [1, 2, 1]
    assert facts.sides.tolist() == [20, 40, 10]
    assert facts.covered.tolist() == [True, False, False]
    assert facts.found.tolist() == [0.5, 0, 0]


def test_difficult_objects_are_left_out():
    plain = GroundTruth.from_boxes([[0, 0, 10, 10], [20, 0, 30, 10]], [1, 1])
    truth: dict[ImageId, GroundTruth] = {
        "a": GroundTruth(plain.boxes, plain.labels, np.array([True, False]), np.array([False, False]), plain.areas)
    }
    facts = examine(truth, {}, [], {"a": 1.0})
    assert (len(facts.images), facts.found.tolist()) == (1, [0])
