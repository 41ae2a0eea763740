"""Crops in batches, and from scores to detections; small answers by hand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detpipe.boxes import encode
from detpipe.classify.detect import ScoredRegions, batches_of, best_of, of_readable, select_detections
from detpipe.classify.settings import DetectConfig, Duplicates, FastRcnnScoringConfig
from detpipe.solver.prefetch import read_ahead
from detpipe.structures import Float32Array, Image
from tests.classify import tiny


def boxes_of(*rows: tuple[float, float, float, float]) -> Float32Array:
    return np.array(rows, dtype=np.float32).reshape(-1, 4)


def scored(*rows: tuple[float, ...], deltas: Float32Array | None = None) -> ScoredRegions:
    return ScoredRegions(np.array(rows, dtype=np.float32), deltas)


# Batches


def test_batches_by_hand() -> None:
    images = [np.full((count, 1, 1, 3), count, dtype=np.uint8) for count in (2, 0, 5, 1)]
    batches = [(crops[:, 0, 0, 0].tolist(), counts) for crops, counts in batches_of(images, 3)]
    assert batches == [([2, 2, 5], [2, 0, 5]), ([5, 5, 5], []), ([5, 1], [1])]


def test_batches_of_little() -> None:
    nothing = np.zeros((0, 4, 4, 3), dtype=np.uint8)
    assert list(batches_of([], 3)) == []
    ((crops, counts),) = batches_of([nothing, nothing], 3)
    assert len(crops) == 0
    assert counts == [0, 0]
    # Images without crops after a full batch come with an empty one.
    first, second = batches_of([np.zeros((3, 4, 4, 3), dtype=np.uint8), nothing], 3)
    assert (len(first[0]), first[1]) == (3, [3])
    assert (len(second[0]), second[1]) == (0, [0])


@given(st.lists(st.integers(0, 9), max_size=12), st.integers(1, 7))
def test_batches_lose_nothing(counts: list[int], size: int) -> None:
    numbers = iter(range(1000))
    images = [np.array([next(numbers) for _ in range(n)], dtype=np.uint8).reshape(n, 1, 1, 1) for n in counts]
    batches = list(batches_of(images, size))
    assert [number for crops, _ in batches for number in crops.ravel().tolist()] == list(range(sum(counts)))
    assert [count for _, part in batches for count in part] == counts
    assert all(len(crops) == size for crops, _ in batches[:-1])
    # An image is announced no later than its first crop.
    announced = seen = 0
    for crops, part in batches:
        announced, seen = announced + sum(part), seen + len(crops)
        assert announced >= seen


def test_batches_are_drawn_as_they_are_needed() -> None:
    taken = []

    def images() -> Iterator[Image]:
        for number in range(100):
            taken.append(number)
            yield tiny.crops(2)

    next(batches_of(images(), 6))
    assert len(taken) == 3


# Detections


def test_nothing_is_suppressed_with_learned_duplicates() -> None:
    boxes = boxes_of((0, 0, 10, 10), (0, 0, 10, 10), (0, 0, 10, 9))
    one = scored((0.1, 0.9), (0.5, 0.5), (0.4, 0.6))
    for duplicates, scores in (
        (Duplicates.learned, [0.9, 0.6, 0.5]),
        (Duplicates.both, [0.9]),
        (Duplicates.nms, [0.9]),
    ):
        config = DetectConfig(fast_rcnn=FastRcnnScoringConfig(duplicates=duplicates))
        assert select_detections(boxes, one, (50, 50), config).scores.tolist() == pytest.approx(scores)


def test_floor_nms_and_order_by_hand() -> None:
    boxes = boxes_of((0, 0, 10, 10), (0, 0, 10, 8), (20, 0, 30, 10), (40, 0, 50, 10))
    # Of the first two, IoU 0.8, the better one stays; the last is under the floor.
    found = select_detections(
        boxes,
        scored((0.2, 0.8), (0.1, 0.9), (0.5, 0.5), (0.96, 0.04)),
        (20, 60),
        DetectConfig(score_floor=0.05, nms_iou=0.3),
    )
    assert found.boxes.tolist() == [[0, 0, 10, 8], [20, 0, 30, 10]]
    np.testing.assert_allclose(found.scores, [0.9, 0.5])
    assert found.labels.tolist() == [1, 1]


def test_a_score_at_the_floor_stays() -> None:
    found = select_detections(boxes_of((0, 0, 5, 5)), scored((0.75, 0.25)), (9, 9), DetectConfig(score_floor=0.25))
    assert len(found) == 1


def test_nms_is_of_each_class_by_itself() -> None:
    boxes = boxes_of((0, 0, 10, 10), (0, 0, 10, 9))
    found = select_detections(boxes, scored((0.1, 0.5, 0.4), (0.1, 0.3, 0.6)), (20, 20), DetectConfig())
    assert list(zip(found.labels.tolist(), found.boxes[:, 3].tolist(), strict=True)) == [(2, 9), (1, 10)]


def test_each_class_moves_the_box_by_its_own_deltas() -> None:
    boxes = boxes_of((10, 10, 20, 20))
    targets = [boxes_of((12, 10, 22, 30)), boxes_of((5, 8, 15, 14))]
    deltas = np.stack([encode(boxes, target) for target in targets], axis=1)
    found = select_detections(boxes, scored((0.0, 0.6, 0.4), deltas=deltas), (100, 100), DetectConfig())
    assert found.labels.tolist() == [1, 2]
    np.testing.assert_allclose(found.boxes, np.concatenate(targets), atol=1e-4)


def test_moved_boxes_are_clipped_and_empty_ones_dropped() -> None:
    boxes = boxes_of((0, 0, 10, 10), (30, 0, 40, 10))
    deltas = np.zeros((2, 1, 4), dtype=np.float32)
    deltas[0, 0, 0] = -0.5  # half out on the left
    deltas[1, 0, 0] = 3.0  # beyond the right border
    found = select_detections(boxes, scored((0.1, 0.9), (0.1, 0.9), deltas=deltas), (20, 40), DetectConfig())
    np.testing.assert_allclose(found.boxes, [[0, 0, 5, 10]])


def test_no_more_than_max_detections_over_all_classes() -> None:
    boxes = boxes_of(*((20 * i, 0, 20 * i + 10, 10) for i in range(6)))
    rows = [(0.0, 0.9 - 0.1 * i, 0.1 + 0.1 * i) for i in range(6)]
    found = select_detections(boxes, scored(*rows), (10, 200), DetectConfig(max_detections=3))
    np.testing.assert_allclose(found.scores, [0.9, 0.8, 0.7], atol=1e-6)
    assert found.labels.tolist() == [1, 1, 1]


def test_no_regions_give_no_detections() -> None:
    for deltas in (None, np.zeros((0, 2, 4), dtype=np.float32)):
        empty = ScoredRegions(np.zeros((0, 3), dtype=np.float32), deltas)
        found = select_detections(boxes_of(), empty, (10, 10), DetectConfig())
        assert (found.boxes.shape, found.scores.shape, found.labels.shape) == ((0, 4), (0,), (0,))


def test_ties_are_broken_by_the_box_and_then_by_the_label() -> None:
    half = np.array([0.5], dtype=np.float32)
    left, right = boxes_of((0, 0, 5, 5)), boxes_of((9, 0, 12, 5))
    one = best_of([(right, half, 1), (left, half, 2), (left, half, 3)], 10)
    assert one.boxes[:, 0].tolist() == [0, 0, 9]
    assert one.labels.tolist() == [2, 3, 1]
    assert best_of([(right, half, 1), (left, half, 2)], 1).labels.tolist() == [2]
    assert len(best_of([], 5)) == 0


@given(st.integers(0, 20), st.integers(0, 1000))
def test_the_order_of_the_regions_changes_nothing(count: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    corners = generator.integers(0, 30, (count, 2))
    boxes = np.concatenate([corners, corners + generator.integers(1, 30, (count, 2))], axis=1).astype(np.float32)
    probabilities = generator.dirichlet((1, 1, 1), count).reshape(-1, 3).round(1).astype(np.float32)
    order = generator.permutation(count)
    one = select_detections(boxes, ScoredRegions(probabilities, None), (40, 40), DetectConfig())
    two = select_detections(boxes[order], ScoredRegions(probabilities[order], None), (40, 40), DetectConfig())
    np.testing.assert_array_equal(one.boxes, two.boxes)
    np.testing.assert_array_equal(one.scores, two.scores)
    np.testing.assert_array_equal(one.labels, two.labels)


@pytest.mark.parametrize(
    "values",
    [{"nms_iou": 1.5}, {"score_floor": -0.1}, {"max_proposals": 0}, {"max_detections": 0}, {"batch_size": 0}],
)
def test_settings_that_make_no_sense(values: dict[str, float]) -> None:
    with pytest.raises(
        ValueError, match=rf"detect.*{next(iter(values))}.*expected|detect: expected.*{next(iter(values))}"
    ):
        DetectConfig(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize(
    "items", [[], [1], [None], [1, None, 2], [None, None, 1, 2, None, 3, None, None], [*range(20), None, 7]]
)
def test_results_of_a_stream_with_gaps_keep_their_places(items: list[int | None], ahead: bool) -> None:
    def tenfold(numbers: Iterable[int]) -> Iterator[int]:
        for number in read_ahead(numbers) if ahead else numbers:
            yield 10 * number

    assert list(of_readable(tenfold, items)) == [None if one is None else 10 * one for one in items]
