"""One hand-made scene for each type, and a comparison with TIDE's rules written as a loop."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from detpipe.diagnosis.false_detections import FalseDetection, FalseType, find_false
from detpipe.structures import Detections, GroundTruth
from tests.diagnosis.scenes import BOX, CAT, CLASSES, DOG, FAR, HALF, SHORT, found, objects
from tests.diagnosis.test_causes import OBJECTS, ROWS, iou

ONE_CAT = objects((BOX, CAT))


def types(truth: GroundTruth, detections: Detections) -> list[tuple[int, FalseType, int | None]]:
    """Detection, type and object of each false detection at the threshold 0.5."""
    wrong = find_false("a", truth, detections, CLASSES, threshold=0.5)
    return [(one.detection, one.type, one.object) for one in wrong]


def test_a_duplicate() -> None:
    assert types(ONE_CAT, found((0.9, HALF, CAT), (0.8, BOX, CAT))) == [(1, FalseType.duplicate, 0)]


def test_poor_localisation() -> None:
    assert types(ONE_CAT, found((0.9, SHORT, CAT))) == [(0, FalseType.localisation, 0)]


def test_the_smallest_iou_of_poor_localisation() -> None:
    tenth, less = (0, 0, 10, 1), (0, 0, 10, 0.99)
    detections = found((0.9, tenth, CAT), (0.8, less, CAT))
    assert types(ONE_CAT, detections) == [(0, FalseType.localisation, 0), (1, FalseType.background, 0)]


def test_a_wrong_class() -> None:
    assert types(ONE_CAT, found((0.9, HALF, DOG))) == [(0, FalseType.wrong_class, 0)]


def test_a_wrong_class_and_poor_localisation() -> None:
    assert types(ONE_CAT, found((0.9, SHORT, DOG))) == [(0, FalseType.both, 0)]


def test_background() -> None:
    assert types(ONE_CAT, found((0.9, FAR, CAT))) == [(0, FalseType.background, None)]


def test_near_its_own_class_comes_before_on_another_class() -> None:
    # As in TIDE: the box covers a dog, but a cat is near, and its class is cat.
    truth = objects(((0, 0, 10, 4), CAT), (BOX, DOG))
    assert types(truth, found((0.9, BOX, CAT))) == [(0, FalseType.localisation, 0)]


def test_a_duplicate_on_an_object_of_another_class_stays_a_duplicate() -> None:
    # The one difference from tidecv, which calls it a wrong class.
    truth = objects((BOX, CAT), (BOX, DOG))
    assert types(truth, found((0.9, BOX, CAT), (0.8, BOX, CAT))) == [(1, FalseType.duplicate, 0)]


def test_ignored_detections_and_low_scores_have_no_type() -> None:
    truth = objects((BOX, CAT), ((50, 50, 90, 90), DOG), difficult=[0], crowd=[1])
    detections = found((0.9, BOX, CAT), (0.8, BOX, CAT), (0.7, (60, 60, 70, 70), DOG), (0.4, FAR, CAT))
    assert types(truth, detections) == []


def test_a_crowd_is_no_object() -> None:
    truth = objects(((50, 50, 90, 90), DOG), crowd=[0])
    assert types(truth, found((0.9, (50, 50, 90, 90), CAT))) == [(0, FalseType.background, None)]


def test_no_objects_and_no_detections() -> None:
    assert types(objects(), found((0.9, BOX, CAT))) == [(0, FalseType.background, None)]
    assert types(ONE_CAT, found()) == []


def test_the_facts() -> None:
    (one,) = find_false("a", ONE_CAT, found((0.75, HALF, DOG)), CLASSES, threshold=0.5)
    assert one == FalseDetection(
        image="a",
        detection=0,
        label="dog",
        score=0.75,
        box=(0.0, 0.0, 10.0, 20.0),
        type=FalseType.wrong_class,
        iou=0.5,
        object=0,
    )


def tide_type(box: list[float], label: int, truth: GroundTruth, used: set[int]) -> str:
    """The type of a false positive, in the order of tidecv, with its names."""
    ious = [iou(box, one) for one in truth.boxes.tolist()]
    own = [value if truth.labels[n] == label else 0.0 for n, value in enumerate(ious)]
    other = [value if truth.labels[n] != label else 0.0 for n, value in enumerate(ious)]
    if 0.1 <= max(own, default=0.0) < 0.5:
        return "Loc"
    if max(other, default=0.0) >= 0.5:
        return "Cls"
    if max((value for n, value in enumerate(own) if n in used), default=0.0) >= 0.5:
        return "Dupe"
    return "Bkg" if max(ious, default=0.0) < 0.1 else "Both"


NAMES = {
    FalseType.localisation: "Loc",
    FalseType.wrong_class: "Cls",
    FalseType.duplicate: "Dupe",
    FalseType.background: "Bkg",
    FalseType.both: "Both",
}


@settings(max_examples=300, deadline=None)
@given(OBJECTS, ROWS)
def test_types_equal_those_of_a_loop_in_tides_order(
    truth_rows: list[tuple[tuple[int, ...], int]], rows: list[tuple[float, tuple[int, ...], int]]
) -> None:
    truth, detections = objects(*truth_rows), found(*sorted(rows, key=lambda row: -row[0]))
    mine = {one.detection: one for one in find_false("a", truth, detections, CLASSES, threshold=0.5)}
    used: set[int] = set()
    wrong = []
    for index, (box, score, label) in enumerate(
        zip(detections.boxes.tolist(), detections.scores.tolist(), detections.labels.tolist(), strict=True)
    ):
        own = [iou(box, one) if truth.labels[n] == label else 0.0 for n, one in enumerate(truth.boxes.tolist())]
        best = max(range(len(own)), key=lambda n: own[n], default=None)
        if score < 0.5:
            continue
        if best is not None and own[best] >= 0.5 and best not in used:
            used.add(best)
            continue
        wrong.append(index)
        theirs = tide_type(box, label, truth, used)
        if theirs == "Cls" and max(own, default=0.0) >= 0.5:
            assert mine[index].type is FalseType.duplicate
        else:
            assert NAMES[mine[index].type] == theirs
    assert sorted(mine) == wrong


def test_an_iou_is_given_as_a_plain_number() -> None:
    (one,) = find_false("a", ONE_CAT, found((0.9, SHORT, CAT)), CLASSES, threshold=0.5)
    assert type(one.iou) is float
    assert one.iou == pytest.approx(0.4)
