"""Counts at score thresholds: by hand, and as matching only the shown detections would count."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from detpipe.metrics.matching import match_detections
from detpipe.metrics.operating_point import best_f1
from detpipe.metrics.threshold_counts import threshold_counts
from detpipe.structures import Detections, GroundTruth


def found(boxes: list[list[float]], scores: list[float], labels: list[int]) -> Detections:
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32), np.array(labels, np.int64)
    )


def test_by_hand() -> None:
    truth = {"a": GroundTruth.from_boxes([[0, 0, 10, 10], [20, 0, 30, 10]], [1, 2])}
    # Found, a duplicate of it, and a dog far from the dog.
    shown = {"a": found([[0, 0, 10, 10], [0, 0, 10, 9], [50, 0, 60, 10]], [0.9, 0.5, 0.3], [1, 1, 2])}
    counts = threshold_counts(truth, shown, [0.0, 0.5, 0.6, 0.95], n_classes=2)
    assert counts.objects.tolist() == [1, 1]
    assert counts.shown.tolist() == [[2, 2, 1, 0], [1, 0, 0, 0]]
    assert counts.correct.tolist() == [[1, 1, 1, 0], [0, 0, 0, 0]]


def test_difficult_objects_and_what_lies_on_them_do_not_count() -> None:
    truth = GroundTruth(
        np.array([[0, 0, 10, 10]], np.float32), np.array([1]), np.array([True]), np.array([False]), np.float32([100])
    )
    counts = threshold_counts({1: truth}, {1: found([[0, 0, 10, 10]], [0.9], [1])}, [0.1], n_classes=1)
    assert (counts.objects.tolist(), counts.shown.tolist(), counts.correct.tolist()) == ([0], [[0]], [[0]])


def test_nothing_gives_zeros() -> None:
    counts = threshold_counts({}, {}, [0.5], n_classes=3)
    assert counts.objects.tolist() == [0, 0, 0]
    assert counts.shown.tolist() == counts.correct.tolist() == [[0], [0], [0]]
    assert threshold_counts({}, {}, [], n_classes=0).shown.shape == (0, 0)


@st.composite
def scenes(draw: st.DrawFn) -> tuple[dict[int, GroundTruth], dict[int, Detections], list[float]]:
    """Objects and detections on a coarse grid, so that many overlap and scores are often equal."""
    box = st.tuples(st.integers(0, 3), st.integers(0, 3)).map(
        lambda p: [p[0] * 4, p[1] * 4, p[0] * 4 + 8, p[1] * 4 + 8]
    )
    label, score = st.integers(1, 2), st.sampled_from([0.1, 0.25, 0.43, 0.8])
    truth, shown = {}, {}
    for image in range(draw(st.integers(0, 3))):
        objects = draw(st.lists(st.tuples(box, label, st.booleans(), st.booleans()), max_size=4))
        gt = GroundTruth.from_boxes([one[0] for one in objects], [one[1] for one in objects])
        flags = [np.array([one[i] for one in objects], np.bool_) for i in (2, 3)]
        truth[image] = GroundTruth(gt.boxes, gt.labels, flags[0], flags[1], gt.areas)
        rows = sorted(draw(st.lists(st.tuples(box, score, label), max_size=6)), key=lambda row: -row[1])
        shown[image] = found([row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows])
    return truth, shown, draw(st.lists(st.sampled_from([0.0, 0.1, 0.3, 0.43, 0.9]), max_size=4))


@given(scenes())
def test_as_if_only_the_shown_ones_were_matched(
    scene: tuple[dict[int, GroundTruth], dict[int, Detections], list[float]],
) -> None:
    truth, detections, thresholds = scene
    counts = threshold_counts(truth, detections, thresholds, n_classes=2)
    for t, threshold in enumerate(thresholds):
        for label in (1, 2):
            shown = correct = 0
            for image, gt in truth.items():
                n = int((detections[image].scores >= np.float32(threshold)).sum())
                some = Detections(*(getattr(detections[image], name)[:n] for name in ("boxes", "scores", "labels")))
                matches = match_detections(gt, some)
                own = some.labels == label
                shown += int((own & ~matches.ignored).sum())
                correct += int((own & matches.true_positive).sum())
            assert (counts.shown[label - 1, t], counts.correct[label - 1, t]) == (shown, correct)


@given(scenes())
def test_precision_and_recall_are_those_of_the_operating_point(
    scene: tuple[dict[int, GroundTruth], dict[int, Detections], list[float]],
) -> None:
    truth, detections, _ = scene
    point = best_f1(truth, detections)
    if point is not None:
        counts = threshold_counts(truth, detections, [point.score], n_classes=2)
        assert counts.correct.sum() / counts.shown.sum() == point.precision
        assert counts.correct.sum() / counts.objects.sum() == point.recall
