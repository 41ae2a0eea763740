"""Depthwise convolutions with fast gradients on CPUs.

oneDNN 3 has fast kernels for the gradients of depthwise convolutions. In two cases, common in MobileNets and
EfficientNets, it falls back to kernels for grouped convolutions, which are up to a hundred times slower:

- The weight gradient of a kernel wider than 3 (any height is fine). The gradient of a kernel column does not depend on
  other columns. So the kernel is split into strips of at most 3 columns, each computed with a shifted input.
- The input gradient with a stride above 1 in bfloat16. It is computed in float32 here.

`benchmarks/training_step.py` measures the gain.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import FunctionCtx, once_differentiable

MAX_STRIP_WIDTH = 3
"""The widest kernel with a fast weight gradient in oneDNN. With a stride above 1, narrower kernels are slow too."""

Pair = tuple[int, int]


def is_depthwise(module: nn.Module) -> bool:
    """Whether the module is a 2-D convolution with one group per input channel, and more than one channel."""
    return isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1


def use_fast_backward(module: nn.Module) -> int:
    """Replace each plain depthwise `nn.Conv2d` in a module by `DepthwiseConv2d`. Returns how many were replaced.

    Parameters stay the same objects with the same names, so optimisers and checkpoints are not affected. Subclasses of
    `nn.Conv2d` and padding modes other than zeros are not replaced. A second call replaces nothing.
    """
    count = 0
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if _convertible(child):
                assert isinstance(child, nn.Conv2d)
                setattr(parent, name, DepthwiseConv2d.sharing(child))
                count += 1
    return count


class DepthwiseConv2d(nn.Conv2d):
    """A depthwise `nn.Conv2d` with the same forward pass and, up to rounding, the same gradients.

    Without gradients and on devices other than CPUs it runs exactly `nn.Conv2d`, also for compilers.
    """

    @classmethod
    def sharing(cls, conv: nn.Conv2d) -> DepthwiseConv2d:
        """A module that shares the parameters of `conv`, a plain depthwise convolution with zero padding."""
        with torch.device("meta"):
            new = cls(
                conv.in_channels,
                conv.out_channels,
                _pair(conv.kernel_size),
                _pair(conv.stride),
                _pair(conv.padding),
                _pair(conv.dilation),
                conv.groups,
                conv.bias is not None,
            )
        new.weight, new.bias = conv.weight, conv.bias
        return new.train(conv.training)

    def _conv_forward(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """(N, C, H, W) -> (N, C', H', W'), as `nn.Conv2d` with the given weights."""
        trained = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
        if not trained or x.device.type != "cpu":
            plain: torch.Tensor = super()._conv_forward(x, weight, bias)
            return plain
        if torch.is_autocast_enabled("cpu"):
            # Autocast does not know custom functions, so cast here as it does for nn.Conv2d.
            dtype = torch.get_autocast_dtype("cpu")
            x, weight, bias = x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
        geometry = (_pair(self.stride), _pair(self.padding), _pair(self.dilation))
        y: torch.Tensor = _DepthwiseConvolution.apply(x, weight, bias, *geometry)
        return y


class _DepthwiseConvolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        stride: Pair,
        padding: Pair,
        dilation: Pair,
    ) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        ctx.geometry = (stride, padding, dilation)  # type: ignore[attr-defined]
        return F.conv2d(x, weight, bias, stride, padding, dilation, x.shape[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight = ctx.saved_tensors  # type: ignore[attr-defined]
        needs_x, needs_weight, needs_bias, *_ = ctx.needs_input_grad  # type: ignore[attr-defined]
        stride, padding, dilation = ctx.geometry  # type: ignore[attr-defined]
        grad_x = input_gradient(grad, x, weight, stride, padding, dilation) if needs_x else None
        grad_weight = weight_gradient(grad, x, weight, stride, padding, dilation) if needs_weight else None
        grad_bias = grad.sum((0, 2, 3)) if needs_bias else None
        return grad_x, grad_weight, grad_bias, None, None, None


def input_gradient(
    grad: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, stride: Pair, padding: Pair, dilation: Pair
) -> torch.Tensor:
    """The gradient of the input `x` (N, C, H, W), in its dtype. grad: of the output, (N, C', H', W')."""
    if max(stride) > 1 and x.dtype == torch.bfloat16:
        # Only the shape of `x` matters here, so an empty tensor saves a cast.
        like_x = torch.empty_like(x, dtype=torch.float32)
        wide = input_gradient(grad.float(), like_x, weight.float(), stride, padding, dilation)
        return wide.to(x.dtype)
    return convolution_gradient(grad, x, weight, stride, padding, dilation, x.shape[1], of="input")


def weight_gradient(
    grad: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, stride: Pair, padding: Pair, dilation: Pair
) -> torch.Tensor:
    """The gradient of the kernel `weight` (C', 1, kh, kw), in its dtype. grad: of the output."""
    height, width = weight.shape[2:]
    if width <= MAX_STRIP_WIDTH:
        return convolution_gradient(grad, x, weight, stride, padding, dilation, x.shape[1], of="weight")
    count = -(-width // MAX_STRIP_WIDTH)
    edges = [width * i // count for i in range(count + 1)]
    strips = []
    for start, stop in pairwise(edges):
        # The strip's first column sees the input `start` columns further right, its last column likewise from the end.
        # Negative padding crops. Rows are padded here too: oneDNN is slow for a kernel higher than the map.
        left = padding[1] - start * dilation[1]
        right = padding[1] - (width - stop) * dilation[1]
        shifted = F.pad(x, (left, right, padding[0], padding[0]))
        strip = weight.new_empty((len(weight), 1, height, stop - start))
        strips.append(convolution_gradient(grad, shifted, strip, stride, (0, 0), dilation, x.shape[1], of="weight"))
    return torch.cat(strips, dim=3)


def convolution_gradient(
    grad: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
    *,
    of: Literal["input", "weight"],
) -> torch.Tensor:
    """PyTorch's gradient of the input `x` or of the `weight` of a convolution. grad: of its output."""
    wanted = [of == "input", of == "weight", False]
    gradients = torch.ops.aten.convolution_backward(
        grad, x, weight, None, stride, padding, dilation, False, [0, 0], groups, wanted
    )
    result: torch.Tensor = gradients[wanted.index(True)]
    return result


def _convertible(module: nn.Module) -> bool:
    return (
        type(module) is nn.Conv2d
        and is_depthwise(module)
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
    )


def _pair(values: object) -> Pair:
    assert isinstance(values, tuple)
    assert len(values) == 2
    return int(values[0]), int(values[1])
