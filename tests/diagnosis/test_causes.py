"""One hand-made scene for each cause, with the right answer worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detpipe.classify.object_trace import Fate, ObjectTrace
from detpipe.diagnosis.causes import REDUCED, STAGES, Cause, Miss, find_misses
from detpipe.structures import Detections, GroundTruth
from tests.diagnosis.scenes import BOX, CAT, CLASSES, DOG, FAR, HALF, OWL, SHORT, found, objects, traced

ONE_CAT = objects((BOX, CAT))


def the_miss(
    truth: GroundTruth,
    detections: Detections,
    trace: ObjectTrace | None,
    proposals: list[tuple[int, ...]] | None = None,
) -> Miss:
    """The only miss of an image, at the threshold 0.5. trace: of each object."""
    traces = [trace] * len(truth) if trace is not None else None
    stored = np.array(proposals, np.float32).reshape(-1, 4) if proposals is not None else None
    (miss,) = find_misses("a", truth, detections, CLASSES, threshold=0.5, traces=traces, proposals=stored)
    return miss


def test_no_proposal_is_near() -> None:
    trace = traced(proposal_iou=0.4, iou=0.3, score=0.9, scores={CAT: 0.9})
    miss = the_miss(ONE_CAT, found(), trace, [FAR, SHORT])
    assert (miss.cause, miss.stored_rank) == (Cause.no_proposal, 1)
    assert miss.stored_iou == pytest.approx(0.4)


def test_a_proposal_beyond_the_budget() -> None:
    miss = the_miss(ONE_CAT, found(), traced(proposal_iou=0.4, proposal_rank=0, iou=0.4), [SHORT, FAR, HALF])
    assert (miss.cause, miss.stored_rank, miss.stored_iou, miss.proposal_rank) == (Cause.budget, 2, 0.5, 0)


def test_box_regression_moved_a_good_proposal_away() -> None:
    # A stored proposal of a higher IoU does not matter: a classified one was good enough.
    miss = the_miss(ONE_CAT, found(), traced(proposal_iou=0.5, iou=0.49), [BOX])
    assert (miss.cause, miss.proposal_iou, miss.iou) == (Cause.box_regression, 0.5, 0.49)


def test_classified_as_background() -> None:
    miss = the_miss(ONE_CAT, found(), traced(iou=0.5, score=0.2, scores={CAT: 0.2, DOG: 0.3, 0: 0.5}))
    assert (miss.cause, miss.best_label, miss.best_score) == (Cause.background, "background", 0.5)
    assert miss.scores == {"background": 0.5, "dog": 0.3, "cat": 0.2}


def test_classified_as_another_class() -> None:
    miss = the_miss(ONE_CAT, found((0.6, BOX, DOG)), traced(score=0.2, scores={CAT: 0.2, DOG: 0.6, 0: 0.2}))
    assert (miss.cause, miss.best_label, miss.best_score) == (Cause.wrong_class, "dog", 0.6)
    assert (miss.taken_for, miss.by) == ("dog", 0)


def test_another_class_at_the_threshold_is_shown_although_the_background_is_more_probable() -> None:
    # One score per class: the background is 1 minus the best one.
    scores = {CAT: 0.3, DOG: 0.45, 0: 0.55}
    (miss,) = find_misses("a", ONE_CAT, found(), CLASSES, threshold=0.4, traces=[traced(score=0.3, scores=scores)])
    assert (miss.cause, miss.by, miss.taken_for) == (Cause.wrong_class, None, "dog")


def test_a_detection_of_another_region_shows_it_as_another_class() -> None:
    trace = traced(score=0.2, scores={CAT: 0.2, 0: 0.8})
    miss = the_miss(ONE_CAT, found((0.9, FAR, DOG), (0.6, HALF, DOG)), trace)
    assert (miss.cause, miss.by) == (Cause.wrong_class, 1)


def test_the_detection_of_an_object_of_another_class_takes_nothing() -> None:
    # The dog over the cat is right: it finds the dog that is there, too.
    truth = objects((BOX, CAT), (HALF, DOG))
    miss = the_miss(truth, found((0.6, HALF, DOG)), traced(score=0.2, scores={CAT: 0.2, 0: 0.8}))
    assert (miss.object, miss.cause, miss.by) == (0, Cause.background, None)


def test_correct_but_below_the_threshold() -> None:
    miss = the_miss(ONE_CAT, found((0.45, BOX, CAT)), traced(score=0.45, scores={CAT: 0.45, DOG: 0.45, 0: 0.1}))
    assert (miss.cause, miss.best_label, miss.score) == (Cause.threshold, "cat", 0.45)


def test_removed_by_nms_and_by_which_box() -> None:
    # Two cats share half of their area. The second cat's box was removed by that of the first.
    truth = objects((BOX, CAT), ((0, 4, 10, 14), CAT))
    trace = traced(box=(0, 4, 10, 14), score=0.8, scores={CAT: 0.8}, fate="nms", by=1)
    miss = the_miss(truth, found((0.95, FAR, OWL), (0.9, BOX, CAT)), trace)
    assert (miss.object, miss.cause, miss.fate, miss.by, miss.by_object) == (1, Cause.suppressed, "nms", 1, 0)


def test_a_score_that_the_probability_of_being_the_best_box_lowered() -> None:
    # Before the factor 0.125 the scores are cat 0.8, dog 0.08, background 0.12; after it background is the largest.
    truth = objects((BOX, CAT), ((0, 4, 10, 14), CAT))
    lowered = traced(box=(0, 4, 10, 14), score=0.1, scores={CAT: 0.1, DOG: 0.01, 0: 0.12}, best=0.125)
    detections = found((0.9, BOX, CAT), (0.1, (0, 4, 10, 14), CAT))
    miss = the_miss(truth, detections, replace(lowered, by=1))
    assert (miss.cause, miss.fate, miss.best, miss.by, miss.by_object) == (Cause.suppressed, "not_best", 0.125, 0, 0)
    assert (miss.best_label, miss.best_score, miss.score) == ("cat", 0.1, 0.1)
    # Below the score floor it is no detection, for the same reason.
    assert the_miss(truth, detections, replace(lowered, fate=Fate.below_floor)).cause is Cause.suppressed
    # With a factor of 0.25 it would have had 0.4 only, less than the threshold.
    assert the_miss(truth, detections, replace(lowered, best=0.25)).cause is Cause.threshold


def test_the_factor_changes_neither_background_nor_another_class() -> None:
    background = traced(score=0.1, scores={CAT: 0.1, 0: 0.8}, best=0.5)
    assert the_miss(ONE_CAT, found(), background).cause is Cause.background
    dog = traced(score=0.06, scores={CAT: 0.06, DOG: 0.07, 0: 0.1}, best=0.1)
    assert the_miss(ONE_CAT, found(), dog).cause is Cause.wrong_class
    assert the_miss(ONE_CAT, found(), replace(dog, best=0.0)).cause is Cause.background


def test_its_box_counts_for_a_neighbour() -> None:
    # One detection between two cats: IoU 8/12 with the first, which gets it, and 7/13 with the second.
    truth = objects((BOX, CAT), ((0, 5, 10, 15), CAT))
    between = (0, 2, 10, 12)
    trace = traced(box=between, iou=7 / 13, score=0.9, scores={CAT: 0.9}, fate="kept")
    miss = the_miss(truth, found((0.9, between, CAT)), trace)
    assert (miss.object, miss.cause, miss.by, miss.by_object) == (1, Cause.suppressed, 0, 0)


def test_left_out_by_the_limit_has_no_box_to_blame() -> None:
    trace = traced(score=0.9, scores={CAT: 0.9}, fate="limit")
    miss = the_miss(ONE_CAT, found((0.95, FAR, CAT)), trace)
    assert (miss.cause, miss.fate, miss.by, miss.by_object) == (Cause.suppressed, "limit", None, None)


def test_the_score_of_the_threshold_itself_is_enough() -> None:
    # 0.1 as float32 is above 0.1 as float64: both are compared in float32.
    trace = traced(score=float(np.float32(0.1)), scores={CAT: 0.1}, fate="nms", by=0)
    (miss,) = find_misses("a", ONE_CAT, found((0.9, FAR, CAT)), CLASSES, threshold=0.1, traces=[trace])
    assert miss.cause is Cause.suppressed


def test_an_image_without_regions() -> None:
    trace = traced(proposal_iou=0, proposal_rank=-1, iou=0, rank=-1, score=0, fate="none")
    miss = the_miss(ONE_CAT, found(), trace, [])
    assert (miss.cause, miss.proposal_rank, miss.rank, miss.stored_rank) == (Cause.no_proposal, None, None, None)


def test_found_difficult_and_crowd_objects_are_not_missed() -> None:
    truth = objects((BOX, CAT), (FAR, CAT), (FAR, DOG), difficult=[1], crowd=[2])
    assert find_misses("a", truth, found((0.5, BOX, CAT)), CLASSES, threshold=0.5) == []


def test_an_image_without_objects() -> None:
    assert find_misses("a", objects(), found((0.9, BOX, CAT)), CLASSES, threshold=0.5, traces=[]) == []


def test_another_number_of_traces() -> None:
    with pytest.raises(ValueError, match=r"a: .*trace"):
        find_misses("a", ONE_CAT, found(), CLASSES, threshold=0.5, traces=[])


@pytest.mark.parametrize(
    ("rows", "cause", "by"),
    [
        ([(0.9, BOX, DOG), (0.4, BOX, CAT)], Cause.wrong_class, 0),
        ([(0.9, SHORT, CAT), (0.4, HALF, CAT)], Cause.threshold, 1),
        ([(0.9, FAR, CAT), (0.8, SHORT, CAT), (0.4, SHORT, CAT)], Cause.localisation, 1),
        ([(0.9, FAR, CAT), (0.4, SHORT, CAT), (0.3, BOX, DOG)], Cause.missed, None),
        ([], Cause.missed, None),
    ],
)
def test_without_a_trace(rows: list[tuple[float, tuple[int, ...], int]], cause: Cause, by: int | None) -> None:
    miss = the_miss(ONE_CAT, found(*rows), None)
    assert (miss.cause, miss.by, miss.fate) == (cause, by, "unknown")


def test_without_a_trace_a_box_may_count_for_a_neighbour() -> None:
    truth = objects((BOX, CAT), ((0, 5, 10, 15), CAT))
    miss = the_miss(truth, found((0.9, (0, 2, 10, 12), CAT)), None)
    assert (miss.object, miss.cause, miss.by, miss.by_object) == (1, Cause.suppressed, 0, 0)


CORNERS = st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(1, 6), st.integers(1, 6))
BOXES = CORNERS.map(lambda one: (one[0], one[1], one[0] + one[2], one[1] + one[3]))
OBJECTS = st.lists(st.tuples(BOXES, st.integers(1, 3)), max_size=6)
ROWS = st.lists(st.tuples(st.sampled_from([0.2, 0.4, 0.5, 0.9]), BOXES, st.integers(1, 3)), max_size=8)
SHARE = st.sampled_from([0.0, 0.3, 0.5, 0.9])
TRACES = st.builds(
    traced,
    proposal_iou=SHARE,
    iou=SHARE,
    score=SHARE,
    scores=st.dictionaries(st.integers(0, 3), SHARE, max_size=3),
    fate=st.sampled_from(["kept", "nms", "limit", "voted", "below_floor"]),
    by=st.integers(-1, 3),
)


@settings(max_examples=200, deadline=None)
@given(OBJECTS, ROWS, st.data())
def test_each_object_is_either_found_or_has_one_cause(
    truth_rows: list[tuple[tuple[int, ...], int]],
    rows: list[tuple[float, tuple[int, ...], int]],
    data: st.DataObject,
) -> None:
    truth, detections = objects(*truth_rows), found(*sorted(rows, key=lambda row: -row[0]))
    traces = data.draw(st.none() | st.lists(TRACES, min_size=len(truth), max_size=len(truth)))
    misses = find_misses("a", truth, detections, CLASSES, threshold=0.5, traces=traces)
    hit = hits_by_hand(truth, detections, 0.5)
    assert [miss.object for miss in misses] == [index for index in range(len(truth)) if index not in hit]
    allowed = STAGES if traces is not None else REDUCED
    assert all(miss.cause in allowed for miss in misses)


def hits_by_hand(truth: GroundTruth, detections: Detections, threshold: float) -> set[int]:
    """The found objects, by VOC's rule as a loop."""
    hit: set[int] = set()
    for box, score, label in zip(detections.boxes.tolist(), detections.scores.tolist(), detections.labels, strict=True):
        ious = [
            iou(box, one) if label == own else -1.0 for one, own in zip(truth.boxes.tolist(), truth.labels, strict=True)
        ]
        best = max(range(len(ious)), key=lambda index: ious[index], default=None)
        if score >= threshold and best is not None and ious[best] >= 0.5:
            hit.add(best)
    return hit


def iou(a: list[float], b: list[float]) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)
