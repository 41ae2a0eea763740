"""What happened to each object, on regions whose fate can be worked out by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detpipe import boxes as geometry
from detpipe.classify.detect import ScoredRegions, select
from detpipe.classify.object_trace import Fate, ObjectTrace, trace_objects
from detpipe.classify.settings import DetectConfig
from detpipe.runs.trace_file import from_columns, to_columns
from detpipe.storage.dataclass_json import DataclassJsonError
from detpipe.structures import Detections, GroundTruth

SIZE = (100, 100)
A = [0, 0, 10, 10]


def boxes_of(*rows: list[float]) -> np.ndarray:
    return np.array(rows, np.float32).reshape(-1, 4)


def scored(*rows: list[float], deltas: np.ndarray | None = None) -> ScoredRegions:
    return ScoredRegions(np.array(rows, np.float32).reshape(len(rows), -1), deltas)


def traced(
    boxes: np.ndarray, scores: ScoredRegions, truth: GroundTruth, config: DetectConfig | None = None
) -> tuple[list[ObjectTrace], Detections]:
    config = config or DetectConfig()
    selection = select(boxes, scores, SIZE, config)
    return trace_objects(boxes, scores, SIZE, selection, truth, config.nms_iou), selection.detections


def the_trace(
    boxes: np.ndarray, scores: ScoredRegions, truth: GroundTruth, config: DetectConfig | None = None
) -> ObjectTrace:
    (trace,), _ = traced(boxes, scores, truth, config)
    return trace


ONE = GroundTruth.from_boxes([A], [1])


def test_of_the_regions_that_cover_an_object_the_best_score_counts() -> None:
    boxes = boxes_of(A, [0, 0, 10, 8], [0, 0, 10, 4])
    trace = the_trace(boxes, scored([0.8, 0.2, 0], [0.1, 0.7, 0.2], [0, 1, 0]), ONE)
    assert (trace.box, trace.rank, trace.score, trace.iou) == ((0, 0, 10, 8), 1, pytest.approx(0.7), pytest.approx(0.8))
    assert trace.scores == {0: 0.1, 1: 0.7, 2: 0.2}
    # The best proposal is told apart from it.
    assert (trace.proposal_box, trace.proposal_rank, trace.proposal_iou) == ((0, 0, 10, 10), 0, 1.0)
    assert trace.proposal_scores == {0: 0.8, 1: 0.2, 2: 0.0}


def test_without_one_that_covers_it_the_greatest_iou_counts() -> None:
    truth = GroundTruth.from_boxes([A], [2])
    trace = the_trace(boxes_of([0, 0, 10, 3], [0, 0, 10, 4]), scored([0, 0, 0.9], [0, 0, 0.1]), truth)
    assert (trace.rank, trace.score, trace.iou) == (1, pytest.approx(0.1), pytest.approx(0.4))


def test_boxes_are_moved_by_the_deltas_of_the_objects_class() -> None:
    truth = GroundTruth.from_boxes([[10, 0, 20, 10]], [2])
    deltas = np.zeros((1, 2, 4), np.float32)
    deltas[0, 1, 0] = 1  # by its own width to the right, for class 2 only
    trace = the_trace(boxes_of(A), scored([0.5, 0.1, 0.4], deltas=deltas), truth)
    assert (trace.proposal_box, trace.proposal_iou) == ((0, 0, 10, 10), 0)
    assert (trace.proposal_moved, trace.proposal_moved_iou) == ((10, 0, 20, 10), pytest.approx(1))
    assert (trace.box, trace.fate, trace.by) == ((10, 0, 20, 10), Fate.kept, 0)  # 0.4: before class 1 with 0.1


def test_a_refined_region_may_cover_the_object_but_is_no_proposal() -> None:
    first = ScoredRegions(np.array([[0.5, 0.5]], np.float32), None)
    refined = ScoredRegions(np.array([[0.1, 0.9]], np.float32), None)
    both = first.with_more(boxes_of([0, 0, 10, 3]), boxes_of(A), refined)
    assert both.boxes is not None
    trace = the_trace(both.boxes, both, ONE)
    assert (trace.proposal_rank, trace.proposal_iou, trace.rank, trace.iou) == (0, pytest.approx(0.3), 1, 1)


# The fates. Two coins side by side: the box of the second overlaps that of the first by 11 x 20 of 620.

FIRST, SECOND, COIN = [0, 0, 20, 20], [14, 0, 34, 20], [9, 0, 31, 20]
COINS = GroundTruth.from_boxes([FIRST, SECOND], [1, 1])


def test_a_coin_that_nms_removed() -> None:
    boxes = boxes_of([60, 60, 80, 80], FIRST, COIN)
    scores = scored([0, 0, 1], [0, 1, 0], [0.01, 0.99, 0])
    (one, two), found = traced(boxes, scores, COINS, DetectConfig(nms_iou=0.3))
    assert (one.fate, two.fate) == (Fate.kept, Fate.nms)
    assert (two.score, two.box) == (pytest.approx(0.99), (9, 0, 31, 20))
    assert two.iou == pytest.approx(340 / 500)  # 17 x 20 of 20 x 20 + 22 x 20 - 17 x 20
    # The box that removed it is named by its place among the detections of all classes.
    assert two.by == one.by
    assert found.boxes[two.by].tolist() == FIRST
    assert float(geometry.iou(boxes_of(COIN), found.boxes[[two.by]])[0, 0]) == pytest.approx(220 / 620)
    # With a greater nms_iou it stays.
    _, kept = traced(boxes, scores, COINS, DetectConfig(nms_iou=0.36))[0]
    assert kept.fate is Fate.kept


def test_the_limit_leaves_a_box_out() -> None:
    boxes = boxes_of([60, 60, 80, 80], A)
    trace = the_trace(boxes, scored([0.1, 0.9], [0.2, 0.8]), ONE, DetectConfig(max_detections=1))
    assert (trace.fate, trace.by) == (Fate.limit, -1)


def test_the_box_that_removed_it_may_be_beyond_the_limit_itself() -> None:
    boxes = boxes_of([60, 60, 80, 80], FIRST, COIN)
    scores = scored([0.1, 0.9], [0.2, 0.8], [0.3, 0.7])
    one, two = traced(boxes, scores, COINS, DetectConfig(max_detections=1))[0]
    assert (one.fate, two.fate, two.by) == (Fate.limit, Fate.nms, -1)


def test_voting_moves_a_box_that_was_kept() -> None:
    boxes = boxes_of([0, 0, 10, 8], [0, 0, 10, 10])
    (trace,), found = traced(boxes, scored([0.1, 0.9], [0.4, 0.6]), ONE, DetectConfig(vote_iou=0.5))
    assert (trace.fate, trace.by, trace.box) == (Fate.voted, 0, (0, 0, 10, 8))
    assert found.boxes[0].tolist() == pytest.approx([0, 0, 10, 8.8])  # (0.9 * 8 + 0.6 * 10) / 1.5
    # Alone it votes for itself.
    assert the_trace(boxes[:1], scored([0.1, 0.9]), ONE, DetectConfig(vote_iou=0.5)).fate is Fate.kept


def test_a_score_below_the_floor() -> None:
    trace = the_trace(boxes_of(A), scored([0.9, 0.1]), ONE, DetectConfig(score_floor=0.2))
    assert (trace.fate, trace.by) == (Fate.below_floor, -1)


def test_no_regions_no_objects_and_a_region_beside_the_image() -> None:
    nothing = ScoredRegions(np.zeros((0, 2), np.float32), None)
    trace = the_trace(boxes_of(), nothing, ONE)
    assert (trace.fate, trace.rank, trace.proposal_rank, trace.iou, trace.scores) == (Fate.none, -1, -1, 0, {})
    assert traced(boxes_of(A), scored([0.5, 0.5]), GroundTruth.from_boxes([], []))[0] == []
    assert the_trace(boxes_of([200, 200, 210, 210]), scored([0.1, 0.9]), ONE).fate is Fate.none


def test_of_many_classes_the_best_five_are_kept() -> None:
    scores = np.full(82, 0.001, np.float32)
    scores[[3, 7, 11, 60, 80, 81]] = [0.2, 0.1, 0.15, 0.12, 0.05, 0.04]
    trace = the_trace(boxes_of(A), ScoredRegions(scores[None], None), ONE)
    assert list(trace.scores) == [0, 1, 3, 7, 11, 60, 80]


@given(st.data())
def test_the_fate_is_that_of_the_selection(data: st.DataObject) -> None:
    count, seed = data.draw(st.integers(1, 12)), data.draw(st.integers(0, 10**6))
    config = DetectConfig(
        nms_iou=data.draw(st.sampled_from([0.0, 0.3, 0.5, 1.0])),
        vote_iou=data.draw(st.sampled_from([None, 0.5])),
        max_detections=data.draw(st.integers(1, 8)),
        score_floor=data.draw(st.sampled_from([0.0, 0.2])),
    )
    generator = np.random.default_rng(seed)
    corners = generator.integers(0, 20, (count, 2))
    boxes = np.concatenate([corners, corners + generator.integers(1, 12, (count, 2))], axis=1).astype(np.float32)
    scores = generator.integers(1, 8, (count, 3)).astype(np.float32)
    truth = GroundTruth.from_boxes(boxes[: min(4, count)], generator.integers(1, 3, min(4, count)))
    (traces, found) = traced(boxes, ScoredRegions(scores / scores.sum(axis=1, keepdims=True), None), truth, config)
    for label, trace in zip(truth.labels.tolist(), traces, strict=True):
        box = boxes_of(list(trace.box))
        assert trace.iou >= trace.proposal_moved_iou or trace.iou >= 0.5
        assert (trace.score < np.float32(config.score_floor)) == (trace.fate is Fate.below_floor)
        if trace.by >= 0:
            assert found.labels[trace.by] == label
        if trace.fate in (Fate.kept, Fate.voted):
            assert found.scores[trace.by] == np.float32(trace.score)
            assert (trace.fate is Fate.kept) == np.array_equal(found.boxes[trace.by], box[0])
        if trace.fate is Fate.limit:
            assert len(found) == config.max_detections
            assert found.scores[-1] >= np.float32(trace.score)
        if trace.fate is Fate.nms and trace.by >= 0:
            assert found.scores[trace.by] >= np.float32(trace.score)
            if config.vote_iou is None:
                assert float(geometry.iou(box, found.boxes[[trace.by]])[0, 0]) > config.nms_iou


def test_columns_are_read_back() -> None:
    boxes = boxes_of([60, 60, 80, 80], FIRST, COIN)
    traces, _ = traced(boxes, scored([0, 0, 1], [0, 1, 0], [0.01, 0.99, 0]), COINS)
    text = json.dumps(to_columns(traces))
    assert from_columns(json.loads(text), "here") == traces
    assert from_columns(json.loads(json.dumps(to_columns([]))), "here") == []


def test_the_factor_of_the_best_box_is_kept_and_older_files_have_none() -> None:
    scores = ScoredRegions(
        np.array([[0.2, 0.1], [0.3, 0.6]], np.float32), None, best=np.array([0.125, 0.75], np.float32)
    )
    (trace,), _ = traced(boxes_of(A, [0, 0, 10, 9]), scores, ONE)
    assert (trace.rank, trace.best) == (1, 0.75)
    columns = json.loads(json.dumps(to_columns([trace])))
    assert from_columns(columns, "here") == [trace]
    del columns["best"]
    assert from_columns(columns, "here")[0].best == 1


@pytest.mark.parametrize(
    ("key", "value"),
    [("fate", ["lost", "nms"]), ("box", [[0, 0, 1, 1]]), ("scores", [{"one": 0.5}, {}]), ("by", ["0", "0"])],
)
def test_damaged_columns(key: str, value: object) -> None:
    boxes = boxes_of(FIRST, COIN)
    traces, _ = traced(boxes, scored([0, 1, 0], [0.01, 0.99, 0]), COINS)
    columns = json.loads(json.dumps(to_columns(traces)))
    with pytest.raises(DataclassJsonError, match="here: "):
        from_columns({**columns, key: value}, "here")
