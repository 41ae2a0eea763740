"""Histograms of regions: beside numpy's counts, and slopes by hand."""

from __future__ import annotations

import numpy as np
import pytest

from detpipe.proposals.selective_search.colour_spaces import Planes
from detpipe.proposals.selective_search.histograms import (
    COLOUR_BINS,
    TEXTURE_BINS,
    UNIT,
    pixel_codes,
    region_histograms,
)
from tests.proposals.pictures import digits, noise

SCHARR = np.array([[-3, 0, 3], [-10, 0, 10], [-3, 0, 3]])
TURNED = np.array([[-10, -3, 0], [-3, 0, 3], [0, 3, 10]])
KERNELS = [SCHARR, SCHARR.T, TURNED, TURNED[::-1]]
"""Rising to the right, down, down and right, up and right."""


def slopes(plane: Planes) -> list[np.ndarray]:
    padded = np.pad(plane.astype(np.int64), 1, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3))
    return [(windows * kernel).sum(axis=(2, 3)) for kernel in KERNELS]


def plain_codes(planes: Planes) -> np.ndarray:
    codes = [plane.astype(int) * 25 // 256 for plane in planes]
    for plane in planes:
        for slope in slopes(plane):
            # Bins of a 16-bit fraction of the steepest slope, on each side of zero.
            up, down = (10 << 16) // (slope.max(initial=0) + 1), (10 << 16) // (1 - slope.min(initial=0))
            codes.append(9 + (np.maximum(slope, 0) * up >> 16) - (np.maximum(-slope, 0) * down >> 16))
    return np.array(codes)


@pytest.mark.parametrize("size", [(1, 1), (1, 8), (8, 1), (2, 2), (9, 13)])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("below", [256, 3, 1])
def test_codes(size: tuple[int, int], channels: int, below: int):
    planes = digits(channels * size[0] * size[1], below, 5).reshape(channels, *size)
    codes = pixel_codes(planes)
    assert codes.dtype == np.uint8
    assert codes.tolist() == plain_codes(planes).tolist()


def test_codes_by_hand():
    plane = np.array([[[0, 0, 255]]], np.uint8)
    colour, right, down, down_right, up_right = pixel_codes(plane)[:, 0].tolist()
    assert colour == [0, 0, 24]
    # Slopes of 0, 4080 and 4080, the steepest: the last of ten bins. None downwards.
    assert right == [9, 18, 18]
    assert down == [9, 9, 9]
    assert down_right == up_right == [9, 18, 18]
    assert pixel_codes(255 - plane)[1, 0].tolist() == [9, 0, 0]


def test_steepest_slopes_stay_within_the_bins():
    checks = (np.indices((6, 6)).sum(axis=0) // 2 % 2 * 255).astype(np.uint8)
    codes = pixel_codes(np.stack([checks, 255 - checks, checks.T]))
    assert codes[3:].min() >= 0
    assert codes[3:].max() <= 18


def plain_histograms(codes: np.ndarray, labels: np.ndarray, region: int) -> tuple[np.ndarray, np.ndarray]:
    """Counts of a region's bins, each times UNIT over its pixels and cut down to an integer."""
    channels = len(codes) // 5
    inside = codes[:, labels == region].astype(int)
    colour = [np.bincount(one, minlength=COLOUR_BINS) for one in inside[:channels]]
    texture = []
    for one in inside[channels:]:
        texture += [
            np.bincount(np.maximum(one - 9, 0), minlength=10),
            np.bincount(np.maximum(9 - one, 0), minlength=10),
        ]
    return tuple(np.floor(np.concatenate(g) * (UNIT / inside.shape[1])).astype(int) for g in (colour, texture))


@pytest.mark.parametrize("channels", [1, 3])
def test_histograms(channels: int):
    planes = noise(20, 30)[:, :, :channels].transpose(2, 0, 1).copy()
    labels = (np.arange(600).reshape(20, 30) ** 2 // 3000 % 7).astype(np.int32)
    labels[0, 0] = 7  # one pixel
    sizes = np.bincount(labels.ravel()).astype(np.int32)
    codes = pixel_codes(planes)
    colour, texture = region_histograms(codes, labels, sizes)
    assert colour.shape == (8, 25 * channels)
    assert texture.shape == (8, 80 * channels)
    for region in range(8):
        wanted = plain_histograms(codes, labels, region)
        assert colour[region].tolist() == wanted[0].tolist()
        assert texture[region].tolist() == wanted[1].tolist()


def test_each_group_adds_up_to_the_unit_but_for_cuts():
    planes = noise(20, 30).transpose(2, 0, 1).copy()
    labels = np.zeros((20, 30), np.int32)
    colour, texture = region_histograms(pixel_codes(planes), labels, np.array([600], np.int32))
    for groups in (colour.reshape(-1, COLOUR_BINS), texture.reshape(-1, TEXTURE_BINS)):
        assert ((groups.sum(axis=1) <= UNIT) & (groups.sum(axis=1) > UNIT - 25)).all()
    labels[:] = 0
    single = region_histograms(pixel_codes(planes[:, :1, :1].copy()), labels[:1, :1].copy(), np.array([1], np.int32))
    assert {*single[0].ravel().tolist(), *single[1].ravel().tolist()} == {0, UNIT}
