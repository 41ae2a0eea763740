"""The colour spaces: colours by hand, every hue, and OpenCV's own conversions within a level."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from detpipe.proposals.selective_search.colour_spaces import ColourSpace, convert
from detpipe.structures import Image
from tests.proposals.pictures import noise, scene

CHANNELS = {ColourSpace.hue: 1, ColourSpace.hue_180: 1, ColourSpace.grey: 1}
COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "white": (255,) * 3, "black": (0,) * 3}


def pixel(colour: tuple[int, ...], space: ColourSpace) -> list[int]:
    return convert(np.array([[colour]], np.uint8), space).ravel().tolist()


def all_colours() -> Image:
    """Each 5th level of each channel and the extremes: (52 x 52, 52, 3)."""
    levels = np.array([*range(0, 256, 5)], np.uint8)
    return np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(-1, len(levels), 3)


@pytest.mark.parametrize("space", list(ColourSpace))
def test_shapes(space: ColourSpace):
    for size in ((1, 1), (1, 5), (7, 3)):
        planes = convert(noise(*size), space)
        assert planes.shape == (CHANNELS.get(space, 3), *size)
        assert planes.dtype == np.uint8
        assert planes.flags.c_contiguous


def test_hsv_by_hand():
    # A third of 256 is 85.33, two thirds 170.67; of 180 they are 60 and 120.
    assert [pixel(COLOURS[name], ColourSpace.hsv)[0] for name in ("red", "green", "blue")] == [0, 85, 171]
    assert [pixel(COLOURS[name], ColourSpace.hsv_180)[0] for name in ("red", "green", "blue")] == [0, 60, 120]
    # Span 100 of 200: half of the saturation; hue 50 / 100 of a sixth.
    assert pixel((200, 150, 100), ColourSpace.hsv) == [21, 128, 200]
    # Just under a whole turn is rounded to it, and that is 0.
    assert pixel((255, 0, 1), ColourSpace.hsv)[0] == 0
    assert pixel((77, 77, 77), ColourSpace.hsv) == [0, 0, 77]
    assert pixel((0, 0, 0), ColourSpace.hsv) == [0, 0, 0]


def test_lab_by_hand():
    assert pixel(COLOURS["white"], ColourSpace.lab) == [255, 128, 128]
    assert pixel(COLOURS["black"], ColourSpace.lab) == [0, 128, 128]
    # L* 53.2, a* 80.1, b* 67.2 of sRGB's red.
    assert pixel(COLOURS["red"], ColourSpace.lab) == [136, 208, 195]


def test_shares_by_hand():
    assert pixel((100, 50, 50), ColourSpace.rgi)[:2] == [128, 64]
    assert pixel(COLOURS["black"], ColourSpace.rgi) == [0, 0, 0]
    assert pixel((10, 20, 30), ColourSpace.rg_grey)[:2] == [10, 20]


def test_parts_are_those_of_the_whole():
    image = scene()
    grey = convert(image, ColourSpace.grey)[0]
    assert np.array_equal(convert(image, ColourSpace.hue)[0], convert(image, ColourSpace.hsv)[0])
    assert np.array_equal(convert(image, ColourSpace.hue_180)[0], convert(image, ColourSpace.hsv_180)[0])
    assert np.array_equal(convert(image, ColourSpace.rgi)[2], grey)
    assert np.array_equal(convert(image, ColourSpace.rg_grey)[2], grey)


@pytest.mark.parametrize(
    ("space", "code", "turn", "levels"),
    [
        (ColourSpace.hsv, cv2.COLOR_RGB2HSV_FULL, 256, 1),
        (ColourSpace.hsv_180, cv2.COLOR_RGB2HSV, 180, 1),
        (ColourSpace.lab, cv2.COLOR_RGB2LAB, 0, 2),
        (ColourSpace.grey, cv2.COLOR_RGB2GRAY, 0, 1),
    ],
)
def test_as_opencv_converts(space: ColourSpace, code: int, turn: int, levels: int):
    image = all_colours()
    wanted = cv2.cvtColor(image, code).reshape(*image.shape[:2], -1).transpose(2, 0, 1).astype(int)
    apart = np.abs(convert(image, space) - wanted)
    if turn:
        apart[0] = np.minimum(apart[0], turn - apart[0])
    assert apart.max() <= levels
    assert apart.mean() < 0.15
