"""Box geometry: by hand, by property, and against torchvision and a brute-force NMS."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torchvision.ops import box_iou

from detpipe import boxes as geometry
from detpipe.structures import Float32Array

EMPTY = np.zeros((0, 4), dtype=np.float32)


def boxes_of(*rows: tuple[float, float, float, float]) -> Float32Array:
    return np.array(rows, dtype=np.float32).reshape(-1, 4)


@st.composite
def box_arrays(draw: st.DrawFn, *, least_side: int = 0, max_boxes: int = 12) -> Float32Array:
    """Boxes on a grid of halves, so that areas are exact in float32."""
    n = draw(st.integers(0, max_boxes))
    corners = draw(hnp.arrays(np.int64, (n, 2), elements=st.integers(-40, 40)))
    sides = draw(hnp.arrays(np.int64, (n, 2), elements=st.integers(least_side, 60)))
    return (np.concatenate([corners, corners + sides], axis=1) / 2).astype(np.float32)


def brute_force_nms(boxes: Float32Array, scores: Float32Array, threshold: float) -> list[int]:
    order = sorted(range(len(boxes)), key=lambda i: (-scores[i], *boxes[i].tolist()))
    kept: list[int] = []
    for i in order:
        overlaps = [geometry.iou(boxes[[i]], boxes[[j]])[0, 0] for j in kept]
        if all(not overlap > np.float32(threshold) for overlap in overlaps):
            kept.append(i)
    return kept


def test_area_by_hand() -> None:
    areas = geometry.area(boxes_of((0, 0, 4, 3), (1.5, 2, 2, 4), (5, 5, 5, 9)))
    assert areas.dtype == np.float32
    assert areas.tolist() == [12, 1, 0]


def test_clip_takes_height_before_width() -> None:
    clipped = geometry.clip(boxes_of((-5, -5, 50, 50), (2, 3, 4, 5), (30, 1, 40, 2)), (10, 20))
    assert clipped.dtype == np.float32
    assert clipped.tolist() == [[0, 0, 20, 10], [2, 3, 4, 5], [20, 1, 20, 2]]


def test_intersection_and_iou_by_hand() -> None:
    a = boxes_of((0, 0, 10, 10), (20, 20, 30, 30))
    b = boxes_of((5, 5, 15, 15), (0, 0, 10, 5), (10, 0, 20, 10))
    assert geometry.intersection(a, b).tolist() == [[25, 50, 0], [0, 0, 0]]
    np.testing.assert_allclose(geometry.iou(a, b), [[25 / 175, 0.5, 0], [0, 0, 0]], rtol=1e-6)


def test_iou_of_two_empty_boxes_is_zero() -> None:
    point = boxes_of((3, 3, 3, 3))
    assert geometry.iou(point, point).tolist() == [[0]]


def test_overlap_of_first_is_a_share_of_the_first() -> None:
    crowd = boxes_of((0, 0, 100, 100))
    assert geometry.overlap_of_first(boxes_of((0, 0, 10, 10), (95, 0, 105, 10), (5, 5, 5, 9)), crowd).tolist() == [
        [1],
        [0.5],
        [0],
    ]


def test_no_boxes() -> None:
    some = boxes_of((0, 0, 1, 1), (0, 0, 2, 2))
    assert geometry.area(EMPTY).shape == (0,)
    assert geometry.clip(EMPTY, (5, 5)).shape == (0, 4)
    for pairwise in (geometry.intersection, geometry.iou, geometry.overlap_of_first):
        assert pairwise(EMPTY, some).shape == (0, 2)
        assert pairwise(some, EMPTY).shape == (2, 0)
        assert pairwise(EMPTY, EMPTY).dtype == np.float32
    none = np.zeros(0, dtype=np.float32)
    assert geometry.rank(EMPTY, none).shape == geometry.nms(EMPTY, none, 0.5).shape == (0,)
    assert geometry.nms(EMPTY, none, 0.5).dtype == np.int64
    assert geometry.encode(EMPTY, EMPTY).shape == geometry.decode(EMPTY, EMPTY).shape == (0, 4)
    assert geometry.decode(EMPTY, EMPTY).dtype == np.float32


@given(box_arrays(least_side=1), box_arrays(least_side=1))
def test_iou_is_torchvisions(a: Float32Array, b: Float32Array) -> None:
    np.testing.assert_array_equal(geometry.iou(a, b), box_iou(torch.from_numpy(a), torch.from_numpy(b)).numpy())


@given(box_arrays(), box_arrays())
def test_iou_is_symmetric_and_a_share(a: Float32Array, b: Float32Array) -> None:
    overlaps = geometry.iou(a, b)
    np.testing.assert_array_equal(overlaps, geometry.iou(b, a).T)
    assert ((overlaps >= 0) & (overlaps <= 1)).all()
    own = geometry.iou(a, a)
    np.testing.assert_array_equal(np.diag(own), (geometry.area(a) > 0).astype(np.float32))


@given(box_arrays(), st.randoms(use_true_random=False))
def test_rank_does_not_depend_on_the_order_given(boxes: Float32Array, random: object) -> None:
    scores = np.array([i % 3 for i in range(len(boxes))], dtype=np.float32)
    shuffle = np.random.default_rng(random.randrange(1 << 30)).permutation(len(boxes))  # type: ignore[attr-defined]
    first = geometry.rank(boxes, scores)
    second = shuffle[geometry.rank(boxes[shuffle], scores[shuffle])]
    np.testing.assert_array_equal(boxes[first], boxes[second])
    np.testing.assert_array_equal(scores[first], scores[second])
    assert (np.diff(scores[first]) <= 0).all()


def test_rank_breaks_ties_by_the_box() -> None:
    boxes = boxes_of((1, 0, 9, 9), (0, 5, 9, 9), (0, 5, 8, 9), (0, 5, 8, 7), (7, 7, 8, 8))
    assert geometry.rank(boxes, np.array([1, 1, 1, 1, 2], dtype=np.float32)).tolist() == [4, 3, 2, 1, 0]


def test_nms_by_hand() -> None:
    boxes = boxes_of((0, 0, 10, 10), (0, 0, 10, 9), (50, 50, 60, 60), (0, 0, 10, 5))
    scores = np.array([0.8, 0.9, 0.1, 0.7], dtype=np.float32)
    assert geometry.nms(boxes, scores, 0.5).tolist() == [1, 2]
    assert geometry.nms(boxes, scores, 0.6).tolist() == [1, 3, 2]


@pytest.mark.parametrize("tenths", range(1, 10))
def test_nms_keeps_an_iou_of_exactly_the_threshold(tenths: int) -> None:
    boxes = boxes_of((0, 0, 10, 1), (0, 0, tenths, 1))
    scores = np.array([1, 0.5], dtype=np.float32)
    assert geometry.nms(boxes, scores, tenths / 10).tolist() == [0, 1]
    assert geometry.nms(boxes, scores, tenths / 10 - 0.001).tolist() == [0]


@given(box_arrays(), st.sampled_from([0.0, 0.25, 0.3, 0.5, 0.7, 1.0]), st.integers(0, 1 << 30))
def test_nms_is_brute_force(boxes: Float32Array, threshold: float, seed: int) -> None:
    scores = np.random.default_rng(seed).integers(0, 4, len(boxes)).astype(np.float32) / 4
    assert geometry.nms(boxes, scores, threshold).tolist() == brute_force_nms(boxes, scores, threshold)


def test_encode_by_hand() -> None:
    deltas = geometry.encode(boxes_of((0, 0, 10, 20)), boxes_of((5, 0, 25, 10)))
    # Centres (5, 10) and (15, 5): 10 of 10 wide to the right, 5 of 20 high up; twice as wide, half as high.
    np.testing.assert_allclose(deltas, [[1, -0.25, np.log(2), np.log(0.5)]], rtol=1e-6)
    assert deltas.dtype == np.float32


@given(box_arrays(least_side=4), st.integers(0, 1 << 30))  # 2 pixels: the scale stays under its bound
def test_decode_undoes_encode(boxes: Float32Array, seed: int) -> None:
    generator = np.random.default_rng(seed)
    corners = generator.uniform(-50, 50, (len(boxes), 2))
    targets = np.concatenate([corners, corners + generator.uniform(1, 60, (len(boxes), 2))], axis=1).astype(np.float32)
    moved = geometry.decode(boxes, geometry.encode(boxes, targets))
    assert moved.dtype == np.float32
    np.testing.assert_allclose(moved, targets, atol=2e-3)


def test_decode_of_zero_deltas_changes_nothing() -> None:
    boxes = boxes_of((3, 4, 10, 30), (0, 0, 1, 1))
    np.testing.assert_allclose(geometry.decode(boxes, np.zeros((2, 4))), boxes)


def test_decode_bounds_the_scale() -> None:
    box = boxes_of((0, 0, 16, 16))
    wild = geometry.decode(box, np.array([[0, 0, 1e9, 1e9]], dtype=np.float32))
    np.testing.assert_allclose(wild, [[8 - 500, 8 - 500, 8 + 500, 8 + 500]], rtol=1e-5)


@pytest.mark.parametrize("which", ["box", "target"])
def test_encode_refuses_an_empty_box(which: str) -> None:
    box, point = boxes_of((0, 0, 2, 2)), boxes_of((1, 1, 1, 4))
    with pytest.raises(ValueError, match="with an area"):
        geometry.encode(*((point, box) if which == "box" else (box, point)))


def test_distinct_keeps_the_first_of_each_point_of_the_grid() -> None:
    boxes = np.array([[0, 0, 33, 32], [3, 2, 30, 31], [9, 0, 32, 32], [0, 0, 32, 40]], dtype=np.float32)
    assert geometry.distinct(boxes, 16).tolist() == [0, 2]  # the last rounds 40 / 16 = 2.5 to 2
    assert geometry.distinct(boxes, 1).tolist() == [0, 1, 2, 3]
    assert geometry.distinct(boxes[:0], 16).shape == (0,)


@given(box_arrays(least_side=4), st.integers(0, 1 << 30))
def test_tensors_are_encoded_and_decoded_as_arrays_are(boxes: Float32Array, seed: int) -> None:
    generator = np.random.default_rng(seed)
    corners = generator.uniform(-50, 50, (len(boxes), 2))
    targets = np.concatenate([corners, corners + generator.uniform(1, 60, (len(boxes), 2))], axis=1).astype(np.float32)
    deltas = geometry.encode_tensors(torch.from_numpy(boxes), torch.from_numpy(targets))
    assert deltas.shape == (len(boxes), 4)
    np.testing.assert_allclose(deltas.numpy(), geometry.encode(boxes, targets), rtol=1e-5, atol=1e-5)
    wild = generator.normal(0, 4, (len(boxes), 4)).astype(np.float32)  # log scales beyond the bound, too
    decoded = geometry.decode_tensors(torch.from_numpy(boxes), torch.from_numpy(wild))
    np.testing.assert_allclose(decoded.numpy(), geometry.decode(boxes, wild), rtol=1e-5, atol=1e-3)


def test_tensors_of_many_images_are_decoded_at_once() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 20], [5, 5, 9, 7]])
    deltas = torch.tensor([[[1.0, -0.25, 0, 0]] * 2, [[0, 0, 0, 0]] * 2])
    decoded = geometry.decode_tensors(boxes.expand(2, 2, 4), deltas)
    torch.testing.assert_close(decoded, torch.tensor([[[10.0, -5, 20, 15], [9, 4.5, 13, 6.5]], boxes.tolist()]))
    assert geometry.decode_tensors(boxes[:0], boxes[:0]).shape == geometry.encode_tensors(boxes[:0], boxes[:0]).shape


def test_voting_is_the_mean_by_score() -> None:
    drawn = np.array([[0, 0, 10, 10], [0, 0, 10, 8], [20, 20, 30, 30], [0, 0, 3, 3]], np.float32)
    scores = np.array([0.6, 0.2, 0.5, 0.9], np.float32)
    found = geometry.vote(drawn, scores, np.array([0, 2]), 0.5)
    np.testing.assert_allclose(found, [[0, 0, 10, 9.5], [20, 20, 30, 30]], rtol=1e-6)
    assert geometry.vote(drawn, scores, np.zeros(0, np.int64), 0.5).shape == (0, 4)
    np.testing.assert_array_equal(geometry.vote(drawn, np.zeros(4, np.float32), np.array([1]), 0.5), drawn[[1]])


def test_tensors_overlap_as_arrays_do() -> None:
    a = np.array([[0, 0, 10, 10], [5, 5, 15, 15], [3, 3, 3, 3]], np.float32)
    b = np.array([[0, 0, 10, 5], [20, 20, 30, 30], [3, 3, 3, 3], [5, 5, 15, 15]], np.float32)
    np.testing.assert_allclose(geometry.iou_tensors(torch.from_numpy(a), torch.from_numpy(b)), geometry.iou(a, b))
    assert geometry.iou_tensors(torch.zeros(0, 4), torch.from_numpy(b)).shape == (0, 4)


def test_paired_iou_of_tensors_by_hand() -> None:
    """The third box has its corners the wrong way round, as a network may predict it."""
    a = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 10], [8, 8, 4, 4], [3, 3, 3, 3]])
    b = torch.tensor([[5.0, 5, 15, 15], [20, 20, 30, 30], [0, 0, 10, 10], [3, 3, 3, 3]])
    torch.testing.assert_close(geometry.paired_iou_tensors(a, b), torch.tensor([25 / 175, 0, 0, 0]))
    torch.testing.assert_close(geometry.iou_tensors(a, b).diagonal(), torch.tensor([25 / 175, 0, 0, 0]))
    assert geometry.paired_iou_tensors(a[:0], b[:0]).shape == (0,)


def test_tensors_lie_in_crowds_as_arrays_do() -> None:
    a = boxes_of((0, 0, 10, 10), (95, 0, 105, 10), (5, 5, 5, 9), (200, 0, 210, 10))
    crowds = boxes_of((5, 0, 100, 10), (0, 0, 2, 2))
    got = geometry.overlap_of_first_tensors(torch.from_numpy(a), torch.from_numpy(crowds))
    assert got.tolist() == [[0.5, np.float32(0.04)], [0.5, 0], [0, 0], [0, 0]]
    np.testing.assert_array_equal(got, geometry.overlap_of_first(a, crowds))
    assert geometry.overlap_of_first_tensors(torch.zeros(0, 4), torch.from_numpy(crowds)).shape == (0, 2)
    assert geometry.overlap_of_first_tensors(torch.from_numpy(a), torch.zeros(0, 4)).shape == (4, 0)


def test_tensors_have_the_area_and_the_clip_of_arrays() -> None:
    boxes = boxes_of((-5, -5, 5, 25), (0, 0, 3, 2), (30, 5, 40, 9))
    tensors = torch.from_numpy(boxes)
    np.testing.assert_array_equal(geometry.area_tensors(tensors), geometry.area(boxes))
    np.testing.assert_array_equal(geometry.clip_tensors(tensors, (20, 10)), geometry.clip(boxes, (20, 10)))
    assert geometry.clip_tensors(tensors[:0], (20, 10)).shape == (0, 4)


def test_an_iou_that_equals_the_threshold_stays_in_tensors_too() -> None:
    """IoU 3 / 10: its float32 is larger than 0.3 in double precision."""
    boxes = torch.tensor([[0.0, 0, 6.5, 1], [3.5, 0, 10, 1], [3.4, 0, 10, 1]])
    assert geometry.nms_tensors(boxes, 0.3).tolist() == [0, 1]
    assert geometry.nms_tensors(boxes[:0], 0.3).tolist() == []


def test_nms_for_few_boxes_keeps_the_first_of_all_that_it_keeps() -> None:
    generator = torch.Generator().manual_seed(0)
    corners = 60 * torch.rand(200, 2, generator=generator)
    boxes = torch.cat([corners, corners + 5 + 30 * torch.rand(200, 2, generator=generator)], dim=1)
    kept = geometry.nms_tensors(boxes, 0.4).tolist()
    assert 40 < len(kept) < 150
    for most in (0, 1, 7, 40, len(kept), len(kept) + 1, 200, 300):
        assert geometry.nms_tensors(boxes, 0.4, most=most).tolist() == kept[:most], most
    assert geometry.nms_tensors(boxes[:0], 0.4, most=3).tolist() == []


def test_voting_in_steps_gives_the_same_boxes(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    corners = generator.uniform(0, 60, (80, 2))
    boxes = np.concatenate([corners, corners + generator.uniform(5, 40, (80, 2))], axis=1).astype(np.float32)
    scores, kept = generator.uniform(0, 1, 80).astype(np.float32), np.arange(0, 80, 2)
    at_once = geometry.vote(boxes, scores, kept, 0.5)
    monkeypatch.setattr("detpipe.boxes.VOTED_AT_ONCE", 7)
    np.testing.assert_allclose(geometry.vote(boxes, scores, kept, 0.5), at_once, rtol=1e-6)
