from __future__ import annotations

import pytest

from detpipe.backbone.caffe.inputs import input_shapes
from detpipe.backbone.caffe.prototxt import parse_prototxt
from detpipe.backbone.caffe.upgrade import upgrade


def shapes(layer: str, given: tuple[int, ...] | None = None, tops: int = 2) -> list[tuple[int, ...]]:
    names = " ".join(f'top: "t{i}"' for i in range(tops))
    return input_shapes(upgrade(parse_prototxt(f"layer {{ {layer} {names} }}")).layer[0], given)


@pytest.mark.parametrize(
    ("layer", "wanted"),
    [
        ('type: "Input" input_param { shape { dim: 2 dim: 3 } }', [(2, 3), (2, 3)]),
        ('type: "Input" input_param { shape { dim: 2 dim: 3 } shape { dim: 2 } }', [(2, 3), (2,)]),
        ('type: "Data" data_param { batch_size: 8 } transform_param { crop_size: 27 }', [(8, 3, 27, 27), (8,)]),
        ('type: "Data" transform_param { crop_size: 27 force_gray: true }', [(1, 1, 27, 27), (1,)]),
        ('type: "ImageData" image_data_param { new_height: 5 new_width: 6 is_color: false }', [(1, 1, 5, 6), (1,)]),
        ('type: "MemoryData" memory_data_param { batch_size: 2 channels: 1 height: 3 width: 4 }', [(2, 1, 3, 4), (2,)]),
        ('type: "DummyData" dummy_data_param { num: 1 channels: 2 height: 3 width: 4 }', [(1, 2, 3, 4)] * 2),
        ('type: "WindowData" window_data_param { crop_size: 9 batch_size: 4 }', [(4, 3, 9, 9), (4,)]),
    ],
)
def test_what_the_text_says(layer: str, wanted: list[tuple[int, ...]]) -> None:
    assert shapes(layer) == wanted
    if layer.count("shape") < 2:
        assert shapes(layer, tops=1) == wanted[:1]


def test_a_given_shape_beats_the_text() -> None:
    assert shapes('type: "Data"', (4, 1, 28, 28)) == [(4, 1, 28, 28), (4,)]
    text = 'type: "Input" input_param { shape { dim: 2 dim: 3 } shape { dim: 2 } }'
    assert shapes(text, (7, 9)) == [(7, 9), (7,)]


def test_nobody_says() -> None:
    for layer in ('type: "Data"', 'type: "HDF5Data"', 'type: "Input"'):
        with pytest.raises(ValueError, match=r"input_shape=\(N, C, H, W\)"):
            shapes(layer)
    with pytest.raises(ValueError, match="a shape for each of 3 tops, got 2"):
        shapes('type: "Input" input_param { shape { dim: 2 } shape { dim: 2 } }', tops=3)
