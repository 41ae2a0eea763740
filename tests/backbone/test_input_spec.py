from __future__ import annotations

import pytest
import torch

from detpipe.backbone.input_spec import ChannelOrder, InputSpec
from detpipe.resize import Interpolation

CAFFE = InputSpec(
    size=(227, 256),
    mean=(104.0, 117.0, 123.0),
    std=(1.0, 2.0, 4.0),
    channel_order=ChannelOrder.BGR,
    interpolation=Interpolation.area,
)


def test_rgb_by_hand() -> None:
    spec = InputSpec(size=(1, 2), mean=(10, 20, 30), std=(1, 2, 5))
    images = torch.tensor([[[[10, 20, 30], [11, 24, 40]]]], dtype=torch.uint8)
    x = spec.to_input(images)
    assert x.dtype == torch.float32
    assert x.tolist() == [[[[0, 1]], [[0, 2]], [[0, 2]]]]


def test_bgr_by_hand() -> None:
    x = CAFFE.to_input(torch.tensor([[[[127, 119, 105]]]], dtype=torch.uint8))
    # blue 105 - 104, green (119 - 117) / 2, red (127 - 123) / 4
    assert x.flatten().tolist() == [1, 1, 1]


def test_input_is_left_alone_and_memory_is_channels_last() -> None:
    images = torch.randint(0, 256, (2, 5, 7, 3), dtype=torch.uint8)
    before = images.clone()
    assert CAFFE.to_input(images).is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(images, before)


def test_no_images() -> None:
    assert CAFFE.to_input(torch.zeros((0, 8, 9, 3), dtype=torch.uint8)).shape == (0, 3, 8, 9)


@pytest.mark.parametrize(
    "images", [torch.zeros(1, 3, 8, 8, dtype=torch.uint8), torch.zeros(1, 8, 8, 3), torch.zeros(8, 8, 3)]
)
def test_wrong_images(images: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="uint8 RGB, got"):
        CAFFE.to_input(images)


def test_bad_values() -> None:
    with pytest.raises(ValueError, match="above 0"):
        InputSpec(size=(1, 1), mean=(0, 0, 0), std=(1, 0, 1))
    with pytest.raises(ValueError, match="at least 1 pixel"):
        InputSpec(size=(0, 1), mean=(0, 0, 0), std=(1, 1, 1))
