"""Boxes as columns: what is written is read, and what is lost is what the docstring proves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detpipe.boxes import iou
from detpipe.proposals.box_columns import from_columns, scale_of, snap, snapped, to_columns
from detpipe.proposals.proposer import SourcedProposals
from detpipe.structures import Float32Array, Proposals


def largest_error(image_size: tuple[int, int]) -> float:
    """e: half a unit of 2^-s pixels."""
    return float(2.0 ** -(scale_of(image_size) + 1))


@pytest.mark.parametrize(
    ("side", "scale"),
    [
        (1, 15),
        (2, 14),
        (640, 6),
        (1024, 5),
        (32767, 1),
        (32768, 0),
        (65535, 0),
        (65536, -1),
        (131070, -1),
        (131071, -2),
    ],
)
def test_scales_by_hand(side: int, scale: int):
    assert scale_of((side, 1)) == scale_of((1, side)) == scale


@given(st.integers(1, 2**31 - 1))
def test_the_scale_is_the_largest_that_fits(side: int):
    scale = scale_of((side, 1))
    assert side * 2.0**scale <= 65535 < side * 2.0 ** (scale + 1)


def test_no_pixel_has_no_scale():
    with pytest.raises(ValueError, match="from 1"):
        scale_of((0, 5))


def test_a_record_by_hand():
    boxes = np.array([[0, 1.5, 640, 480], [1, 2, 3, 4]], np.float32)
    columns = to_columns(boxes, (480, 640))
    assert [np.frombuffer(one, "<u2").tolist() for one in columns] == [[0, 64], [96, 128], [40960, 192], [30720, 256]]
    assert columns[0] == b"\x00\x00\x40\x00"
    assert from_columns(columns, 6).tobytes() == boxes.tobytes()


def test_no_boxes():
    none = np.zeros((0, 4), np.float32)
    assert to_columns(none, (3, 4)) == (b"", b"", b"", b"")
    assert from_columns((b"", b"", b"", b""), 3).shape == (0, 4)
    assert snap(none, (3, 4)).shape == (0, 4)
    empty = snapped(SourcedProposals(Proposals(none, np.zeros(0, np.float32)), np.zeros(0, np.uint8)), (3, 4))
    assert len(empty.proposals) == 0


def sides(largest: int) -> st.SearchStrategy[tuple[int, int]]:
    return st.tuples(st.integers(1, largest), st.integers(1, largest))


def boxes_in(image_size: tuple[int, int], seed: int, n: int = 50) -> Float32Array:
    """Boxes of all sizes in an image of (height, width)."""
    generator = np.random.default_rng(seed)
    height, width = image_size
    corners = generator.random((n, 2, 2)) ** generator.uniform(0.2, 5, (n, 1, 1)) * (width, height)
    return np.concatenate([corners.min(1), corners.max(1)], axis=1).astype(np.float32)


@given(sides(131070), st.integers(0, 2**32))
def test_a_coordinate_is_off_by_half_a_unit_at_most(image_size: tuple[int, int], seed: int):
    boxes = boxes_in(image_size, seed)
    back = snap(boxes, image_size)
    assert np.abs(back.astype(float) - boxes).max() <= largest_error(image_size)
    assert (back >= 0).all()
    assert (back[:, 2:] <= image_size[::-1]).all()
    assert snap(back, image_size).tobytes() == back.tobytes()
    assert from_columns(to_columns(back, image_size), scale_of(image_size)).tobytes() == back.tobytes()


@given(sides(2**31 - 1), st.integers(0, 2**32))
def test_of_any_image_by_a_unit(image_size: tuple[int, int], seed: int):
    # float32 itself, in which the border of such an image is written, rounds it by up to 64 pixels.
    boxes = boxes_in(image_size, seed)
    back = snap(boxes, image_size)
    assert np.abs(back.astype(float) - boxes).max() <= 2 * largest_error(image_size)
    assert snap(back, image_size).tobytes() == back.tobytes()


@given(sides(65535), st.integers(0, 2**32))
def test_whole_pixels_are_exact(image_size: tuple[int, int], seed: int):
    boxes = np.round(boxes_in(image_size, seed))
    assert snap(boxes, image_size).tobytes() == boxes.tobytes()


def least_iou(boxes: Float32Array, e: float) -> np.ndarray:
    """Point 3 of the docstring, for boxes wider and higher than 2e."""
    width, height = (boxes[:, 2:] - boxes[:, :2]).astype(float).T
    return (width - 2 * e) * (height - 2 * e) / ((width + 2 * e) * (height + 2 * e))


@given(sides(5000), st.integers(0, 2**32))
def test_the_overlap_that_is_left(image_size: tuple[int, int], seed: int):
    boxes, others = boxes_in(image_size, seed), boxes_in(image_size, seed + 1)
    e = largest_error(image_size)
    boxes = boxes[((boxes[:, 2:] - boxes[:, :2]) > 2 * e).all(axis=1)]
    left = np.array([iou(one[None], two[None])[0, 0] for one, two in zip(boxes, snap(boxes, image_size), strict=True)])
    assert (left >= least_iou(boxes, e) - 1e-4).all()
    changed = np.abs(iou(boxes, others) - iou(snap(boxes, image_size), others)).max(axis=1, initial=0)
    assert (changed <= 1 - left + 1e-4).all()


def test_float16_loses_what_columns_keep():
    """The numbers of the docstring: boxes of 10 x 10 pixels at the far side of an image 640 wide."""
    offsets = np.arange(0, 1, 1 / 16, dtype=np.float32)
    boxes = np.stack([600 + offsets, 600 + offsets, 610 + offsets, 610 + offsets], axis=1)
    half = boxes.astype(np.float16).astype(np.float32)
    ours = snap(boxes + np.float32(0.004), (640, 640)) - np.float32(0.004)
    assert np.abs(half - boxes).max() == 0.25
    assert np.abs(ours - boxes).max() <= 1 / 128 + 1e-4
    assert least_iou(boxes, 1 / 128).min() == pytest.approx(0.9938, abs=1e-4)
    assert least_iou(boxes, 1 / 4).min() == pytest.approx(0.8186, abs=1e-4)
    assert np.float32(np.float16(2049)) == 2048


def test_what_becomes_equal_or_empty_goes():
    boxes = np.array([[0, 0, 2, 2], [3, 3, 9, 9], [0, 0, 2.0001, 2], [5, 5, 5.0001, 9], [3, 3, 8, 8]], np.float32)
    scores = np.array([5, 4, 3, 2, 1], np.float32)
    found = snapped(SourcedProposals(Proposals(boxes, scores), np.arange(5, dtype=np.uint8)), (600, 640))
    assert found.proposals.boxes.tolist() == boxes[[0, 1, 4]].tolist()
    assert found.proposals.scores.tolist() == [5, 4, 1]
    assert found.sources is not None
    assert found.sources.tolist() == [0, 1, 4]


def test_ties_are_in_the_order_of_the_new_boxes():
    boxes = np.array([[1.001, 5, 9, 9], [1.002, 4, 9, 9]], np.float32)
    found = snapped(SourcedProposals(Proposals(boxes, np.ones(2, np.float32)), None), (640, 640))
    assert found.proposals.boxes.tolist() == [[1, 4, 9, 9], [1, 5, 9, 9]]
    assert found.sources is None
