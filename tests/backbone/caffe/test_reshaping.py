from __future__ import annotations

import pytest
import torch

from tests.backbone.caffe.one_layer import dims, make, run


@pytest.mark.parametrize(
    ("setting", "wanted"),
    [("", (2, 60)), ("axis: 2", (2, 3, 20)), ("axis: 0", (120,)), ("axis: 1 end_axis: -2", (2, 12, 5))],
)
def test_flatten(setting: str, wanted: tuple[int, ...]) -> None:
    assert run(f'type: "Flatten" flatten_param {{ {setting} }}', torch.zeros(2, 3, 4, 5)).shape == wanted


@pytest.mark.parametrize(
    ("setting", "wanted"),
    [
        # The cases that caffe.proto itself tells of, on a blob of 2 x 8.
        (f"shape {{ {dims((2, 2, 4))} }}", (2, 2, 4)),
        (f"shape {{ {dims((0, 2, 4))} }}", (2, 2, 4)),
        (f"shape {{ {dims((0, 2, -1))} }}", (2, 2, 4)),
        (f"shape {{ {dims((0, -1, 4))} }}", (2, 2, 4)),
        (f"shape {{ {dims((2, 4))} }} axis: 1", (2, 2, 4)),
        (f"shape {{ {dims((2, 4))} }} axis: -3", None),
        (f"shape {{ {dims((2, 4))} }} axis: -2", (2, 2, 4)),
        (f"shape {{ {dims((1, 2, 8))} }}", (1, 2, 8)),
        (f"shape {{ {dims((1, 2))} }} num_axes: 1", (1, 2, 8)),
        (f"shape {{ {dims((1,))} }} num_axes: 0", (1, 2, 8)),
        (f"shape {{ {dims((1,))} }} axis: 1 num_axes: 0", (2, 1, 8)),
        (f"shape {{ {dims((3, -1))} }}", None),
        (f"shape {{ {dims((-1, -1))} }}", None),
        (f"shape {{ {dims((-2, -8))} }}", None),
        (f"shape {{ {dims((2, 8, 0))} }}", None),
    ],
)
def test_reshape(setting: str, wanted: tuple[int, ...] | None) -> None:
    layer = f'type: "Reshape" reshape_param {{ {setting} }}'
    if wanted is None:
        with pytest.raises(ValueError, match=r"layer 'one' \(Reshape\): expected"):
            make(layer, (2, 8))
    else:
        x = torch.arange(16.0).reshape(2, 8)
        assert run(layer, x).shape == wanted
        assert run(layer, x).flatten().tolist() == x.flatten().tolist()


def test_no_images() -> None:
    net = make(f'type: "Reshape" reshape_param {{ shape {{ {dims((0, 2, -1))} }} }}', (2, 8))
    assert net(torch.zeros(0, 8))["y"].shape == (0, 2, 4)
    assert net(torch.zeros(5, 8))["y"].shape == (5, 2, 4)
    assert make('type: "Flatten"', (2, 3, 4))(torch.zeros(0, 3, 4))["y"].shape == (0, 12)
