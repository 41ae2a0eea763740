"""A convolution with TensorFlow's 'same' padding and ReLU6 as one operation on CPUs.

It saves passes over the maps, forward and backward, which take as long as many convolutions:

- oneDNN clips in the kernel of the convolution. ReLU6 by itself reads and writes the map again, and in training both
  maps are kept. ReLU6's output tells as well as its input where it was clipped, so the gradients are the same.
- With stride 2 and an even side, 'same' padding is one pixel more at the bottom and right. PyTorch can't pad so without
  a copy of the map. A depthwise kernel with a row and a column of zeros at its top and left needs no copy.
- The input gradient of such a convolution is a convolution with stride 1 of the gradient with zeros between its cells.
  In bfloat16 oneDNN has no other fast kernel for it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from detpipe.backbone.depthwise_conv import convolution_gradient, is_depthwise, weight_gradient


class _Geometry(NamedTuple):
    """top, bottom, left, right: rows and columns of padding."""

    stride: int
    top: int
    bottom: int
    left: int
    right: int
    groups: int


def clipped_convolution(convolution: nn.Conv2d, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """ReLU6 of `convolution` with 'same' padding and other weights and bias: (N, C, H, W) -> (N, C', H', W').

    H' is ceil(H / stride). Kernels are square, with odd sides. On a CPU with oneDNN it is one operation. Compilers,
    which join operations themselves, and other devices see several.
    """
    if x.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
        # Autocast does not know this operation, so cast here as it does for nn.Conv2d.
        dtype = torch.get_autocast_dtype("cpu")
        x, weight, bias = x.to(dtype), weight.to(dtype), bias.to(dtype)
    if not _is_one_operation(x):
        return relu6(convolution._conv_forward(pad_same(x, convolution), weight, bias))
    stride, kernel = convolution.stride[0], convolution.kernel_size[0]
    top, bottom = same_padding(x.shape[2], kernel, stride)
    left, right = same_padding(x.shape[3], kernel, stride)
    if (top, left) != (bottom, right) and not is_depthwise(convolution):
        x = F.pad(x, (left, right, top, bottom))
        top = bottom = left = right = 0
    geometry = _Geometry(stride, top, bottom, left, right, convolution.groups)
    if not torch.is_grad_enabled() or not (x.requires_grad or weight.requires_grad or bias.requires_grad):
        return _forward(x, weight, bias, geometry)
    one: Tensor = _ClippedConvolution.apply(x, weight, bias, geometry)
    return one


def relu6(x: Tensor, *, inplace: bool = False) -> Tensor:
    """ReLU6. A tensor on the meta device has no values to clip, and PyTorch would import its compiler to find that."""
    return x if x.is_meta else F.relu6(x, inplace=inplace)


def pad_same(x: Tensor, convolution: nn.Conv2d) -> Tensor:
    """Pad `x` (N, C, H, W) as TensorFlow's 'same' padding, before a convolution that pads itself only with stride 1.

    The convolution's output then has ceil(H / stride) rows. If the padding is odd, the bottom and right sides get one
    pixel more. With stride 1, `x` is returned unchanged, because the convolution pads symmetrically itself.
    """
    stride, kernel = convolution.stride[0], convolution.kernel_size[0]
    if stride == 1:
        return x
    top, bottom = same_padding(x.shape[2], kernel, stride)
    left, right = same_padding(x.shape[3], kernel, stride)
    return F.pad(x, (left, right, top, bottom))


def same_padding(length: int, kernel: int, stride: int) -> tuple[int, int]:
    """The cells before and after a side of this length."""
    # (ceil(length / stride) - 1) * stride + kernel - length, if kernel >= stride. It is written
    # with one remainder, because nested ceilings make torch.compile with dynamic sizes take minutes instead of seconds.
    total = kernel - stride + -length % stride
    return total // 2, total - total // 2


def _is_one_operation(x: Tensor) -> bool:
    return (
        x.device.type == "cpu"
        and not torch.compiler.is_compiling()
        and torch.backends.mkldnn.is_available()
        and (x.dtype == torch.float32 or (x.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()))
        and x.numel() > 0
    )


def _forward(x: Tensor, weight: Tensor, bias: Tensor, geometry: _Geometry) -> Tensor:
    weight = _widened(weight, geometry)
    padding, stride = (geometry.bottom, geometry.right), (geometry.stride, geometry.stride)
    y: Tensor = torch.ops.mkldnn._convolution_pointwise(
        x, weight, bias, padding, stride, (1, 1), geometry.groups, "hardtanh", [0.0, 6.0], ""
    )
    return y


def _widened(weight: Tensor, geometry: _Geometry) -> Tensor:
    """The kernel that needs as much padding before the map as behind it: `bottom` rows and `right` columns."""
    rows, columns = geometry.bottom - geometry.top, geometry.right - geometry.left
    return F.pad(weight, (columns, 0, rows, 0)) if rows or columns else weight


class _ClippedConvolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor, geometry: _Geometry) -> Tensor:
        y = _forward(x, weight, bias, geometry)
        ctx.save_for_backward(x, weight, y)
        ctx.geometry = geometry  # type: ignore[attr-defined]
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, y = ctx.saved_tensors  # type: ignore[attr-defined]
        geometry: _Geometry = ctx.geometry  # type: ignore[attr-defined]
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad[:3]  # type: ignore[attr-defined]
        grad = torch.ops.aten.hardtanh_backward(grad, y, 0.0, 6.0)
        grad_x = _input_gradient(grad, x, weight, geometry) if needs_x else None
        grad_weight = _weight_gradient(grad, x, weight, geometry) if needs_weight else None
        grad_bias = grad.sum((0, 2, 3)) if needs_bias else None
        return grad_x, grad_weight, grad_bias, None


def _input_gradient(grad: Tensor, x: Tensor, weight: Tensor, geometry: _Geometry) -> Tensor:
    """The gradient of `x` (N, C, H, W) from `grad`, the gradient of the output."""
    if geometry.groups == 1 or geometry.stride == 1 or x.dtype != torch.bfloat16:
        stride, padding = (geometry.stride, geometry.stride), (geometry.bottom, geometry.right)
        wide = _widened(weight, geometry)
        return convolution_gradient(grad, x, wide, stride, padding, (1, 1), geometry.groups, of="input")
    # grad[m] lies at the row of x that the centre of the kernel saw.
    half = weight.shape[2] // 2
    apart = torch.empty_like(x).zero_()
    apart[:, :, half - geometry.top :: geometry.stride, half - geometry.left :: geometry.stride] = grad
    return F.conv2d(apart, weight.flip(2, 3), None, 1, half, 1, geometry.groups)


def _weight_gradient(grad: Tensor, x: Tensor, weight: Tensor, geometry: _Geometry) -> Tensor:
    stride, padding = (geometry.stride, geometry.stride), (geometry.top, geometry.left)
    if geometry.groups == 1:
        return convolution_gradient(grad, x, weight, stride, padding, (1, 1), geometry.groups, of="weight")
    if padding != (geometry.bottom, geometry.right):
        x, padding = F.pad(x, (geometry.left, geometry.right, geometry.top, geometry.bottom)), (0, 0)
    return weight_gradient(grad, x, weight, stride, padding, (1, 1))
