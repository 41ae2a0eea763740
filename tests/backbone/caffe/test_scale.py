from __future__ import annotations

import pytest
import torch

from tests.backbone.caffe.one_layer import make, run, set_blobs


def test_by_channel_by_hand() -> None:
    net = make('type: "Scale" scale_param { bias_term: true }', (1, 2, 1, 2))
    x = torch.tensor([1.0, 2, 3, 4]).reshape(1, 2, 1, 2)
    assert torch.equal(net(x)["y"], x)  # 1 and 0 before training
    set_blobs(net, [2.0, 10.0], [1.0, 0.0])
    assert net(x)["y"].flatten().tolist() == [3, 5, 30, 40]


def test_axes_and_one_number() -> None:
    assert make('type: "Scale" scale_param { axis: 2 num_axes: -1 }', (2, 3, 4, 5)).layers["one"].weight.shape == (4, 5)
    assert make('type: "Scale" scale_param { axis: -2 num_axes: 1 }', (2, 3, 4, 5)).layers["one"].weight.shape == (4,)
    net = make('type: "Scale" scale_param { num_axes: 0 filler { value: 3 } }', (1, 2, 1, 1))
    assert net.layers["one"].weight.shape == ()
    assert net(torch.ones(1, 2, 1, 1))["y"].flatten().tolist() == [3, 3]
    assert net(torch.ones(0, 2, 1, 1))["y"].shape == (0, 2, 1, 1)


def test_a_second_bottom_is_the_scale() -> None:
    x, y = torch.ones(2, 3, 1, 2), torch.tensor([[1.0, 2, 3], [4, 5, 6]])
    assert run('type: "Scale" scale_param { axis: 0 }', x, y)[..., 0].flatten().tolist() == [1, 2, 3, 4, 5, 6]
    assert run('type: "Bias" bias_param { axis: 0 }', x, y)[..., 0].flatten().tolist() == [2, 3, 4, 5, 6, 7]


def test_bias_alone() -> None:
    net = make('type: "Bias" bias_param { filler { value: 2 } }', (1, 3, 2, 2))
    assert net(torch.zeros(1, 3, 2, 2))["y"].eq(2).all()


@pytest.mark.parametrize("setting", ["axis: 4", "axis: 3 num_axes: 2", "num_axes: -2"])
def test_wrong_settings(setting: str) -> None:
    with pytest.raises(ValueError, match=r"layer 'one' \(Scale\): expected ax"):
        make(f'type: "Scale" scale_param {{ {setting} }}', (1, 2, 3, 4))
    with pytest.raises(ValueError, match="expected a second bottom"):
        make('type: "Scale"', (1, 2, 3, 4), (3,))


def test_a_second_bottom_of_one_number_wants_no_axis() -> None:
    x, one = torch.tensor([1.0, 2.0]), torch.tensor(3.0)
    assert run('type: "Scale"', x, one).tolist() == [3, 6]
    assert run('type: "Bias"', x, one).tolist() == [4, 5]
