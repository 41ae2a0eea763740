"""The next action: from small scenes, with the setting that it names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from detpipe.classify.object_trace import ObjectTrace
from detpipe.classify.settings import Duplicates
from detpipe.diagnosis.advice import DetectorSettings, Evidence, find_advice
from detpipe.diagnosis.causes import find_misses
from detpipe.diagnosis.false_detections import FalseType, find_false
from detpipe.diagnosis.oracles import Measured, Scene
from detpipe.diagnosis.result import Advice
from detpipe.diagnosis.second_opinion import with_second_opinion
from detpipe.structures import Detections, GroundTruth
from tests.diagnosis.scenes import BOX, CAT, CLASSES, DOG, FAR, HALF, SHORT, found, objects, traced

NEXT = (20, 0, 30, 10)
IMAGES = 4
"""Equal images, so that each interval is its value."""
SETTINGS = DetectorSettings(
    max_proposals=100, nms_iou=0.3, vote_iou=0.5, max_detections=10, method="selective_search", stored=1000
)


def advice(
    truth: GroundTruth,
    detections: Detections,
    traces: Sequence[ObjectTrace] | None = None,
    *,
    threshold: float = 0.5,
    stored: Any = None,
    detector: DetectorSettings = SETTINGS,
    second: float | None = None,
) -> list[Advice]:
    """The advice on equal images. stored: (P, 4) proposals. second: the second classifier's score of all."""
    scene = Scene(dict.fromkeys(range(IMAGES), truth), dict.fromkeys(range(IMAGES), detections))
    misses, wrong = [], []
    for name in range(IMAGES):
        misses += find_misses(name, truth, detections, CLASSES, threshold=threshold, traces=traces, proposals=stored)
        wrong += find_false(name, truth, detections, CLASSES, threshold=threshold)
    if second is not None:
        wrong = with_second_opinion(wrong, {(one.image, one.detection): second for one in wrong})
    return find_advice(
        Evidence(
            scene=scene,
            classes=CLASSES,
            measured=Measured.of(scene, len(CLASSES), resamples=20, seed=0),
            misses=misses,
            wrong=wrong,
            threshold=threshold,
            detector=detector,
            run_dir="runs/mine",
        )
    )


ONE_FOUND = found((0.9, BOX, CAT))
TWO_CATS = objects((BOX, CAT), (NEXT, CAT))


def test_more_proposals() -> None:
    stored = found(*[(0.5, FAR, CAT)] * 249, (0.5, NEXT, CAT)).boxes
    trace = traced(proposal_iou=0.2, iou=0.2)
    (one,) = advice(TWO_CATS, ONE_FOUND, [trace, trace], stored=stored)
    assert (one.because, one.settings) == ("budget", ("detect.max_proposals=300",))
    assert (one.at_most.value, one.at_most.low) == (0.5, 0.5)
    assert "detect.max_proposals=100" in one.text


def test_another_proposer_or_larger_images() -> None:
    trace = traced(proposal_iou=0.2, iou=0.2)
    detector = DetectorSettings(
        method="selective_search",
        max_side=288,
        larger=("proposals.max_side=576",),
        longest=dict.fromkeys(range(4), 600),
    )
    found_advice = advice(TWO_CATS, ONE_FOUND, [trace, trace], detector=detector)
    assert [one.settings for one in found_advice] == [("proposals.max_side=576",), ("proposals=multibox",)]
    assert all(one.because == "no_proposal" for one in found_advice)
    # Images that are not shrunk, and objects that are large enough, are not a reason for larger images.
    small_images = DetectorSettings(**{**detector.__dict__, "longest": dict.fromkeys(range(4), 288)})
    assert [one.settings for one in advice(TWO_CATS, ONE_FOUND, [trace, trace], detector=small_images)] == [
        ("proposals=multibox",)
    ]


def test_box_regression() -> None:
    trace = traced(proposal_iou=0.6, iou=0.2)
    (one,) = advice(TWO_CATS, ONE_FOUND, [trace, trace])
    assert (one.because, one.settings) == ("box_regression", ("head.box_regression=none",))


def test_more_images_of_a_class_names_what_it_is_taken_for() -> None:
    trace = traced(score=0.2, scores={CAT: 0.2, DOG: 0.7, 0: 0.1})
    detector = DetectorSettings(train_objects={"cat": 12})
    both = advice(TWO_CATS, found((0.9, BOX, CAT), (0.7, NEXT, DOG)), [trace, trace], detector=detector)
    (one,) = [one for one in both if not one.settings]
    assert one.because == "wrong_class"
    assert "with cat" in one.text
    assert "mostly dog" in one.text
    assert "12" in one.text


def test_a_higher_threshold_of_nms() -> None:
    # The second cat has IoU 6/14 = 0.43 with the first one: 0.5 keeps both.
    second = (0, 4, 10, 14)
    trace = traced(box=second, score=0.8, scores={CAT: 0.8}, fate="nms", by=0)
    (one,) = advice(objects((BOX, CAT), (second, CAT)), ONE_FOUND, [trace, trace])
    assert (one.because, one.settings) == ("suppressed", ("detect.nms_iou=0.5",))


def test_a_lower_threshold_of_nms_is_measured() -> None:
    # The duplicate has IoU 4/16 = 0.25 with the first detection, and 0.538 with the object.
    truth = objects(((0, 3, 10, 13), CAT), (NEXT, CAT))
    detections = found((0.9, BOX, CAT), (0.8, (0, 6, 10, 16), CAT), (0.7, NEXT, CAT))
    (one,) = advice(truth, detections, detector=DetectorSettings(nms_iou=0.3, vote_iou=0.5))
    assert (one.because, one.settings) == ("duplicate", ("detect.nms_iou=0.1",))
    assert one.at_most.value == pytest.approx(1 - 5 / 6)


def test_duplicates_that_were_learned() -> None:
    learned = DetectorSettings(nms_iou=0.3, vote_iou=0.5, max_detections=10, duplicates=Duplicates.learned)
    # What lowered the score is named, and not NMS, which did not run.
    trace = traced(box=(0, 4, 10, 14), score=0.1, scores={CAT: 0.1, 0: 0.1}, best=0.125)
    (one,) = advice(objects((BOX, CAT), ((0, 4, 10, 14), CAT)), ONE_FOUND, [trace, trace], detector=learned)
    assert (one.because, one.settings) == ("suppressed", ("detect.fast_rcnn.duplicates=nms",))
    # The duplicate has IoU 0.67 with the first detection: every threshold up to 0.6 removes it.
    detections = found((0.9, BOX, CAT), (0.8, (0, 2, 10, 12), CAT), (0.7, NEXT, CAT))
    (one,) = advice(TWO_CATS, detections, detector=learned)
    assert (one.because, one.settings) == ("duplicate", ("detect.fast_rcnn.duplicates=both", "detect.nms_iou=0.1"))
    assert one.at_most.value == pytest.approx(1 - 5 / 6)


def test_more_detections() -> None:
    trace = traced(score=0.8, scores={CAT: 0.8}, fate="limit")
    (one,) = advice(TWO_CATS, ONE_FOUND, [trace, trace])
    assert one.settings == ("detect.max_detections=30",)


def test_voting() -> None:
    trace = traced(score=0.8, scores={CAT: 0.8}, fate="voted", by=1)
    (one,) = advice(TWO_CATS, found((0.9, BOX, CAT), (0.1, SHORT, CAT)), [trace, trace])
    assert one.settings == ("detect.vote_iou=0.65",)


def test_a_lower_score_threshold() -> None:
    # At 0.4 two of three objects are found with two false detections: F1 4/7; at 0.9, 2/4.
    trace = traced(score=0.4, scores={CAT: 0.4})
    truth = objects((BOX, CAT), (NEXT, CAT), ((40, 40, 50, 50), DOG))
    detections = found((0.9, BOX, CAT), (0.6, FAR, CAT), (0.5, FAR, CAT), (0.4, NEXT, CAT))
    lower = [one for one in advice(truth, detections, [trace] * 3, threshold=0.65) if one.because == "threshold"]
    assert ("threshold=0.4",) in [one.settings for one in lower]
    # At the threshold with the best F1 there is no such advice.
    assert all(not one.settings for one in advice(truth, detections, [trace] * 3, threshold=0.4))


def test_a_higher_score_threshold() -> None:
    # The false detection at 0.3 comes before the right one at 0.25, and costs more than that brings.
    detections = found((0.9, BOX, CAT), (0.5, FAR, DOG), (0.4, FAR, DOG), (0.3, FAR, CAT), (0.25, NEXT, CAT))
    higher = [one for one in advice(TWO_CATS, detections, threshold=0.2) if one.settings]
    assert [one.settings for one in higher] == [("threshold=0.9",)]
    assert higher[0].at_most.value == pytest.approx(1 - 5 / 6)


def test_check_labels() -> None:
    detections = found((0.95, FAR, CAT), (0.9, BOX, CAT))
    (one,) = [one for one in advice(objects((BOX, CAT)), detections, second=0.9) if one.because == "unlabelled"]
    assert "detpipe labels audit run_dir=runs/mine" in one.text
    assert one.at_most.value == 0.5


def test_background_images_and_better_boxes() -> None:
    detections = found((0.95, FAR, CAT), (0.92, HALF, CAT), (0.91, (20, 0, 30, 4), CAT))
    found_advice = advice(TWO_CATS, detections, detector=DetectorSettings(nms_iou=0.3))
    kinds = {one.because: one for one in found_advice}
    assert kinds["localisation"].settings == ("detect.vote_iou=0.5",)
    assert "cat" in kinds["background"].text
    assert [one.at_most.value for one in found_advice] == sorted(
        (one.at_most.value for one in found_advice), reverse=True
    )


def test_no_advice_without_errors_or_certainty() -> None:
    assert advice(objects((BOX, CAT)), ONE_FOUND) == []
    # One of two images lacks the object's detection: the interval includes 0.
    truth = objects((BOX, CAT))
    scene = Scene({"a": truth, "b": truth}, {"a": ONE_FOUND, "b": found()})
    misses = find_misses("b", truth, found(), CLASSES, threshold=0.5)
    assert len(misses) == 1
    evidence = Evidence(
        scene=scene,
        classes=CLASSES,
        measured=Measured.of(scene, len(CLASSES), resamples=100, seed=0),
        misses=misses,
        wrong=[],
        threshold=0.9,
        detector=SETTINGS,
        run_dir="r",
    )
    assert find_advice(evidence) == []


def test_types_are_those_of_the_second_opinion() -> None:
    (one,) = find_false(0, objects(), found((0.9, BOX, CAT)), CLASSES, threshold=0.5)
    assert with_second_opinion([one], {(0, 0): 0.5})[0].type is FalseType.unlabelled
