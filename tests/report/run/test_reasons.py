"""The reasons of the page are those of the diagnosis, for detections at any score."""

from __future__ import annotations

from detpipe.classify.object_trace import ObjectTrace
from detpipe.diagnosis.causes import Cause
from detpipe.diagnosis.diagnose import find_errors
from detpipe.diagnosis.false_detections import FalseType
from detpipe.diagnosis.oracles import Scene
from detpipe.report.run.reasons import LOW_SCORE, Diagnosis, kind_name, reasons
from detpipe.structures import Detections, GroundTruth, ImageId
from tests.diagnosis.scenes import BOX, CAT, CLASSES, DOG, FAR, found, objects, traced


def made(truth: GroundTruth, detections: Detections, traces: list[ObjectTrace] | None = None) -> Diagnosis:
    images: dict[ImageId, GroundTruth] = {"a": truth}
    scene = Scene(images, {"a": detections})
    traced = None if traces is None else {"a": traces}
    errors = find_errors(scene, CLASSES, threshold=0.5, traces=traced, proposals=None)
    return reasons(images, scene.detections, CLASSES, errors, threshold=0.5)


def test_a_missed_object_has_the_cause_of_blame() -> None:
    """A coin that was scored 0.99 and removed by NMS is no "box of IoU 0.30"."""
    trace = traced(score=0.99, scores={CAT: 0.99}, fate="nms", by=0)
    (reason,) = made(objects((BOX, CAT)), found((1.0, (0, 0, 10, 4), CAT)), [trace]).missed["a"].values()
    assert reason.kind == "suppressed"
    assert reason.why == (
        "cat 0.99 with IoU 0.80 was removed by non-maximum suppression: IoU 0.40 with a detection of score 1.00"
    )


def test_a_score_of_0_04_is_no_other_class() -> None:
    (reason,) = made(objects((BOX, CAT)), found((0.04, BOX, DOG))).missed["a"].values()
    assert (reason.kind, reason.why) == ("not found", "no detection of its class near it")


def test_detections_below_the_threshold_have_a_type() -> None:
    wrong = made(objects((BOX, CAT)), found((0.9, BOX, CAT), (0.3, BOX, CAT), (0.1, FAR, DOG))).wrong["a"]
    assert {index: one.kind for index, one in wrong.items()} == {1: "duplicate", 2: "background"}


def test_nothing_there_is_no_error() -> None:
    empty = made(objects(), found())
    assert (empty.missed, empty.wrong, empty.low_score) == ({"a": {}}, {"a": {}}, LOW_SCORE)
    assert LOW_SCORE == kind_name(Cause.threshold) == "score too low"
    assert kind_name(FalseType.wrong_class) == "wrong class"
