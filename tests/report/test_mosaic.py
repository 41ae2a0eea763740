from __future__ import annotations

import math

import numpy as np
import pytest

from detpipe.report.mosaic import GAP, beside, heat, mosaic
from detpipe.structures import Image


def tile(value: int, height: int = 2, width: int = 2) -> Image:
    return np.full((height, width, 3), value, dtype=np.uint8)


def test_tiles_are_enlarged_by_whole_pixels() -> None:
    sheet = mosaic([tile(10), tile(20), tile(30)], 23)
    # Two columns: cells of 10 pixels, a line between, before and behind.
    assert sheet.shape == (23, 23, 3)
    assert [sheet[y, x, 0] for y, x in ((1, 1), (10, 10), (1, 12), (12, 1))] == [10, 10, 20, 30]
    assert tuple(sheet[12, 12]) == tuple(sheet[0, 0]) == GAP


def test_a_large_tile_is_shrunk_and_many_small_ones_are_not() -> None:
    assert mosaic([tile(9, 40, 80)], 41).shape == (22, 42, 3)
    assert mosaic([tile(9)] * 100, 5).shape[1] < 40
    with pytest.raises(ValueError, match="expected tiles"):
        mosaic([], 100)


def test_heat() -> None:
    picture = heat(np.array([[0.0, 1.0], [math.nan, 1.0]], dtype=np.float32))
    assert picture[0, 0].sum() < picture[0, 1].sum()
    assert picture[1, 0].tolist() == [0, 0, 0]
    assert not heat(np.full((2, 2), 7, dtype=np.float32)).any()
    assert not heat(np.full((2, 2), np.inf, dtype=np.float32)).any()


def test_an_image_beside_a_picture() -> None:
    assert beside(tile(200, 10, 10), tile(100, 50, 80)).shape == (50, 50 + 8 + 80, 3)
    assert beside(tile(200, 10, 1000), tile(100, 50, 80)).shape == (50, 80 + 8 + 80, 3)
