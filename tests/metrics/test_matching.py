"""Who is matched to whom: answers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from detpipe.metrics.matching import check_covered, match_detections
from detpipe.structures import Detections, GroundTruth


def found(*rows: tuple[float, list[float], int]) -> Detections:
    """Rows (score, box, label), already from high to low."""
    return Detections(
        boxes=np.array([box for _, box, _ in rows], np.float32).reshape(-1, 4),
        scores=np.array([score for score, _, _ in rows], np.float32),
        labels=np.array([label for _, _, label in rows], np.int64),
    )


def objects(boxes: list[list[float]], labels: list[int], *, difficult: list[int] = (), crowd: list[int] = ()):
    plain = GroundTruth.from_boxes(boxes, labels)
    flag = np.arange(len(plain))
    return GroundTruth(plain.boxes, plain.labels, np.isin(flag, difficult), np.isin(flag, crowd), plain.areas)


BOX = [0, 0, 10, 10]
HALF = [0, 0, 10, 20]  # IoU with BOX is 100 / 200, exactly the threshold


def test_the_first_takes_the_object_and_the_second_is_wrong():
    result = match_detections(objects([BOX], [1]), found((0.9, HALF, 1), (0.8, BOX, 1)))
    assert result.true_positive.tolist() == [True, False]
    assert result.false_positive.tolist() == [False, True]
    assert result.object_index.tolist() == [0, 0]
    assert result.overlap.tolist() == [0.5, 1.0]
    assert result.found(objects([BOX], [1])).tolist() == [True]


def test_the_threshold_itself_is_a_hit_and_a_hair_less_is_not():
    assert match_detections(objects([BOX], [1]), found((0.9, HALF, 1))).true_positive.all()
    less = match_detections(objects([BOX], [1]), found((0.9, [0, 0, 10, 20.01], 1)))
    assert less.false_positive.all()


def test_another_class_is_no_match():
    result = match_detections(objects([BOX], [2]), found((0.9, BOX, 1)))
    assert result.false_positive.tolist() == [True]
    assert result.object_index.tolist() == [-1]
    assert result.overlap.tolist() == [0]


def test_a_detection_does_not_turn_to_its_second_best_object():
    # As the devkit: the taken object of greatest IoU makes it wrong, although the other one is free and near enough.
    near = [0, 0, 10, 12]
    result = match_detections(objects([BOX, near], [1, 1]), found((0.9, BOX, 1), (0.8, [0, 0, 10, 10.5], 1)))
    assert result.object_index.tolist() == [0, 0]
    assert result.true_positive.tolist() == [True, False]


def test_difficult_objects_ignore_every_detection_that_chooses_them():
    result = match_detections(objects([BOX], [1], difficult=[0]), found((0.9, BOX, 1), (0.8, BOX, 1)))
    assert result.ignored.tolist() == [True, True]


def test_a_crowd_ignores_what_lies_in_it_but_not_a_true_positive():
    crowd = [0, 0, 100, 100]
    gt = objects([crowd, BOX], [1, 1], crowd=[0])
    result = match_detections(
        gt,
        found(
            (0.9, BOX, 1),  # finds the object, though it lies in the crowd
            (0.8, BOX, 1),  # a duplicate, in the crowd: ignored
            (0.7, [50, 50, 60, 60], 1),  # in the crowd
            (0.6, [90, 0, 110, 10], 1),  # half of its area in the crowd
            (0.5, [95, 0, 115, 10], 1),  # a quarter
            (0.4, [50, 50, 60, 60], 2),  # another class
        ),
    )
    assert result.true_positive.tolist() == [True, False, False, False, False, False]
    assert result.ignored.tolist() == [False, True, True, True, False, False]
    assert result.found(gt).tolist() == [False, True]


def test_nothing_found_and_nothing_there():
    nothing, none = found(), objects([], [])
    assert len(match_detections(objects([BOX], [1]), nothing).true_positive) == 0
    assert match_detections(objects([BOX], [1]), nothing).found(objects([BOX], [1])).tolist() == [False]
    assert match_detections(none, found((0.9, BOX, 1))).false_positive.tolist() == [True]
    assert len(match_detections(none, nothing).ignored) == 0


@pytest.mark.parametrize("threshold", [0, -1, 1.1])
def test_a_threshold_out_of_range_is_refused(threshold: float):
    with pytest.raises(ValueError, match="iou_threshold"):
        match_detections(objects([BOX], [1]), found(), iou_threshold=threshold)


def test_unknown_images_and_labels_are_named():
    with pytest.raises(ValueError, match=r"1 images without ground truth: 7"):
        check_covered({1: objects([], [])}, {7: found()}, ["cat"])
    with pytest.raises(ValueError, match=r"detections of image 1: expected labels 1\.\.1, got 2"):
        check_covered({1: objects([], [])}, {1: found((0.5, BOX, 2))}, ["cat"])
    with pytest.raises(ValueError, match=r"objects of image a: expected labels 1\.\.1, got 3"):
        check_covered({"a": objects([BOX], [3])}, {}, ["cat"])
