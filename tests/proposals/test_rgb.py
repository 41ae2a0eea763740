"""Which arrays are taken for an image, and what is made of each."""

from __future__ import annotations

import numpy as np
import pytest

from detpipe.proposals.rgb import as_rgb
from tests.proposals.pictures import scene


def test_an_image_stays_as_it_is():
    image = scene()
    assert np.array_equal(as_rgb(image), image)
    assert np.shares_memory(as_rgb(image), image)


def test_grey_is_repeated_and_alpha_dropped():
    grey = np.array([[0, 7], [255, 9]], np.uint8)
    wanted = [[[0] * 3, [7] * 3], [[255] * 3, [9] * 3]]
    assert as_rgb(grey).tolist() == wanted
    assert as_rgb(grey[:, :, None]).tolist() == wanted
    image = scene()
    assert np.array_equal(as_rgb(np.dstack([image, image[:, :, 0]])), image)


def test_uint16_keeps_its_upper_bits():
    deep = np.array([[[0, 255, 256], [65535, 0x1234, 0xFF00]]], np.uint16)
    assert as_rgb(deep).tolist() == [[[0, 0, 1], [255, 0x12, 255]]]
    assert as_rgb(deep[:, :, 0]).tolist() == [[[0] * 3, [255] * 3]]


@pytest.mark.parametrize("view", [np.s_[::2, ::-1], np.s_[:, ::3], np.s_[5:, 7:]])
def test_views_become_whole_pieces_that_may_be_written(view):
    image = scene()
    taken = as_rgb(image[view])
    assert np.array_equal(taken, image[view])
    assert taken.flags.c_contiguous
    image.flags.writeable = False
    taken = as_rgb(image)
    assert np.array_equal(taken, image)
    assert taken.flags.writeable


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (np.zeros((4, 4, 3), np.float32), r"float32; give \(image \* 255\)"),
        (np.zeros((4, 4), np.float64), "float64; give"),
        (np.zeros((4, 4, 3), bool), r"got \(4, 4, 3\) bool$"),
        (np.zeros((4, 4, 3), np.int64), r"got \(4, 4, 3\) int64$"),
        (np.zeros((4, 4, 2), np.uint8), r"got \(4, 4, 2\)"),
        (np.zeros((3, 4, 4, 3), np.uint8), r"got \(3, 4, 4, 3\)"),
        (np.zeros(12, np.uint8), r"got \(12,\)"),
        (np.zeros((0, 5, 3), np.uint8), r"H, W > 0, got \(0, 5, 3\)"),
        (np.zeros((5, 0), np.uint8), r"H, W > 0, got \(5, 0\)"),
        ([[1, 2], [3, 4]], "got list"),
        (None, "got NoneType"),
    ],
)
def test_other_things_are_named(wrong: object, message: str):
    with pytest.raises(ValueError, match=message):
        as_rgb(wrong)
