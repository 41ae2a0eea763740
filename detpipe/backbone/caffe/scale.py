"""Caffe's Scale and Bias: multiply by, or add, a smaller blob, which is a parameter or the second bottom."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from detpipe.backbone.caffe.built import Built, Shape, axis_of, constant, want_bottoms, want_tops
from detpipe.backbone.caffe.caffe_net_pb2 import LayerParameter


class Scale(nn.Module):
    """x * weight + bias, broadcast along x's axes from `axis` on. Either may be None.

    With a second bottom, that bottom is the weight.
    """

    def __init__(self, axis: int, weight: Shape | None, bias: Shape | None) -> None:
        super().__init__()
        self.axis = axis
        self.weight = nn.Parameter(torch.empty(weight)) if weight is not None else None
        self.bias = nn.Parameter(torch.empty(bias)) if bias is not None else None

    def forward(self, x: torch.Tensor, factor: torch.Tensor | None = None) -> torch.Tensor:
        weight = self.weight if factor is None else factor
        if weight is not None:
            x = x * _aligned(weight, self.axis, x.ndim)
        return x if self.bias is None else x + _aligned(self.bias, self.axis, x.ndim)

    def extra_repr(self) -> str:
        return f"axis={self.axis}, bias={self.bias is not None}"


class AddBottom(nn.Module):
    """x + y, where y is broadcast along x's axes from `axis` on: Bias with two bottoms."""

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x + _aligned(y, self.axis, x.ndim)


def build_scale(layer: LayerParameter, bottoms: Sequence[Shape]) -> Built:
    """Build a Scale: a learned factor, initially 1 unless a filler is given, and optionally a learned bias."""
    want_bottoms(bottoms, 1, 2)
    want_tops(layer)
    settings = layer.scale_param
    axis = _axis(bottoms, settings.axis)
    shape = _covered(bottoms, axis, settings.num_axes)
    bias = shape if settings.bias_term else None
    if len(bottoms) == 2:
        return Built(Scale(axis, None, bias), [settings.bias_filler] if bias is not None else [])
    filler = settings.filler if settings.HasField("filler") else constant(1.0)
    return Built(Scale(axis, shape, bias), [filler, settings.bias_filler][: 1 + settings.bias_term])


def build_bias(layer: LayerParameter, bottoms: Sequence[Shape]) -> Built:
    """Build a Bias: a learned one, or the second bottom."""
    want_bottoms(bottoms, 1, 2)
    want_tops(layer)
    settings = layer.bias_param
    axis = _axis(bottoms, settings.axis)
    shape = _covered(bottoms, axis, settings.num_axes)
    if len(bottoms) == 2:
        return Built(AddBottom(axis))
    return Built(Scale(axis, None, shape), [settings.filler])


def _axis(bottoms: Sequence[Shape], axis: int) -> int:
    """The first axis of the smaller blob; 0 for a scalar second bottom, which has no axes."""
    return 0 if len(bottoms) == 2 and not bottoms[1] else axis_of(axis, len(bottoms[0]) or 1)


def _covered(bottoms: Sequence[Shape], axis: int, num_axes: int) -> Shape:
    """The shape of the smaller blob: `num_axes` axes of the first bottom from `axis` on; -1: all, 0: a scalar."""
    first = bottoms[0]
    if len(bottoms) == 2:
        num_axes = len(bottoms[1])
    end = len(first) if num_axes == -1 else axis + num_axes
    if num_axes < -1 or end > len(first):
        raise ValueError(f"expected axes {axis} to {end}, got the shape {first} with fewer axes")
    if len(bottoms) == 2 and bottoms[1] != first[axis:end]:
        raise ValueError(f"expected a second bottom of shape {first[axis:end]}, got {bottoms[1]}")
    return first[axis:end]


def _aligned(y: torch.Tensor, axis: int, ndim: int) -> torch.Tensor:
    """y with axes of size 1 appended, so that it is broadcast along the axes from `axis` on."""
    return y.reshape(*y.shape, *[1] * (ndim - axis - y.ndim)) if y.ndim else y
