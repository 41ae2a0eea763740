from __future__ import annotations

import pytest
import torch

from tests.backbone.caffe.one_layer import make, set_blobs


def test_stored_sums_are_divided_by_the_factor() -> None:
    net = make('type: "BatchNorm" batch_norm_param { eps: 1 }', (1, 2, 1, 1))
    set_blobs(net, [4.0, 8.0], [6.0, 30.0], [2.0])
    # means 2 and 4, variances 3 and 15: divided by sqrt(3 + 1) and sqrt(15 + 1).
    assert net(torch.tensor([4.0, 12.0]).reshape(1, 2, 1, 1))["y"].flatten().tolist() == [1, 2]


def test_a_factor_of_zero_is_mean_and_variance_zero() -> None:
    net = make('type: "BatchNorm" batch_norm_param { eps: 0.25 }', (1, 1, 1, 2))
    set_blobs(net, [9.0], [9.0], [0.0])
    assert net(torch.tensor([1.0, 3.0]).reshape(1, 1, 1, 2))["y"].flatten().tolist() == [2, 6]


def test_training_normalises_by_the_batch_and_takes_it_up() -> None:
    setting = "eps: 0.75 moving_average_fraction: 0.5"
    net = make(f'type: "BatchNorm" batch_norm_param {{ {setting} }}', (2, 1, 1, 2), train=True)
    set_blobs(net, [2.0], [4.0], [1.0])
    y = net(torch.tensor([0.0, 0, 1, 1]).reshape(2, 1, 1, 2))["y"]
    # mean 1/2, variance 1/4: (x - 1/2) / sqrt(1/4 + 3/4).
    assert y.flatten().tolist() == [-0.5, -0.5, 0.5, 0.5]
    module = net.layers["one"]
    assert module.mean_sum.item() == 1.5
    assert module.variance_sum.item() == pytest.approx(0.5 * 4 + 0.25 * 4 / 3)
    assert module.factor.item() == 1.5


def test_gradient_is_torchs() -> None:
    net = make('type: "BatchNorm"', (4, 3, 2, 2), train=True)
    x = torch.randn(4, 3, 2, 2, requires_grad=True)
    other = x.detach().clone().requires_grad_()
    weight = torch.randn(4, 3, 2, 2)
    (net(x)["y"] * weight).sum().backward()
    (torch.nn.functional.batch_norm(other, None, None, training=True, eps=1e-5) * weight).sum().backward()
    torch.testing.assert_close(x.grad, other.grad)


def test_global_statistics_in_training_and_no_images() -> None:
    net = make('type: "BatchNorm" batch_norm_param { use_global_stats: true eps: 1 }', (1, 1, 1, 1), train=True)
    assert net(torch.ones(1, 1, 1, 1))["y"].item() == 1
    assert net.layers["one"].factor.item() == 0
    net = make('type: "BatchNorm"', (2, 3, 4, 4), train=True)
    assert net(torch.zeros(0, 3, 4, 4))["y"].shape == (0, 3, 4, 4)
    assert net.layers["one"].factor.item() == 0


def test_a_learning_rate_for_statistics_is_an_error() -> None:
    make('type: "BatchNorm" param { lr_mult: 0 } param { lr_mult: 0 }', (1, 2, 1, 1))
    with pytest.raises(ValueError, match="lr_mult 0"):
        make('type: "BatchNorm" param { lr_mult: 1 }', (1, 2, 1, 1))
