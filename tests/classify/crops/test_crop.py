"""Crops: exact where no pixel moves, R-CNN's geometry, the fill, and shrinking that averages."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detpipe.classify.crops.crop import context_boxes, crop_regions
from detpipe.classify.crops.settings import CropConfig, CropMode
from detpipe.structures import Float32Array, Image


def boxes_of(*rows: tuple[float, float, float, float]) -> Float32Array:
    return np.array(rows, dtype=np.float32).reshape(-1, 4)


def noise(height: int, width: int, seed: int = 0) -> Image:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def smooth(height: int, width: int) -> Image:
    """Red grows to the right, green downwards, blue along the diagonal."""
    x, y = np.linspace(0, 240, width)[None, :], np.linspace(0, 240, height)[:, None]
    return np.stack(np.broadcast_arrays(x, y, (x + y) / 2), axis=2).astype(np.uint8)


def plain(size: int, **values: Any) -> CropConfig:
    return CropConfig(size=size, context_pad=0, **values)


def differ(a: Image, b: Image) -> int:
    return int(np.abs(a.astype(int) - b.astype(int)).max())


@pytest.mark.parametrize("mode", list(CropMode))
@given(st.integers(0, 48), st.integers(0, 28))
def test_a_box_of_the_crops_size_is_copied(mode: CropMode, left: int, top: int) -> None:
    image = noise(60, 80)
    crops = crop_regions(image, boxes_of((left, top, left + 32, top + 32)), plain(32, mode=mode))
    np.testing.assert_array_equal(crops[0], image[top : top + 32, left : left + 32])


def test_many_boxes_are_cut_each_by_itself() -> None:
    image = noise(60, 80)
    boxes = boxes_of((0, 0, 16, 16), (0, 0, 80, 60), (64, 44, 80, 60), (3.5, 2.25, 30, 40))
    together = crop_regions(image, boxes, plain(16))
    assert together.shape == (4, 16, 16, 3)
    assert together.dtype == np.uint8
    for box, crop in zip(boxes, together, strict=True):
        np.testing.assert_array_equal(crop_regions(image, box[None], plain(16))[0], crop)
    np.testing.assert_array_equal(together[2], image[44:60, 64:80])


def test_no_boxes() -> None:
    assert crop_regions(noise(5, 5), boxes_of(), CropConfig(size=8)).shape == (0, 8, 8, 3)
    assert context_boxes(boxes_of(), CropConfig()).shape == (0, 4)


def test_the_image_is_left_as_it_is() -> None:
    image = noise(200, 200)
    before = image.copy()
    crop_regions(image, boxes_of((0, 0, 200, 200), (-5, -5, 4, 4)), plain(16))
    np.testing.assert_array_equal(image, before)


def test_outside_of_the_image_is_the_fill() -> None:
    image = np.full((20, 20, 3), 200, dtype=np.uint8)
    crop = crop_regions(image, boxes_of((-8, -8, 8, 8)), plain(16, fill=[1, 2, 3]))[0]
    assert (crop[:8] == [1, 2, 3]).all()
    assert (crop[:, :8] == [1, 2, 3]).all()
    assert (crop[8:, 8:] == 200).all()
    beyond = crop_regions(image, boxes_of((30, 30, 46, 46)), plain(16, fill=[1, 2, 3]))[0]
    assert (beyond == [1, 2, 3]).all()


def test_context_is_rcnns() -> None:
    """A 195-pixel box of a 227-pixel crop with 16 pixels of context around: the crop shows 227 pixels."""
    config = CropConfig(size=227, context_pad=16)
    np.testing.assert_allclose(context_boxes(boxes_of((100, 200, 295, 395)), config), [[84, 184, 311, 411]])
    # Warp scales each side by itself: 227 / 195 of 39 x 390 is 45.4 x 454.
    np.testing.assert_allclose(
        context_boxes(boxes_of((0, 0, 39, 390)), config), [[-3.2, -32, 42.2, 422]], rtol=1e-12, atol=1e-12
    )
    image = noise(500, 500)
    crop = crop_regions(image, boxes_of((100, 200, 295, 395)), config)[0]
    np.testing.assert_array_equal(crop, image[184:411, 84:311])


def test_context_is_a_share_of_the_crop_whatever_its_size() -> None:
    box = boxes_of((10, 20, 50, 90))
    small, large = (context_boxes(box, CropConfig(size=size, context_pad=16)) for size in (64, 256))
    np.testing.assert_array_equal(small, large)


def test_square_is_the_tightest_square() -> None:
    config = plain(64, mode=CropMode.square)
    shown = context_boxes(boxes_of((10, 20, 50, 40), (10, 20, 30, 60)), config)
    np.testing.assert_allclose(shown, [[10, 10, 50, 50], [0, 20, 40, 60]])
    padded = context_boxes(boxes_of((0, 0, 195, 39)), CropConfig(size=64, mode=CropMode.square, context_pad=16))
    np.testing.assert_allclose(padded, [[-16, 19.5 - 113.5, 211, 19.5 + 113.5]])


def test_warp_stretches_and_square_does_not() -> None:
    image = np.zeros((64, 64, 3), dtype=np.uint8)
    image[24:40] = 255  # a band of 16 rows
    box = boxes_of((0, 24, 64, 40))
    assert (crop_regions(image, box, plain(64))[0][2:-2] == 255).all()
    square = crop_regions(image, box, plain(64, mode=CropMode.square))[0]
    np.testing.assert_array_equal(square, image)


@pytest.mark.parametrize("box", [(10, 12, 58, 50), (0, 0, 100, 80), (5.5, 3.25, 99.5, 70), (40, 40, 47, 46)])
@pytest.mark.parametrize("size", [17, 32])
def test_a_mirrored_image_gives_the_mirrored_crop(box: tuple[float, float, float, float], size: int) -> None:
    image = smooth(80, 100)
    left, top, right, bottom = box
    config = CropConfig(size=size)
    crop = crop_regions(image, boxes_of(box), config)[0]
    mirrored = crop_regions(
        np.ascontiguousarray(image[:, ::-1]), boxes_of((100 - right, top, 100 - left, bottom)), config
    )
    assert differ(mirrored[0][:, ::-1], crop) <= 3
    turned = crop_regions(np.ascontiguousarray(image.transpose(1, 0, 2)), boxes_of((top, left, bottom, right)), config)
    assert differ(turned[0].transpose(1, 0, 2), crop) <= 3


def test_enlarging_is_bilinear_about_pixel_centres() -> None:
    image = noise(8, 8)
    crop = crop_regions(image, boxes_of((0, 0, 8, 8)), plain(16))[0]
    want = cv2.resize(image, (16, 16), interpolation=cv2.INTER_LINEAR)
    # cv2.resize repeats the border, where a crop mixes in the fill.
    assert differ(crop[1:-1, 1:-1], want[1:-1, 1:-1]) <= 2


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_shrinking_averages(factor: int) -> None:
    image = noise(16 * factor, 16 * factor)
    crop = crop_regions(image, boxes_of((0, 0, 16 * factor, 16 * factor)), plain(16))[0]
    mean = image.reshape(16, factor, 16, factor, 3).mean(axis=(1, 3))
    assert np.abs(crop - mean).max() <= factor  # half a step of rounding at each of its levels


def test_a_fine_pattern_turns_grey_and_no_other_pattern() -> None:
    stripes = np.zeros((256, 256, 3), dtype=np.uint8)
    stripes[:, ::2] = 254
    crop = crop_regions(stripes, boxes_of((0, 0, 256, 256)), plain(16))[0]
    np.testing.assert_allclose(crop, 127, atol=2)


@pytest.mark.parametrize(
    ("image_size", "box", "side"),
    [
        ((2001, 1333), (0, 0, 1333, 2001), 32),
        ((2001, 1333), (700, 1000, 1300, 2000), 32),
        ((95, 63), (30, 15, 62, 93), 8),
        ((63, 31), (16, 30, 31, 63), 8),
    ],
)
def test_odd_sizes_are_not_shifted(
    image_size: tuple[int, int], box: tuple[float, float, float, float], side: int
) -> None:
    """The halved copies of an odd image are not exact halves; the crop's geometry must not see it."""
    height, width = image_size
    crop = crop_regions(smooth(*image_size), boxes_of(box), plain(side))[0].astype(float)
    left, top, right, bottom = box
    at = (np.arange(side) + 0.5) / side  # the centres of the crop's pixels, as shares of the box
    red = 240 * (left + at * (right - left) - 0.5) / (width - 1)
    green = 240 * (top + at * (bottom - top) - 0.5) / (height - 1)
    inside = slice(1, -1)
    assert np.abs(crop[:, :, 0] - red[None, :])[inside, inside].max() <= 3
    assert np.abs(crop[:, :, 1] - green[:, None])[inside, inside].max() <= 3


@pytest.mark.parametrize("mode", list(CropMode))
@pytest.mark.parametrize("box", [(5, 5, 5, 9), (5, 5, 9, 5), (5, 5, 5, 5), (9, 5, 5, 9)])
def test_a_box_without_area_is_refused(mode: CropMode, box: tuple[float, float, float, float]) -> None:
    with pytest.raises(ValueError, match=r"expected boxes with an area, got \[\d"):
        crop_regions(noise(20, 20), boxes_of((0, 0, 5, 5), box), plain(8, mode=mode))


@pytest.mark.parametrize(
    "values",
    [
        {"size": 7},
        {"context_pad": -1},
        {"context_pad": 113},
        {"fill": [1, 2]},
        {"fill": [0, 0, 256]},
        {"jpeg_quality": 0},
        {"jpeg_quality": 101},
    ],
)
def test_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=rf"crops\.{next(iter(values))}: expected"):
        CropConfig(**values)
