from __future__ import annotations

import math

import pytest
import torch

from detpipe.inspect.filters import filter_pictures, first_filters


def test_the_filters_that_see_the_image() -> None:
    depthwise, colour, later = torch.ones(8, 1, 3, 3), torch.ones(8, 3, 3, 3), torch.ones(4, 8, 3, 3)
    assert first_filters({"later": later, "dw": depthwise, "stem": colour}) == "stem"
    assert first_filters({"conv2": later, "conv1": depthwise}) == "conv1"
    assert (
        first_filters({"fc": torch.ones(10, 3), "point": torch.ones(8, 3, 1, 1), "none": torch.ones(0, 3, 3, 3)})
        is None
    )
    assert first_filters({}) is None


def test_colours_by_hand() -> None:
    # One filter of 1 x 2 places: the channels are (0, 10), (5, 5), (10, 0).
    filters = torch.tensor([[[[0.0, 10.0]], [[5.0, 5.0]], [[10.0, 0.0]]]])
    assert filter_pictures(filters, 9, bgr=False)[0].tolist() == [[[0, 128, 255], [255, 128, 0]]]
    assert filter_pictures(filters, 9, bgr=True)[0].tolist() == [[[255, 128, 0], [0, 128, 255]]]


def test_each_filter_by_itself_and_channels_in_grey() -> None:
    filters = torch.tensor([[[[0.0, 1.0]], [[2.0, -2.0]]], [[[7.0, 7.0]], [[math.nan, math.inf]]]])
    pictures = filter_pictures(filters, 3, bgr=False)
    assert [one[0, :, 0].tolist() for one in pictures] == [[0, 255], [255, 0], [128, 128]]
    assert filter_pictures(filters, 4, bgr=False)[3].tolist() == [[[0, 0, 0], [0, 0, 0]]]


def test_other_axes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(F, C, h, w\).*got \(3, 3\)"):
        filter_pictures(torch.ones(3, 3), 1, bgr=False)
