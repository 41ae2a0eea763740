"""Oracles: the increase of the mAP worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from detpipe.classify.object_trace import ObjectTrace
from detpipe.diagnosis.causes import Cause, find_misses
from detpipe.diagnosis.false_detections import FalseType, find_false
from detpipe.diagnosis.oracles import Measured, Scene, perfect_boxes, perfect_classes, perfect_proposals, worth
from detpipe.diagnosis.result import Worth
from detpipe.metrics.voc_ap import VocMethod, voc_ap
from detpipe.structures import Detections, GroundTruth
from tests.diagnosis.scenes import BOX, CAT, CLASSES, DOG, FAR, HALF, SHORT, found, objects, traced

NEXT = (20, 0, 30, 10)
NAMES = [*Cause.__members__, *(name for name in FalseType.__members__ if name not in Cause.__members__)]


def worth_of(
    truth: GroundTruth, detections: Detections, *, traces: Sequence[ObjectTrace] | None = None
) -> dict[str, Worth]:
    """What each cause and type of one image costs, at the threshold 0.5."""
    scene = Scene({"a": truth}, {"a": detections})
    misses = find_misses("a", truth, detections, CLASSES, threshold=0.5, traces=traces)
    wrong = find_false("a", truth, detections, CLASSES, threshold=0.5)
    measured = Measured.of(scene, len(CLASSES), resamples=10, seed=0)
    return worth(scene, measured, misses, wrong, NAMES)


def positive(worths: dict[str, Worth]) -> dict[str, float]:
    """The values that are not 0."""
    return {name: one.total.value for name, one in worths.items() if one.total.value}


def test_a_missed_object_is_taken_out() -> None:
    trace = traced(proposal_iou=0.1, iou=0.1)
    worths = worth_of(objects((BOX, CAT), (NEXT, CAT)), found((0.9, BOX, CAT)), traces=[trace, trace])
    assert positive(worths) == {"no_proposal": 0.5}
    assert (worths["no_proposal"].missed, worths["no_proposal"].false) == (worths["no_proposal"].total, None)


def test_the_only_object_of_a_class_is_taken_out() -> None:
    # The AP of dogs is 0, and 1 without the missed dog; that of cats stays 1.
    worths = worth_of(objects((BOX, CAT), (NEXT, DOG)), found((0.9, BOX, CAT)))
    assert positive(worths) == {"missed": 0.5}


def test_a_detection_below_the_threshold_of_a_fixed_object_is_ignored() -> None:
    # Cats: found 0.9; background 0.45; the missed one 0.4: AP = (1 + 2/3) / 2.
    truth = objects((BOX, CAT), (NEXT, CAT))
    detections = found((0.9, BOX, CAT), (0.45, FAR, CAT), (0.4, NEXT, CAT))
    worths = worth_of(truth, detections)
    assert positive(worths) == {"threshold": pytest.approx(1 - (1 + 2 / 3) / 2)}


def test_a_wrong_class_is_both_a_cause_and_a_type() -> None:
    worths = worth_of(objects((BOX, DOG)), found((0.9, BOX, CAT)))
    assert worths["wrong_class"].false is not None
    assert worths["wrong_class"].missed is not None
    assert worths["wrong_class"].false.value == worths["wrong_class"].missed.value == 1
    assert worths["wrong_class"].total.value == 1


def test_only_the_best_detection_gets_the_object() -> None:
    # Two cats on one dog, and a dog that is found. Fixed: dog 0.9 on the first dog, dog 0.7 on the second.
    truth = objects((BOX, DOG), (NEXT, DOG))
    detections = found((0.9, BOX, CAT), (0.8, BOX, CAT), (0.7, NEXT, DOG))
    worths = worth_of(truth, detections)
    assert worths["wrong_class"].false is not None
    assert worths["wrong_class"].false.value == 0.5


def test_a_wrong_class_on_a_found_object_is_removed() -> None:
    # Dogs: found. Cats: 0.9 on the dog is wrong, 0.8 is right.
    truth, detections = objects((BOX, DOG), (NEXT, CAT)), found((0.9, BOX, CAT), (0.8, NEXT, CAT), (0.7, BOX, DOG))
    assert positive(worth_of(truth, detections)) == {"wrong_class": 0.25}


def test_poor_localisation_gets_the_box() -> None:
    # Cats: 0.9 is off, 0.6 finds the second, 0.2 the first: AP = (1/2 + 2/3) / 2, as the envelope is 2/3: 2/3.
    truth = objects((BOX, CAT), (NEXT, CAT))
    detections = found((0.9, SHORT, CAT), (0.6, NEXT, CAT), (0.2, HALF, CAT))
    worths = worth_of(truth, detections)
    assert worths["localisation"].false is not None
    assert worths["localisation"].false.value == pytest.approx(1 - 2 / 3)


@pytest.mark.parametrize(
    ("second", "kind"),
    [((0.8, BOX, CAT), "duplicate"), ((0.8, FAR, CAT), "background"), ((0.8, (40, 0, 50, 4), CAT), "both")],
)
def test_a_removed_detection(second: tuple[float, Sequence[float], int], kind: str) -> None:
    # Two cats are found, with a false one between: AP = 1/2 + 1/2 * 2/3.
    truth = objects((BOX, CAT), (NEXT, CAT), ((40, 0, 50, 10), DOG))
    detections = found((0.9, BOX, CAT), second, (0.7, NEXT, CAT), (0.6, (40, 0, 50, 10), DOG))
    assert positive(worth_of(truth, detections)) == {kind: pytest.approx((1 - 5 / 6) / 2)}


def test_an_unlabelled_object_gets_a_label() -> None:
    truth, detections = objects((BOX, CAT)), found((0.9, FAR, CAT), (0.8, BOX, CAT), (0.7, FAR, CAT))
    scene = Scene({"a": truth}, {"a": detections})
    wrong = [
        type(one)(**{**one.__dict__, "type": FalseType.unlabelled})
        for one in find_false("a", truth, detections, CLASSES, threshold=0.5)
    ]
    assert len(wrong) == 2
    measured = Measured.of(scene, len(CLASSES), resamples=0, seed=0)
    # AP was 1/2. With the label, 0.9 and 0.8 are right, and 0.7 is a duplicate behind them.
    assert worth(scene, measured, [], wrong, ["unlabelled"])["unlabelled"].total.value == 0.5


def test_no_errors_cost_nothing_and_no_images_have_no_value() -> None:
    assert positive(worth_of(objects((BOX, CAT)), found((0.9, BOX, CAT)))) == {}
    measured = Measured.of(Scene({}, {}), 3, resamples=2, seed=0)
    assert math.isnan(measured.increase(Scene({}, {})).value)


def map_of(scene: Scene) -> float:
    return voc_ap(scene.truth, scene.detections, CLASSES, method=VocMethod.VOC10).map


def test_the_interval_is_that_of_the_paired_difference() -> None:
    # Two images: in one the cat is found, in the other it is missed. Drawn together, 0.5 becomes 1. Twice the missed
    # one keeps 0: this resample has no object left that could tell, and the data has one.
    truth = {name: objects((BOX, CAT)) for name in ("a", "b")}
    scene = Scene(truth, {"a": found((0.9, BOX, CAT)), "b": found()})
    misses = find_misses("b", truth["b"], found(), CLASSES, threshold=0.5)
    measured = Measured.of(scene, len(CLASSES), resamples=200, seed=0)
    one = worth(scene, measured, misses, [], ["missed"])["missed"].total
    assert (one.value, one.low, one.high) == (0.5, 0.0, 0.5)


def test_perfect_classes() -> None:
    truth = objects((BOX, CAT), (NEXT, DOG), (FAR, DOG), ((50, 50, 60, 60), DOG), difficult=[2])
    detections = found((0.9, FAR, CAT), (0.8, NEXT, CAT), (0.7, (200, 200, 210, 210), CAT))
    scene = Scene({"a": truth}, {"a": detections})
    assert map_of(perfect_classes(scene, None)) == pytest.approx((0 + 1 / 2) / 2)
    traces = [traced(iou=0.5), traced(iou=0.1), traced(iou=0.1), traced(iou=0.4)]
    assert map_of(perfect_classes(scene, {"a": traces})) == pytest.approx((1 + 0) / 2)


def test_perfect_boxes() -> None:
    truth = objects((BOX, CAT), (NEXT, CAT), (FAR, DOG))
    detections = found((0.9, SHORT, CAT), (0.8, HALF, CAT), (0.7, BOX, DOG), (0.6, (20, 0, 30, 1), CAT))
    fixed = perfect_boxes(Scene({"a": truth}, {"a": detections})).detections["a"]
    assert fixed.boxes.tolist() == [[0, 0, 10, 10], [0, 0, 10, 10], [20, 0, 30, 10]]
    assert fixed.labels.tolist() == [CAT, DOG, CAT]


def test_perfect_proposals() -> None:
    scene = Scene({"a": objects((BOX, CAT), (NEXT, CAT)), "b": objects()}, {"a": found((0.5, HALF, CAT)), "b": found()})
    joined = perfect_proposals(
        scene, {"a": found((0.9, BOX, CAT), (0.4, NEXT, CAT), (0.3, BOX, DOG))}, nms_iou=0.3, max_detections=2
    ).detections["a"]
    assert joined.boxes.tolist() == [[0, 0, 10, 10], [20, 0, 30, 10]]  # HALF is removed by NMS, the dog by the limit
    assert joined.labels.tolist() == [CAT, CAT]
