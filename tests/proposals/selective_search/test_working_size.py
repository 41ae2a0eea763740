"""The working size and the mean of areas: by hand, in fractions, beside OpenCV's."""

from __future__ import annotations

from fractions import Fraction

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detpipe.proposals.selective_search.working_size import enlarge, shrink, working_size
from detpipe.structures import Image
from tests.proposals.pictures import noise, scene


def test_sizes_by_hand():
    assert working_size((375, 500), 640) == (375, 500)
    assert working_size((375, 500), 500) == (375, 500)
    assert working_size((375, 500), 288) == (216, 288)
    # 3 x 288 / 5000 is less than a half, and no side is less than 1.
    assert working_size((3, 5000), 288) == (1, 288)
    assert working_size((1, 1), 1) == (1, 1)
    # 3 x 10 / 20 = 1.5 and 5 x 10 / 20 = 2.5: halves are rounded up, where Python's round gives 2 and 2.
    assert working_size((3, 20), 10) == (2, 10)
    assert working_size((5, 20), 10) == (3, 10)


@given(st.integers(1, 20000), st.integers(1, 20000), st.integers(1, 5000))
def test_sizes_keep_to_their_bounds(height: int, width: int, max_side: int):
    small = working_size((height, width), max_side)
    assert max(small) == min(max(height, width), max_side)
    assert 1 <= small[0] <= height
    assert 1 <= small[1] <= width
    assert working_size((width, height), max_side) == small[::-1]
    if max(height, width) > max_side:
        for side, one in ((height, small[0]), (width, small[1])):
            assert one == 1 or abs(Fraction(side * max_side, max(height, width)) - one) <= Fraction(1, 2)


def area_mean(image: Image, height: int, width: int) -> list[list[list[int]]]:
    """In fractions: every pixel, by the share of it that lies under each pixel of the smaller image."""

    def shares(side: int, small: int) -> list[list[tuple[int, Fraction]]]:
        unit = Fraction(side, small)
        return [
            [
                (i, covered)
                for i in range(side)
                if (covered := min(Fraction(i + 1), unit * (one + 1)) - max(Fraction(i), unit * one)) > 0
            ]
            for one in range(small)
        ]

    area = Fraction(image.shape[0] * image.shape[1], height * width)
    means = [
        [
            [sum(v * h * int(image[y, x, c]) for y, v in rows for x, h in columns) / area for c in range(3)]
            for columns in shares(image.shape[1], width)
        ]
        for rows in shares(image.shape[0], height)
    ]
    return [[[int(value + Fraction(1, 2)) for value in pixel] for pixel in row] for row in means]


def test_mean_by_hand():
    image = np.array([[0, 10, 20, 30]], np.uint8)[:, :, None].repeat(3, axis=2)
    assert shrink(image, (1, 2))[0, :, 0].tolist() == [5, 25]
    assert shrink(image, (1, 1))[0, :, 0].tolist() == [15]
    # Three pixels of 4 / 3: 0 and a third of 10, two thirds of 10 and of 20, a third of 20 and 30.
    assert shrink(image, (1, 3))[0, :, 0].tolist() == [3, 15, 28]


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 13), st.integers(1, 13), st.data())
def test_mean_in_fractions(height: int, width: int, data: st.DataObject):
    # Below a factor of eight each pixel counts.
    small = (
        data.draw(st.integers(max(1, -(-height // 7)), height)),
        data.draw(st.integers(max(1, -(-width // 7)), width)),
    )
    image = noise(height, width, seed=data.draw(st.integers(0, 99)))
    assert shrink(image, small).tolist() == area_mean(image, *small)


@pytest.mark.parametrize("size", [(48, 64), (50, 70), (95, 127), (13, 18)])
def test_like_opencvs(size: tuple[int, int]):
    image = scene()
    wanted = cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(shrink(image, size).astype(int) - wanted).max() <= 1


def test_much_larger_images_are_looked_at_here_and_there():
    image = np.zeros((64, 96, 3), np.uint8)
    # 16 times as large: of every 16 x 16 pixels 4 x 4 are averaged, the rows and columns 2, 6, 10 and 14.
    image[2::4, 2::4] = scene(16, 24)
    image[14::16, 14::16] = 250
    wanted = area_mean(np.ascontiguousarray(image[2::4, 2::4]), 4, 6)
    assert shrink(image, (4, 6)).tolist() == wanted


@pytest.mark.parametrize("size", [(3, 5000), (5000, 3), (1, 4001), (2999, 4001)])
def test_extreme_sizes_keep_a_flat_image_flat(size: tuple[int, int]):
    image = np.full((*size, 3), (255, 0, 77), np.uint8)
    small = shrink(image, working_size(size, 100))
    assert max(small.shape) == 100
    assert np.unique(small.reshape(-1, 3), axis=0).tolist() == [[255, 0, 77]]


def test_its_own_size_is_the_image_itself():
    image = scene()
    assert shrink(image, (96, 128)) is image
    assert shrink(noise(1, 1), (1, 1)).shape == (1, 1, 3)


def test_enlarged_by_hand():
    boxes = np.array([[0, 0, 10, 5], [1, 2, 3, 4]], np.int32)
    assert enlarge(boxes, (15, 20), (5, 10)).tolist() == [[0, 0, 20, 15], [2, 6, 6, 12]]
    assert enlarge(np.zeros((0, 4), np.int32), (15, 20), (5, 10)).shape == (0, 4)


@given(st.integers(1, 30000), st.integers(1, 30000), st.integers(1, 700))
def test_the_whole_reaches_the_far_corner(height: int, width: int, max_side: int):
    small = working_size((height, width), max_side)
    whole = enlarge(np.array([[0, 0, small[1], small[0]]], np.int32), (height, width), small)
    assert whole.tolist() == [[0, 0, width, height]]
    assert whole.dtype == np.float32
