"""The structures refuse what has another shape, dtype or order, and say so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detpipe.structures import (
    Dataset,
    Detections,
    GroundTruth,
    ImageRecord,
    LoadedTruth,
    Proposals,
    WrittenDetections,
    WrittenTruth,
)

BOXES = np.array([[0, 0, 4, 4], [1, 1, 3, 5]], dtype=np.float32)
SCORES = np.array([0.9, 0.2], dtype=np.float32)
LABELS = np.array([1, 2], dtype=np.int64)


def test_empty_ones_have_the_usual_shapes() -> None:
    truth = GroundTruth.from_boxes([], [])
    assert (truth.boxes.shape, truth.labels.shape, truth.areas.dtype) == ((0, 4), (0,), np.float32)
    none = np.zeros(0, dtype=np.float32)
    assert len(Proposals(truth.boxes, none)) == len(Detections(truth.boxes, none, truth.labels)) == len(truth) == 0
    assert len(Proposals(truth.boxes, none).top(5)) == 0
    assert len(truth[truth.crowd]) == 0


def test_from_boxes_makes_plain_objects() -> None:
    truth = GroundTruth.from_boxes([[0, 0, 4, 4], [1, 1, 3, 5]], [1, 2])
    assert truth.areas.tolist() == [16, 8]
    assert not truth.difficult.any()
    assert not truth.crowd.any()
    assert truth.labels.dtype == np.int64


def test_indexing_takes_every_field() -> None:
    truth = GroundTruth(BOXES, LABELS, np.array([True, False]), np.array([False, True]), np.array([5, 6], np.float32))
    second = truth[np.array([1])]
    assert second.boxes.tolist() == [[1, 1, 3, 5]]
    assert (second.labels[0], second.difficult[0], second.crowd[0], second.areas[0]) == (2, False, True, 6)
    assert len(truth[truth.difficult]) == 1


def test_top_keeps_the_best() -> None:
    proposals = Proposals(BOXES, SCORES)
    assert proposals.top(1).boxes.tolist() == [[0, 0, 4, 4]]
    assert len(proposals.top(10)) == 2


@pytest.mark.parametrize(
    ("boxes", "scores", "words"),
    [
        (BOXES.astype(np.float64), SCORES, r"Proposals.boxes: expected \(N, 4\) float32, got \(2, 4\) float64"),
        (BOXES[:, :3], SCORES, r"got \(2, 3\)"),
        (BOXES, SCORES[:1], r"Proposals.scores: expected \(2\) float32, got \(1,\)"),
        (BOXES, SCORES[::-1].copy(), "expected descending order"),
        (BOXES, np.array([0.5, np.nan], np.float32), "NaN"),
        (np.array([[0, 0, np.inf, 1]], np.float32), SCORES[:1], "finite"),
        (np.array([[4, 0, 2, 1]], np.float32), SCORES[:1], "x1 <= x2"),
        (BOXES.tolist(), SCORES, "numpy array, got list"),
    ],
)
def test_refused(boxes: Any, scores: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Proposals(boxes, scores)


def test_detections_check_labels_too() -> None:
    with pytest.raises(ValueError, match=r"Detections.labels: expected \(2\) int64, got \(2,\) int32"):
        Detections(BOXES, SCORES, LABELS.astype(np.int32))
    with pytest.raises(ValueError, match="expected descending order"):
        Detections(BOXES, SCORES[::-1].copy(), LABELS)


def test_ground_truth_has_no_background() -> None:
    with pytest.raises(ValueError, match="0 is background"):
        GroundTruth.from_boxes(BOXES, [0, 1])
    with pytest.raises(ValueError, match=r"GroundTruth\.labels"):
        GroundTruth.from_boxes(BOXES, [1])


def dataset(**changes: Any) -> Dataset:
    records = (ImageRecord("a", Path("a.jpg"), (4, 6)), ImageRecord("b", Path("b.jpg"), (4, 6)))
    empty = GroundTruth.from_boxes([], [])
    values: dict[str, Any] = {
        "name": "toy",
        "classes": ("cat", "dog"),
        "category_ids": (1, 2),
        "records": records,
        "ground_truth": {"a": empty, "b": empty},
    }
    return Dataset(**{**values, **changes})


def test_dataset() -> None:
    assert len(dataset()) == 2
    assert len(dataset(records=(), ground_truth={})) == 0
    assert dataset(ground_truth=None).ground_truth is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"classes": ("cat", "cat")}, "expected unique class names"),
        ({"category_ids": (1,)}, "expected 2 category ids.*got 1"),
        ({"records": (ImageRecord("a", Path("a.jpg"), (4, 6)),) * 2}, "expected unique image ids"),
        (
            {"ground_truth": {"a": GroundTruth.from_boxes([], [])}},
            r"expected ground truth .*\['b'\]; give an empty one",
        ),
    ],
)
def test_dataset_refuses(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        dataset(**changes)


def test_objects_of_a_file_are_measured_as_written() -> None:
    plain = GroundTruth.from_boxes([[0, 0, 5, 5]], [1])
    assert plain.measured is plain
    written = GroundTruth.from_boxes([[-5, 0, 5, 5], [9, 9, 9, 9]], [1, 2])
    loaded = LoadedTruth(plain.boxes, plain.labels, plain.difficult, plain.crowd, plain.areas, written)
    assert loaded.measured is written
    assert type(loaded[np.array([True])]) is GroundTruth  # some of the objects are no longer those of the file
    records = (ImageRecord("a", Path("a.jpg"), (9, 9)),)
    dataset = Dataset("set", ("cat", "dog"), (1, 2), records, {"a": loaded, "left out": plain})
    assert dataset.measured_truth == {"a": written}
    assert Dataset("set", (), (), records, None).measured_truth is None


def test_the_numbers_of_a_file_have_their_shape_and_dtype() -> None:
    none, no_boxes = np.zeros(0, np.bool_), np.zeros((0, 4), np.float32)
    empty = (no_boxes, np.zeros(0, np.int64), none, none, np.zeros(0, np.float32))
    assert len(WrittenTruth(*empty, xywh=np.zeros((0, 4)), written_areas=np.zeros(0))) == 0
    with pytest.raises(ValueError, match=r"WrittenTruth\.xywh: expected \(0, 4\) float64"):
        WrittenTruth(*empty, xywh=no_boxes, written_areas=np.zeros(0))
    found = (no_boxes, np.zeros(0, np.float32), np.zeros(0, np.int64))
    with pytest.raises(ValueError, match=r"WrittenDetections\.written_scores"):
        WrittenDetections(*found, xywh=np.zeros((0, 4)), written_scores=np.zeros(1))


def three() -> Detections:
    boxes = np.array([[0, 0, 5, 5], [1, 1, 3, 4], [2, 2, 9, 9]], np.float32)
    return Detections(boxes, np.array([0.9, 0.5, 0.2], np.float32), np.array([2, 1, 2]))


@pytest.mark.parametrize(
    ("index", "kept"),
    [
        ([True, False, True], [0, 2]),
        (slice(1, None), [1, 2]),
        (np.array([0, 2]), [0, 2]),
        (-1, [2]),
        (np.int64(1), [1]),
        ([], []),
        (slice(0, 0), []),
    ],
)
def test_detections_are_indexed_as_an_array(index: Any, kept: list[int]) -> None:
    found = three()
    chosen = found[index]
    np.testing.assert_array_equal(chosen.boxes, found.boxes[kept])
    np.testing.assert_array_equal(chosen.scores, found.scores[kept])
    np.testing.assert_array_equal(chosen.labels, found.labels[kept])


def test_a_mask_of_scores_chooses_detections() -> None:
    found = three()
    assert found[found.scores > 0.4].labels.tolist() == [2, 1]


@pytest.mark.parametrize("index", [3, -4, [True], "label", 0.5, [2, 0], slice(None, None, -1), [[0]]])
def test_an_index_that_does_not_fit_is_refused(index: Any) -> None:
    with pytest.raises(IndexError, match="expected"):
        three()[index]


def test_iteration_gives_each_detection() -> None:
    box, score, label, name = next(iter(three()))
    assert (box.tolist(), round(score, 2), label, name) == ([0, 0, 5, 5], 0.9, 2, None)
    assert len([*three()]) == 3
    assert [*three()[[]]] == []


def test_detections_read_well() -> None:
    assert repr(three()[:2]) == "Detections(label 2 0.90, label 1 0.50)"
    assert repr(three()[[]]) == "Detections(no objects)"
    many = Detections(np.zeros((9, 4), np.float32), np.zeros(9, np.float32), np.ones(9, np.int64))
    assert repr(many).endswith("4 more)")
    assert str(three()).splitlines()[1].split() == ["label", "2", "0.900", "0.0", "0.0", "5.0", "5.0"]


def test_detections_of_a_file_keep_their_numbers_when_indexed() -> None:
    found = WrittenDetections(
        **{name: getattr(three(), name) for name in ("boxes", "scores", "labels")},
        xywh=np.arange(12.0).reshape(3, 4),
        written_scores=np.array([0.9, 0.5, 0.2]),
    )
    assert found[1].xywh.tolist() == [[4, 5, 6, 7]]
    assert isinstance(found[:0], WrittenDetections)
