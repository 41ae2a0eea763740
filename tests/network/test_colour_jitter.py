"""Colour jitter: each factor by hand, and torchvision's own as the reference."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms import functional as reference

from detpipe.network.colour_jitter import jitter_colour, jitter_factor

PIXELS = np.array([[[100, 50, 20], [20, 60, 100]]], dtype=np.uint8)


def test_factors_of_one_change_nothing() -> None:
    np.testing.assert_array_equal(jitter_colour(PIXELS, 1, 1, 1), PIXELS)


def test_each_factor_by_hand() -> None:
    np.testing.assert_array_equal(jitter_colour(PIXELS, 2, 1, 1), PIXELS * 2)
    # Without saturation each pixel is its own grey: 0.299 x 100 + 0.587 x 50 + 0.114 x 20 = 61.53, and 52.6.
    np.testing.assert_array_equal(jitter_colour(PIXELS, 1, 1, 0)[0, :, 0], [62, 53])
    # Without contrast all is the mean grey, (61.53 + 52.6) / 2 = 57.065.
    np.testing.assert_array_equal(jitter_colour(PIXELS, 1, 0, 1), np.full((1, 2, 3), 57))


@pytest.mark.parametrize("seed", range(5))
def test_it_is_what_torchvision_does(seed: int) -> None:
    generator = np.random.default_rng(seed)
    image = generator.integers(60, 160, (20, 30, 3), dtype=np.uint8)  # nothing is cut off on the way
    brightness, contrast, saturation = generator.uniform(0.8, 1.2, 3)
    wanted = torch.from_numpy(image).permute(2, 0, 1)
    wanted = reference.adjust_brightness(wanted, brightness)
    wanted = reference.adjust_contrast(wanted, contrast)
    wanted = reference.adjust_saturation(wanted, saturation)
    found = jitter_colour(image, brightness, contrast, saturation)
    assert np.abs(found.astype(int) - wanted.permute(1, 2, 0).numpy().astype(int)).max() <= 3  # it rounds three times


def test_no_pixels() -> None:
    assert jitter_colour(np.zeros((0, 5, 3), dtype=np.uint8), 2, 1, 1).shape == (0, 5, 3)


def test_factors_lie_about_one() -> None:
    assert [jitter_factor(drawn, 0.4) for drawn in (0.0, 0.5)] == [0.6, 1.0]
    assert jitter_factor(0.75, 0.4) == pytest.approx(1.2)
