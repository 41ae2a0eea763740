"""Resizing: averages where a side shrinks, else the interpolation that is asked for, with and without antialiasing."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import PIL.Image
import pytest

from detpipe.resize import Interpolation, resize
from detpipe.structures import Image

NOISE = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)


def stripes(height: int, width: int) -> Image:
    """Columns of one pixel, black and white by turns."""
    image = np.zeros((height, width, 3), dtype=np.uint8)
    image[:, 1::2] = 255
    return image


@pytest.mark.parametrize("size", [(150, 300), (300, 300), (320, 300), (640, 300)])
def test_a_side_that_shrinks_is_averaged_whatever_the_other_does(size: tuple[int, int]) -> None:
    """Of 4 columns 2 are white: every pixel is grey. Point sampling leaves stripes."""
    assert set(np.unique(resize(stripes(300, 1200), size))) <= {127, 128}
    turned = np.ascontiguousarray(stripes(300, 1200).swapaxes(0, 1))
    assert set(np.unique(resize(turned, size[::-1]))) <= {127, 128}


def test_the_mean_of_the_area_by_hand() -> None:
    image = np.array([[0, 10, 20, 30], [40, 50, 60, 70]], dtype=np.uint8)
    np.testing.assert_array_equal(resize(image, (1, 2)), [[25, 45]])
    # Averaged along x to (5, 25) and (45, 65), then bilinear along y: quarters of the way between the rows' centres.
    np.testing.assert_array_equal(resize(image, (4, 2)), [[5, 25], [15, 35], [35, 55], [45, 65]])


@pytest.mark.parametrize("name", ["bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("size", [(17, 23), (60, 80), (17, 80)])
def test_a_networks_interpolation_is_that_of_pillow(name: str, size: tuple[int, int]) -> None:
    wanted = PIL.Image.fromarray(NOISE).resize(size[::-1], PIL.Image.Resampling[name.upper()])
    np.testing.assert_array_equal(resize(NOISE, size, Interpolation(name)), np.asarray(wanted))


@pytest.mark.parametrize(
    ("name", "flag"),
    [
        ("nearest", cv2.INTER_NEAREST),
        ("bilinear", cv2.INTER_LINEAR),
        ("bicubic", cv2.INTER_CUBIC),
        ("lanczos", cv2.INTER_LANCZOS4),
    ],
)
def test_without_antialiasing_it_is_opencvs(name: str, flag: int) -> None:
    for image in (NOISE, NOISE[:, :, 0]):
        wanted = cv2.resize(image, (23, 50), interpolation=flag)
        np.testing.assert_array_equal(resize(image, (50, 23), Interpolation(name), antialias=False), wanted)


@pytest.mark.parametrize("name", list(Interpolation))
def test_the_same_size_is_a_copy(name: Interpolation) -> None:
    found = resize(NOISE, (30, 40), name)
    np.testing.assert_array_equal(found, NOISE)
    assert not np.shares_memory(found, NOISE)


@pytest.mark.parametrize(
    ("image", "size"),
    [(NOISE[:0], (5, 5)), (NOISE[:, :0], (5, 5)), (NOISE, (0, 5)), (NOISE, (5, 0))],
)
def test_nothing_can_not_be_resized(image: npt.NDArray[np.uint8], size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"resize: expected an image with pixels"):
        resize(image, size)
