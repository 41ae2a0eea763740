from __future__ import annotations

import math

import pytest
import torch

from tests.backbone.caffe.one_layer import make, run, set_blobs

X = torch.tensor([[-2.0, 0.0, 3.0]])


@pytest.mark.parametrize(
    ("layer", "wanted"),
    [
        ('type: "ReLU"', [0, 0, 3]),
        ('type: "ReLU" relu_param { negative_slope: 0.5 }', [-1, 0, 3]),
        ('type: "ELU" elu_param { alpha: 2 }', [2 * (math.exp(-2) - 1), 0, 3]),
        ('type: "Sigmoid"', [1 / (1 + math.exp(2)), 0.5, 1 / (1 + math.exp(-3))]),
        ('type: "TanH"', [math.tanh(-2), 0, math.tanh(3)]),
        ('type: "AbsVal"', [2, 0, 3]),
        ('type: "Power" power_param { power: 2 scale: 0.5 shift: 1 }', [0, 1, 6.25]),
        ('type: "Power" power_param { scale: -1 }', [2, 0, -3]),
        ('type: "PReLU"', [-0.5, 0, 3]),
        ('type: "Dropout"', [-2, 0, 3]),
    ],
)
def test_by_hand(layer: str, wanted: list[float]) -> None:
    torch.testing.assert_close(run(layer, X), torch.tensor([wanted], dtype=torch.float32))
    assert make(layer, X.shape)(torch.zeros(0, 3))["y"].shape == (0, 3)


def test_prelu_by_channel_and_shared() -> None:
    net = make('type: "PReLU"', (1, 2, 1, 1))
    set_blobs(net, [0.5, 2.0])
    assert net(torch.full((1, 2, 1, 1), -1.0))["y"].flatten().tolist() == [-0.5, -2]
    shared = make('type: "PReLU" prelu_param { channel_shared: true filler { value: 0.1 } }', (1, 2, 1, 1))
    assert shared.layers["one"].weight.shape == ()
    assert shared(torch.full((1, 2, 1, 1), -10.0))["y"].flatten().tolist() == [-1, -1]


def test_prelus_gradient_by_hand() -> None:
    net = make('type: "PReLU"', (2, 1))
    net(torch.tensor([[-3.0], [5.0]]))["y"].sum().backward()
    assert net.layers["one"].weight.grad.item() == -3


def test_dropout_in_training_keeps_the_mean() -> None:
    net = make('type: "Dropout" dropout_param { dropout_ratio: 0.75 }', (1, 10000), train=True)
    torch.manual_seed(0)
    y = net(torch.ones(1, 10000))["y"]
    assert set(y.unique().tolist()) == {0, 4}
    assert y.mean().item() == pytest.approx(1, abs=0.1)
    with pytest.raises(ValueError, match="dropout_ratio in"):
        make('type: "Dropout" dropout_param { dropout_ratio: 1 }', (1, 2))
