from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detpipe.backbone.clipped_conv import clipped_convolution, pad_same


def test_same_padding_by_hand() -> None:
    conv = torch.nn.Conv2d(1, 1, 5, stride=2)
    # 6 rows: 3 outputs reach over (3 - 1) * 2 + 5 = 9 rows, 3 more, 1 above and 2 below; 5 columns: 9, 4 more.
    padded = pad_same(torch.ones(1, 1, 6, 5), conv)
    assert padded.shape == (1, 1, 9, 9)
    assert padded[0, 0, :, 4].tolist() == [0, 1, 1, 1, 1, 1, 1, 0, 0]
    assert padded[0, 0, 4].tolist() == [0, 0, 1, 1, 1, 1, 1, 0, 0]


def random(*shape: int, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return (scale * torch.randn(shape, generator=generator)).contiguous(
        memory_format=torch.channels_last if len(shape) == 4 else torch.contiguous_format
    )


@pytest.mark.parametrize("size", [(6, 8), (7, 8), (7, 9), (1, 2), (2, 1)])
@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 1), (3, 2), (5, 1), (5, 2)])
@pytest.mark.parametrize("depthwise", [False, True])
def test_as_padding_convolution_and_relu6(depthwise: bool, kernel: int, stride: int, size: tuple[int, int]) -> None:
    groups, out = (4, 4) if depthwise else (1, 6)
    padding = kernel // 2 if stride == 1 else 0
    convolution = nn.Conv2d(4, out, kernel, stride, padding, groups=groups, bias=False)
    x, weight = random(3, 4, *size), random(out, 4 // groups, kernel, kernel, scale=4.0)
    bias = random(out)
    inputs = [one.requires_grad_() for one in (x, weight, bias)]
    wanted = F.relu6(convolution._conv_forward(pad_same(x, convolution), weight, bias))
    found = clipped_convolution(convolution, *inputs)
    assert 0 < float((found == 0).float().mean()) + float((found == 6).float().mean()) < 1
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
    upstream = random(*wanted.shape)
    gradients = [torch.autograd.grad(one, inputs, upstream) for one in (found, wanted)]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-4)
    with torch.no_grad():
        assert torch.equal(clipped_convolution(convolution, *inputs), found)


def test_in_bfloat16_by_autocast() -> None:
    convolution = nn.Conv2d(8, 8, 5, 2, groups=8, bias=False)
    inputs = [one.requires_grad_() for one in (random(2, 8, 10, 12), random(8, 1, 5, 5), random(8))]
    exact = clipped_convolution(convolution, *inputs)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = clipped_convolution(convolution, *inputs)
    assert rounded.dtype == torch.bfloat16
    torch.testing.assert_close(rounded.float(), exact, atol=0.05, rtol=0.02)
    upstream = (exact > 0.1) & (exact < 5.9)  # where rounding does not decide whether a value is clipped
    wanted = torch.autograd.grad(exact, inputs, upstream.float())
    found = torch.autograd.grad(rounded, inputs, upstream.bfloat16())
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one, other, atol=0.2, rtol=0.02)


def test_of_other_types_in_several_operations_and_of_no_images() -> None:
    convolution = nn.Conv2d(4, 4, 3, 2, groups=4, bias=False)
    x, weight, bias = random(2, 4, 6, 7), random(4, 1, 3, 3), random(4)
    double = clipped_convolution(convolution, x.double(), weight.double(), bias.double())
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), clipped_convolution(convolution, x, weight, bias))
    assert clipped_convolution(convolution, x[:0], weight, bias).shape == (0, 4, 3, 4)
