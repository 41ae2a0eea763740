"""Why a detection is wrong and an object is missed: one small case for each kind."""

from __future__ import annotations

import numpy as np

from detpipe.classify.object_trace import Fate, ObjectTrace
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


def trace(
    box: list[float], score: float, iou: float, proposal_iou: float, fate: Fate = Fate.kept, by: int = -1
) -> ObjectTrace:
    x1, y1, x2, y2 = box
    return ObjectTrace(
        box=(x1, y1, x2, y2),
        score=score,
        iou=iou,
        rank=0,
        proposal_iou=proposal_iou,
        proposal_moved_iou=iou,
        proposal_rank=0,
        proposal_scores={},
        scores={},
        fate=fate,
        by=by,
    )


def test_each_kind_of_missed_object():
    boxes = [[0, 0, 10, 10], [0, 50, 20, 70], [0, 100, 30, 130], [0, 200, 40, 240]]
    gt = {"a": GroundTruth.from_boxes(boxes, [1, 1, 1, 1])}
    rows = found((0.9, boxes[1], 2), (0.8, [0, 100, 30, 200], 1), (0.2, boxes[0], 1))
    result = find_misses(gt, {"a": rows}, CLASSES, min_score=0.3, per_image=9)
    assert [miss.kind for miss in result.missed] == ["not found", "box off", "other class", "low score"]
    assert [miss.weight for miss in result.missed] == [1600, 900, 400, 100]
    assert result.missed[2].why == "detected as dog 0.90"
    assert result.missed[3].why == "found with score 0.20 only"


def test_other_classes_count_from_the_threshold_only():
    gt = {"a": GroundTruth.from_boxes([A], [1])}
    result = find_misses(gt, {"a": found((0.04, A, 2))}, CLASSES, min_score=0.3)
    assert [(miss.kind, miss.why) for miss in result.missed] == [("not found", "no box of this class near it")]


def test_a_box_that_nms_removed_is_told_so():
    """Two coins side by side: the box of the second overlaps that of the first."""
    first, second, removed = [0, 0, 20, 20], [14, 0, 34, 20], [9, 0, 31, 20]
    gt = {"a": GroundTruth.from_boxes([first, second], [1, 1])}
    rows = found((1.0, first, 1), (0.04, second, 2))
    traces = {"a": [trace(first, 1.0, 1.0, 0.9), trace(removed, 0.99, 0.68, 0.6, Fate.nms, 0)]}
    (miss,) = find_misses(gt, {"a": rows}, CLASSES, min_score=0.5, traces=traces, nms_iou=0.3).missed
    assert miss.kind == "removed by NMS"
    assert "IoU 0.68 and score 0.99" in miss.why
    assert "detect.nms_iou=0.3" in miss.why
    assert miss.why.endswith("IoU 0.35 with a detection with score 1.00")  # 11 x 20 of 20 x 20 + 22 x 20 - 11 x 20


def test_the_causes_that_scores_before_nms_tell():
    gt = {"a": GroundTruth.from_boxes([A], [1])}
    for rows, one, kind, why in (
        ([], trace(A, 0.2, 0.8, 0.7), "low score", "score 0.20"),
        ([(0.004, A, 1)], trace(A, 0.2, 0.8, 0.7), "low score", "score 0.20"),
        ([(0.9, A, 2)], trace(A, 0.2, 0.8, 0.7), "other class", "dog 0.90"),
        ([], trace(A, 0.9, 0.3, 0.4), "no proposal", "IoU 0.40"),
        ([], trace(A, 0.9, 0.3, 0.7), "box off", "0.70 to 0.30"),
        ([], trace(A, 0.9, 0.8, 0.7, Fate.limit), "over the limit", "detect.max_detections"),
        ([], trace(A, 0.9, 0.8, 0.7, Fate.nms), "removed by NMS", "beyond detect.max_detections"),
        ([(0.9, [0, 0, 10, 4], 1)], trace([0, 0, 10, 6], 0.9, 0.6, 0.6, Fate.voted, 0), "box off", "detect.vote_iou"),
    ):
        traces = {"a": [one]}
        (miss,) = find_misses(gt, {"a": found(*rows)}, CLASSES, min_score=0.5, traces=traces).missed
        assert (miss.kind, why in miss.why) == (kind, True), miss.why


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
