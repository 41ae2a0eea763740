"""Images at other sizes and mirrored, and boxes there and back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from detpipe.backbone.input_spec import ChannelOrder, InputSpec
from detpipe.boxes import encode, iou
from detpipe.classify.fast_rcnn.batches import moved
from detpipe.classify.labeling import Regions
from detpipe.network.scaled_image import Scaling, mean_colour
from detpipe.structures import Float32Array


def boxes_of(*rows: tuple[float, float, float, float]) -> Float32Array:
    return np.array(rows, dtype=np.float32).reshape(-1, 4)


def test_by_hand() -> None:
    scaling = Scaling.to_side((100, 200), 50, 1000)
    assert scaling.input_size == (50, 100)
    np.testing.assert_array_equal(scaling.to_input(boxes_of((10, 20, 200, 100))), boxes_of((5, 10, 100, 50)))
    mirrored = Scaling.to_side((100, 200), 50, 1000, mirrored=True)
    np.testing.assert_array_equal(mirrored.to_input(boxes_of((10, 20, 60, 100))), boxes_of((70, 10, 95, 50)))


def test_the_longer_side_is_bounded() -> None:
    assert Scaling.to_side((100, 1000), 300, 600).input_size == (60, 600)
    assert Scaling.to_side((1000, 100), 300, 600).input_size == (600, 60)
    assert Scaling.to_side((1, 4000), 300, 600).input_size == (1, 600)  # a line stays one


@given(
    st.tuples(st.integers(2, 900), st.integers(2, 900)),
    st.integers(32, 600),
    st.booleans(),
    st.lists(st.tuples(*[st.integers(0, 90)] * 2, *[st.integers(5, 100)] * 2), max_size=5),
)
def test_there_and_back(size: tuple[int, int], side: int, mirrored: bool, shares: list[tuple[int, ...]]) -> None:
    """Objects as proposals: every box comes back, overlaps (and so labels and recall) and deltas stay."""
    scaling = Scaling.to_side(size, side, 1000, mirrored=mirrored)
    height, width = size
    rows = [(x * width, y * height, (x + w) * width, (y + h) * height) for x, y, w, h in shares]
    boxes = boxes_of(*rows) / np.float32(100)
    there = scaling.to_input(boxes)
    np.testing.assert_allclose(scaling.to_image(there), boxes, rtol=1e-4, atol=2e-3)
    assert (there[:, 2:] >= there[:, :2]).all()
    np.testing.assert_allclose(iou(there, there), iou(boxes, boxes), atol=5e-3)
    if len(boxes):
        target = boxes[::-1].copy()
        labels = np.ones(len(boxes), dtype=np.int64)
        regions = Regions(boxes, labels, np.ones(len(boxes), dtype=np.float32), encode(boxes, target))
        np.testing.assert_allclose(
            moved(regions, scaling).deltas, encode(there, scaling.to_input(target)), rtol=2e-2, atol=2e-2
        )


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("side", [20, 40, 60, 97])
def test_pixels_go_where_boxes_go(side: int, mirrored: bool) -> None:
    image = np.zeros((40, 60, 3), dtype=np.uint8)
    image[10:30, 15:45] = 200
    scaling = Scaling.to_side((40, 60), side, 1000, mirrored=mirrored)
    seen = scaling.pixels(image)
    assert seen.shape == (*scaling.input_size, 3)
    x1, y1, x2, y2 = scaling.to_input(boxes_of((15, 10, 45, 30)))[0]
    inside = seen[int(np.ceil(y1)) + 1 : int(y2) - 1, int(np.ceil(x1)) + 1 : int(x2) - 1]
    assert (inside == 200).all()
    seen[int(y1) - 1 : int(np.ceil(y2)) + 1, int(x1) - 1 : int(np.ceil(x2)) + 1] = 0
    assert not seen.any()


@pytest.mark.parametrize("side", [200, 320, 512])
def test_a_wide_image_in_a_square_is_averaged_along_x(side: int) -> None:
    """The square forms of MultiBox: the height may stay or grow while the width shrinks."""
    image = np.zeros((300, 1200, 3), dtype=np.uint8)
    image[:, 1::2] = 255
    assert Scaling((300, 1200), (side, side)).pixels(image).std() < 40


def test_an_image_of_another_size() -> None:
    with pytest.raises(ValueError, match=r"expected an image of \(40, 60\), got \(60, 40\)"):
        Scaling.to_side((40, 60), 20, 100).pixels(np.zeros((60, 40, 3), dtype=np.uint8))


def test_no_boxes() -> None:
    assert Scaling.to_side((40, 60), 20, 100, mirrored=True).to_input(boxes_of()).shape == (0, 4)


def test_padding_is_nothing_to_the_network() -> None:
    for order in ChannelOrder:
        spec = InputSpec((8, 8), (100.0, 110.0, 120.0), (50.0, 50.0, 50.0), order)
        fill = torch.tensor(mean_colour(spec), dtype=torch.uint8).expand(1, 4, 4, 3)
        assert not spec.to_input(fill.contiguous()).any()
