"""Why a detection is wrong and an object is missed: one small case for each kind."""

from __future__ import annotations

import numpy as np

from detpipe.report.run.misses import find_misses
from detpipe.structures import Detections, GroundTruth

CLASSES = ["cat", "dog"]
A, B = [0, 0, 10, 10], [100, 0, 120, 20]


def found(*rows: tuple[float, list[float], int]) -> Detections:
    return Detections(
        np.array([box for _, box, _ in rows], np.float32).reshape(-1, 4),
        np.array([score for score, _, _ in rows], np.float32),
        np.array([label for _, _, label in rows], np.int64),
    )


def test_each_kind_of_false_positive():
    gt = {"a": GroundTruth.from_boxes([A, B], [1, 2])}
    rows = found(
        (0.9, A, 1), (0.8, A, 1), (0.7, B, 1), (0.6, [0, 0, 10, 25], 1), (0.5, [50, 50, 60, 60], 1), (0.1, A, 1)
    )  # fmt: skip
    result = find_misses(gt, {"a": rows}, CLASSES, min_score=0.3, per_image=9)
    assert [miss.kind for miss in result.wrong] == ["duplicate", "other class", "box off", "background"]
    assert result.wrong[1].why == "is annotated as dog"
    assert result.wrong[2].why == "IoU 0.40 with the object"
    assert result.wrong_counts == {"duplicate": 1, "other class": 1, "box off": 1, "background": 1}


def test_each_kind_of_missed_object():
    boxes = [[0, 0, 10, 10], [0, 50, 20, 70], [0, 100, 30, 130], [0, 200, 40, 240]]
    gt = {"a": GroundTruth.from_boxes(boxes, [1, 1, 1, 1])}
    rows = found((0.9, boxes[1], 2), (0.8, [0, 100, 30, 200], 1), (0.2, boxes[0], 1))
    result = find_misses(gt, {"a": rows}, CLASSES, min_score=0.3, per_image=9)
    assert [miss.kind for miss in result.missed] == ["not found", "box off", "other class", "low score"]
    assert [miss.weight for miss in result.missed] == [1600, 900, 400, 100]
    assert result.missed[2].why == "detected as dog"
    assert result.missed[3].why == "found with score 0.20 only"


def test_two_objects_that_share_one_box():
    gt = {"a": GroundTruth.from_boxes([A, [0, 0, 10, 12]], [1, 1])}
    result = find_misses(gt, {"a": found((0.9, A, 1))}, CLASSES, min_score=0.3)
    assert [miss.kind for miss in result.missed] == ["shared box"]


def test_difficult_objects_and_crowds_are_not_missed():
    plain = GroundTruth.from_boxes([A, B], [1, 2])
    hidden = GroundTruth(plain.boxes, plain.labels, np.array([True, False]), np.array([False, True]), plain.areas)
    assert find_misses({"a": hidden}, {}, CLASSES, min_score=0.3).missed == []


def test_the_worst_come_first_and_no_image_fills_the_list():
    gt = {name: GroundTruth.from_boxes([], []) for name in "ab"}
    many = {"a": found(*((0.9 - i / 100, A, 1) for i in range(5))), "b": found((0.5, A, 1))}
    result = find_misses(gt, many, CLASSES, min_score=0.3, limit=3, per_image=2)
    assert [(miss.image_id, round(miss.weight, 2)) for miss in result.wrong] == [("a", 0.9), ("a", 0.89), ("b", 0.5)]
    assert result.wrong_counts == {"background": 6}


def test_nothing_there_is_nothing_missed():
    result = find_misses({}, {}, CLASSES, min_score=0.5)
    assert (result.wrong, result.missed, result.wrong_counts, result.missed_counts) == ([], [], {}, {})
