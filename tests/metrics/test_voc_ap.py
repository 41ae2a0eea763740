"""VOC's average precision: by hand, and against a port of the devkit that knows nothing of our code."""

from __future__ import annotations

import math

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from detpipe.metrics.voc_ap import VocMethod, average_precision, precision_recall, summarize, voc_ap
from detpipe.structures import Detections, GroundTruth
from tests.metrics import devkit

BOTH = pytest.mark.parametrize("method", list(VocMethod))
NOTHING = GroundTruth.from_boxes([], [])


def detections(rows: list[tuple[float, tuple[float, ...]]], label: int = 1) -> Detections:
    rows = sorted(rows, key=lambda row: -row[0])
    return Detections(
        boxes=np.array([box for _, box in rows], np.float32).reshape(-1, 4),
        scores=np.array([score for score, _ in rows], np.float32),
        labels=np.full(len(rows), label, np.int64),
    )


def test_an_answer_by_hand():
    # Three objects; right, wrong, right, and the third is never found:
    # recall 1/3, 1/3, 2/3 and precision 1, 1/2, 2/3; the envelope is 1 up to 1/3 and 2/3 up to 2/3.
    gt = {"a": GroundTruth.from_boxes([(0, 0, 10, 10), (20, 0, 30, 10), (40, 0, 50, 10)], [1, 1, 1])}
    found = {"a": detections([(0.9, (0, 0, 10, 10)), (0.8, (60, 60, 70, 70)), (0.7, (20, 0, 30, 10))])}
    area = voc_ap(gt, found, ["cat"], method=VocMethod.VOC10)
    assert area.per_class["cat"] == pytest.approx(1 / 3 * 1 + 1 / 3 * 2 / 3)
    recall, precision = area.curves["cat"]
    assert recall == pytest.approx([1 / 3, 1 / 3, 2 / 3])
    assert precision == pytest.approx([1, 1 / 2, 2 / 3])
    assert area.objects == {"cat": 3}
    # 11 points: 0, .1, .2, .3 have precision 1; .4, .5, .6 have 2/3; the rest 0.
    points = voc_ap(gt, found, ["cat"], method=VocMethod.VOC07)
    assert points.per_class["cat"] == pytest.approx((4 * 1 + 3 * 2 / 3) / 11)


def test_a_recall_of_exactly_three_tenths_reaches_the_point_three_tenths():
    gt = {"a": GroundTruth.from_boxes([(20 * i, 0, 20 * i + 10, 10) for i in range(10)], [1] * 10)}
    found = {"a": detections([(0.9 - 0.1 * i, (20 * i, 0, 20 * i + 10, 10)) for i in range(3)])}
    assert voc_ap(gt, found, ["cat"], method=VocMethod.VOC07).map == pytest.approx(4 / 11)
    assert voc_ap(gt, found, ["cat"], method=VocMethod.VOC10).map == pytest.approx(0.3)


@BOTH
def test_all_found_is_one_and_nothing_found_is_zero(method: VocMethod):
    gt = {"a": GroundTruth.from_boxes([(0, 0, 10, 10)], [1]), "b": NOTHING}
    assert voc_ap(gt, {"a": detections([(0.1, (0, 0, 10, 10))])}, ["cat"], method=method).map == pytest.approx(1)
    for none in ({}, {"a": detections([]), "b": detections([])}):
        assert voc_ap(gt, none, ["cat"], method=method).per_class == {"cat": 0}


@BOTH
def test_a_class_without_objects_is_nan_and_not_in_the_mean(method: VocMethod):
    gt = {"a": GroundTruth.from_boxes([(0, 0, 10, 10)], [1])}
    found = {
        "a": detections([(0.9, (0, 0, 10, 10))]),
    }
    result = voc_ap(gt, found, ["cat", "dog"], method=method)
    assert math.isnan(result.per_class["dog"])
    assert result.map == pytest.approx(1)
    assert len(result.curves["dog"][0]) == 0


@BOTH
def test_no_objects_and_no_images_have_no_mean(method: VocMethod):
    assert math.isnan(voc_ap({"a": NOTHING}, {"a": detections([(0.9, (0, 0, 1, 1))])}, ["cat"], method=method).map)
    assert math.isnan(voc_ap({}, {}, ["cat"], method=method).map)
    assert voc_ap({}, {}, [], method=method).per_class == {}


def test_only_difficult_or_crowd_objects_are_no_objects():
    gt = GroundTruth.from_boxes([(0, 0, 10, 10), (20, 0, 30, 10)], [1, 1])
    hidden = GroundTruth(gt.boxes, gt.labels, np.array([True, False]), np.array([False, True]), gt.areas)
    found = {"a": detections([(0.9, (0, 0, 10, 10))])}
    assert math.isnan(voc_ap({"a": hidden}, found, ["cat"], method=VocMethod.VOC10).map)


def test_ignored_detections_leave_no_point_on_the_curve():
    gt = GroundTruth.from_boxes([(0, 0, 10, 10), (20, 0, 30, 10)], [1, 1])
    half = {"a": GroundTruth(gt.boxes, gt.labels, np.array([True, False]), np.zeros(2, np.bool_), gt.areas)}
    found = {"a": detections([(0.9, (0, 0, 10, 10)), (0.8, (20, 0, 30, 10))])}
    assert precision_recall(half, found, ["cat"])["cat"].precision.tolist() == [1.0]


def test_equal_scores_count_in_the_order_of_the_images():
    gt = {"b": GroundTruth.from_boxes([(0, 0, 10, 10)], [1]), "a": NOTHING}
    same = {"a": detections([(0.5, (0, 0, 10, 10))]), "b": detections([(0.5, (0, 0, 10, 10))])}
    assert voc_ap(gt, same, ["cat"], method=VocMethod.VOC10).map == pytest.approx(1)
    other = {"a": gt["a"], "b": gt["b"]}
    assert voc_ap(other, same, ["cat"], method=VocMethod.VOC10).map == pytest.approx(1 / 2)


def test_detections_of_unknown_images_are_refused():
    with pytest.raises(ValueError, match="without ground truth"):
        voc_ap({}, {"a": detections([])}, ["cat"], method=VocMethod.VOC10)


def test_an_empty_curve_has_no_area():
    assert average_precision(np.zeros(0), np.zeros(0), VocMethod.VOC07) == 0


# --- against the devkit -----------------------------------------------------------------------------------------

corner, side = st.integers(1, 12), st.integers(0, 8)
voc_box = st.tuples(corner, corner, side, side).map(lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3]))
image = st.sampled_from(["a", "b", "c"])
some_objects = st.lists(st.builds(devkit.Object, image, voc_box, st.booleans()), max_size=12)
# No two equal scores: MATLAB's sort and ours may order those differently.
some_found = st.lists(
    st.builds(devkit.Found, image, st.integers(1, 1000).map(lambda s: s / 1024), voc_box),
    max_size=25,
    unique_by=lambda one: one.score,
)


def half_open(box: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """As the VOC reader does: take 1 from xmin and ymin, so that x2 - x1 is VOC's inclusive number of pixels."""
    return box[0] - 1, box[1] - 1, box[2], box[3]


@settings(max_examples=300, deadline=None)
@given(some_objects, some_found)
def test_the_same_as_the_devkit(objects: list[devkit.Object], found: list[devkit.Found]):
    gt, ours = {}, {}
    for name in "abc":
        here = [one for one in objects if one.image == name]
        plain = GroundTruth.from_boxes([half_open(one.box) for one in here], [1] * len(here))
        difficult = np.array([one.difficult for one in here], np.bool_)
        gt[name] = GroundTruth(plain.boxes, plain.labels, difficult, plain.crowd, plain.areas)
        ours[name] = detections([(one.score, half_open(one.box)) for one in found if one.image == name])
    curves = precision_recall(gt, ours, ["cat"])
    if all(one.difficult for one in objects):
        assert math.isnan(summarize(curves, VocMethod.VOC10).map)
        return
    recall, precision = devkit.curve(objects, found)
    assert summarize(curves, VocMethod.VOC07).map == pytest.approx(devkit.ap_07(recall, precision), abs=1e-12)
    assert summarize(curves, VocMethod.VOC10).map == pytest.approx(devkit.ap_10(recall, precision), abs=1e-12)


@settings(max_examples=50, deadline=None)
@given(some_objects, some_found)
def test_a_class_does_not_see_the_other_classes(objects: list[devkit.Object], found: list[devkit.Found]):
    def build(label: int) -> tuple[GroundTruth, Detections]:
        gt = GroundTruth.from_boxes([half_open(one.box) for one in objects], [label] * len(objects))
        return gt, detections([(one.score, half_open(one.box)) for one in found], label)

    (gt1, found1), (gt2, found2) = build(1), build(2)
    both = GroundTruth.from_boxes(np.concatenate([gt1.boxes, gt2.boxes]), np.concatenate([gt1.labels, gt2.labels]))
    order = np.argsort(-np.concatenate([found1.scores, found2.scores]), kind="stable")
    mixed = Detections(
        *(np.concatenate([getattr(found1, f), getattr(found2, f)])[order] for f in ("boxes", "scores", "labels"))
    )
    alone = voc_ap({"a": gt1}, {"a": found1}, ["cat"], method=VocMethod.VOC10)
    together = voc_ap({"a": both}, {"a": mixed}, ["cat", "dog"], method=VocMethod.VOC10)
    assert list(together.per_class.values()) == pytest.approx([alone.map] * 2, nan_ok=True)
