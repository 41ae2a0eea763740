from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from detpipe.backbone.depthwise_conv import DepthwiseConv2d, is_depthwise, use_fast_backward

GEOMETRIES = [
    # kernel, stride, padding, dilation, bias
    (3, 1, 1, 1, False),
    (3, 2, 0, 1, True),
    (5, 1, 2, 1, False),
    (5, 2, 0, 1, True),
    (5, 2, 2, 1, False),
    (4, 1, 1, 1, False),
    (7, 2, 3, 1, False),
    (5, 1, 4, 2, True),
    ((3, 5), (1, 2), (0, 1), 1, False),
]


def pair_of_convs(geometry: tuple, channels: int = 4, **options: object) -> tuple[nn.Conv2d, DepthwiseConv2d]:
    kernel, stride, padding, dilation, bias = geometry
    plain = nn.Conv2d(channels, channels, kernel, stride, padding, dilation, channels, bias, **options)
    return plain, DepthwiseConv2d.sharing(copy.deepcopy(plain))


def gradients(conv: nn.Conv2d, x: torch.Tensor, grad: torch.Tensor) -> list[torch.Tensor]:
    x = x.detach().requires_grad_()
    return list(torch.autograd.grad(conv(x), [x, *conv.parameters()], grad))


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_gradients_are_those_of_finite_differences(geometry: tuple) -> None:
    _, fast = pair_of_convs(geometry, channels=2, dtype=torch.float64)
    x = torch.randn(1, 2, 7, 6, dtype=torch.float64, requires_grad=True)
    parameters = tuple(fast.parameters())

    def run(x: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
        return fast(x)

    assert torch.autograd.gradcheck(run, (x, *parameters), fast_mode=True)


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("channels_last", [False, True])
def test_float32_equals_the_plain_convolution(geometry: tuple, channels_last: bool) -> None:
    plain, fast = pair_of_convs(geometry, channels=16)
    x = torch.randn(3, 16, 12, 13)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    y = plain(x)
    assert torch.equal(y, fast(x))
    grad = torch.randn_like(y)
    for want, got in zip(gradients(plain, x, grad), gradients(fast, x, grad), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_bfloat16_is_as_near_to_the_truth_as_bfloat16_can_be(geometry: tuple) -> None:
    _, fast = pair_of_convs(geometry, channels=16)
    x = torch.randn(3, 16, 12, 13).bfloat16().float()
    with torch.no_grad():
        for parameter in fast.parameters():
            parameter.copy_(parameter.bfloat16())
    grad = torch.randn_like(fast(x)).bfloat16()
    truth = gradients(copy.deepcopy(fast).double(), x.double(), grad.double())
    with torch.autocast("cpu", torch.bfloat16):
        assert fast(x).dtype == torch.bfloat16
        got = gradients(fast, x, grad)
    for want, value in zip(truth, got, strict=True):
        assert value.dtype == torch.float32
        torch.testing.assert_close(value.double(), want, rtol=2**-7, atol=2**-7)


def test_a_map_smaller_than_the_kernel() -> None:
    plain, fast = pair_of_convs((5, 1, 2, 1, False), channels=16)
    x = torch.randn(2, 16, 2, 1)
    grad = torch.randn(2, 16, 2, 1)
    for want, got in zip(gradients(plain, x, grad), gradients(fast, x, grad), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


def test_no_images() -> None:
    _, fast = pair_of_convs((5, 2, 2, 1, False))
    x = torch.zeros(0, 4, 8, 8, requires_grad=True)
    y = fast(x)
    assert y.shape == (0, 4, 4, 4)
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.shape == x.shape
    assert fast.weight.grad is not None
    assert not fast.weight.grad.any()


def test_frozen_kernel_gets_no_gradient_but_the_input_does() -> None:
    _, fast = pair_of_convs((5, 2, 2, 1, False))
    fast.requires_grad_(False)
    x = torch.randn(1, 4, 8, 8, requires_grad=True)
    fast(x).sum().backward()
    assert fast.weight.grad is None
    assert x.grad is not None


def test_swap_keeps_parameters_names_and_other_modules() -> None:
    same = nn.Conv2d(4, 4, 3, padding="same", groups=4)
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(nn.Conv2d(4, 8, 5, groups=4), nn.Conv2d(8, 4, 1)), same)
    before = dict(net.named_parameters())
    assert use_fast_backward(net) == 1
    assert use_fast_backward(net) == 0
    after = dict(net.named_parameters())
    assert before.keys() == after.keys()
    assert all(before[name] is after[name] for name in before)
    assert isinstance(net[1][0], DepthwiseConv2d)
    assert net[2] is same


def test_what_is_depthwise() -> None:
    assert is_depthwise(nn.Conv2d(4, 8, 3, groups=4))
    assert not is_depthwise(nn.Conv2d(4, 4, 3, groups=2))
    assert not is_depthwise(nn.Conv2d(1, 8, 3))
    assert not is_depthwise(nn.Linear(4, 4))
