"""What of an image a network sees: the middle, a random place, a share."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detpipe.classify.view import ViewConfig, cut_view

IMAGE = np.arange(5 * 8 * 3, dtype=np.uint8).reshape(5, 8, 3)


def test_the_middle_by_hand() -> None:
    """Of 5 x 8 pixels, 2 x 3: rows 1 and 2 (of 3 to spare 1 is above), columns 2 to 4 (of 5 to spare 2 are left)."""
    np.testing.assert_array_equal(cut_view(IMAGE, (2, 3), None, None), IMAGE[1:3, 2:5])
    np.testing.assert_array_equal(cut_view(IMAGE, (5, 8), None, None), IMAGE)


def test_random_places_are_all_used_and_drawn_by_the_generator() -> None:
    corners = set()
    for seed in range(100):
        cut = cut_view(IMAGE, (3, 7), None, np.random.default_rng(seed))
        corners.add(int(cut[0, 0, 0]) // 3)
        np.testing.assert_array_equal(cut, cut_view(IMAGE, (3, 7), None, np.random.default_rng(seed)))
    assert corners == {0, 1, 8, 9, 16, 17}


def test_a_share_is_cut_and_brought_to_size() -> None:
    image = np.full((40, 60, 3), 9, dtype=np.uint8)
    image[5:35, 15:45] = 200
    # 3/4 of the shorter side: the middle 30 x 30.
    np.testing.assert_array_equal(cut_view(image, (10, 10), 0.75, None), np.full((10, 10, 3), 200, np.uint8))
    assert cut_view(image, (64, 64), 0.75, None).shape == (64, 64, 3)
    assert cut_view(image, (10, 30), 1.0, None).shape == (10, 30, 3)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.floats(0.01, 1))
def test_every_share_of_every_image_fits(height: int, width: int, size: int, share: float) -> None:
    image = np.zeros((height, width, 3), dtype=np.uint8)
    for generator in (None, np.random.default_rng(0)):
        assert cut_view(image, (size, size), share, generator).shape == (size, size, 3)


def test_too_small_an_image_says_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"at least 6 x 3 pixels to cut the input out, got 5 x 8.*view\.share=1"):
        cut_view(IMAGE, (6, 3), None, None)


@pytest.mark.parametrize("share", [0.0, -1.0, 1.5])
def test_another_share_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match=r"view\.share"):
        ViewConfig(share=share)
