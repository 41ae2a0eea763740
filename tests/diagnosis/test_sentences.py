"""The sentence of each cause and type: the numbers that it rests on."""

from __future__ import annotations

import pytest

from detpipe.classify.object_trace import ObjectTrace
from detpipe.diagnosis.causes import Cause, find_misses
from detpipe.diagnosis.false_detections import FalseDetection, FalseType, find_false
from detpipe.diagnosis.sentences import false_sentence, miss_sentence
from detpipe.structures import Detections, Float32Array
from tests.diagnosis.scenes import BOX, CAT, CLASSES, DOG, FAR, HALF, SHORT, found, objects, traced


def sentence(
    trace: ObjectTrace | None, detections: Detections, proposals: Float32Array | None = None
) -> tuple[Cause, str]:
    (miss,) = find_misses(
        "a",
        objects((BOX, CAT)),
        detections,
        CLASSES,
        threshold=0.5,
        traces=[trace] if trace is not None else None,
        proposals=proposals,
    )
    return miss.cause, miss_sentence(miss, detections, 0.5)


def test_each_stage_has_its_numbers() -> None:
    far, near = objects((FAR, CAT)).boxes, objects((FAR, CAT), (BOX, CAT)).boxes
    lost = {"iou": 0.3, "proposal_iou": 0.3}
    assert sentence(traced(**lost), found(), far) == (
        Cause.no_proposal,
        "the best of all stored proposals has IoU 0.00",
    )
    assert sentence(traced(**lost), found()) == (Cause.no_proposal, "the best proposal has IoU 0.30")
    assert sentence(traced(proposal_rank=-1, rank=-1, proposal_iou=0, iou=0, fate="none"), found())[1] == (
        "no region of the image was classified"
    )
    cause, text = sentence(traced(**lost), found(), near)
    assert cause is Cause.budget
    assert text.startswith("a stored proposal has IoU 1.00 (rank 2), but it is beyond detect.max_proposals")
    cause, text = sentence(traced(iou=0.3, proposal_iou=0.7, proposal_rank=4), found())
    assert cause is Cause.box_regression
    assert "a proposal with IoU 0.70 (rank 5) was moved away" in text
    assert "has IoU 0.30" in text


def test_classes_and_scores() -> None:
    cause, text = sentence(traced(score=0.1, scores={0: 0.6, DOG: 0.2, 3: 0.15, CAT: 0.05}), found())
    assert (cause, text) == (
        Cause.background,
        "the best box, IoU 0.80, was scored background 0.60, dog 0.20, owl 0.15, cat 0.05",
    )
    cause, text = sentence(traced(score=0.3, scores={DOG: 0.6, CAT: 0.3}), found())
    assert (cause, text) == (Cause.wrong_class, "the best box, IoU 0.80, was scored dog 0.60, cat 0.30")
    shown = found((0.7, BOX, DOG))
    cause, text = sentence(traced(score=0.1, scores={0: 0.6, CAT: 0.1}), shown)
    assert (cause, text) == (
        Cause.wrong_class,
        "detected as dog 0.70; the best box, IoU 0.80, was scored background 0.60, cat 0.10",
    )
    cause, text = sentence(traced(score=0.4, scores={CAT: 0.4, 0: 0.3}), found())
    assert (cause, text) == (Cause.threshold, "cat 0.40 with IoU 0.80, below the threshold 0.50")


@pytest.mark.parametrize(
    ("fate", "words"),
    [
        ("nms", "was removed by non-maximum suppression: IoU 0.40 with a detection of score 0.90"),
        ("voted", "was moved by box voting; IoU 0.40 with the result"),
        ("limit", "was left out: the image has more than detect.max_detections"),
        ("kept", "counts for a neighbouring object"),
    ],
)
def test_what_suppressed_it(fate: str, words: str) -> None:
    by = -1 if fate == "limit" else 0
    cause, text = sentence(traced(score=0.8, scores={CAT: 0.8}, fate=fate, by=by), found((0.9, SHORT, CAT)))
    assert (cause, text) == (Cause.suppressed, f"cat 0.80 with IoU 0.80 {words}")


def test_it_was_not_the_best_box() -> None:
    trace = traced(score=0.1, scores={CAT: 0.1, 0: 0.2}, best=0.125)
    told = "cat 0.10 with IoU 0.80 was multiplied by 0.12, the learned probability of being the best box of its object"
    assert sentence(trace, found((0.9, SHORT, CAT))) == (
        Cause.suppressed,
        f"{told}; IoU 0.40 with a detection of score 0.90",
    )
    assert sentence(trace, found())[1] == told


def test_the_reduced_form() -> None:
    assert sentence(None, found((0.9, BOX, DOG)))[1] == "detected as dog 0.90, IoU 1.00"
    assert sentence(None, found((0.4, BOX, CAT)))[1] == "cat 0.40 with IoU 1.00, below the threshold 0.50"
    assert sentence(None, found((0.9, SHORT, CAT)))[1] == "the nearest detection of its class, 0.90, has IoU 0.40"
    assert sentence(None, found())[1] == "no detection of its class near it"


def test_false_detections() -> None:
    truth = objects((BOX, CAT))
    rows = [(0.9, BOX, CAT), (0.8, HALF, CAT), (0.7, SHORT, CAT), (0.6, BOX, DOG), (0.55, SHORT, DOG), (0.5, FAR, DOG)]
    told = {
        one.type: false_sentence(one, truth, CLASSES)
        for one in find_false("a", truth, found(*rows), CLASSES, threshold=0.5)
    }
    assert told == {
        FalseType.duplicate: "the object was already found; IoU 0.50 with it",
        FalseType.localisation: "IoU 0.40 with the object, less than 0.5",
        FalseType.wrong_class: "is annotated as cat, IoU 1.00",
        FalseType.both: "near an object that is annotated as cat, IoU 0.40",
        FalseType.background: "no object is annotated here",
    }
    one = FalseDetection(
        image="a", detection=0, label="cat", score=0.9, box=FAR, type=FalseType.unlabelled, second_score=0.75
    )
    assert (
        false_sentence(one, truth, CLASSES) == "perhaps an object without a label: a second classifier scores it 0.75"
    )
