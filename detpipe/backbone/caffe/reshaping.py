"""Caffe's Flatten and Reshape."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from detpipe.backbone.caffe.built import Built, Shape, axis_of, count, want_bottoms, want_tops
from detpipe.backbone.caffe.caffe_net_pb2 import LayerParameter


class Flatten(nn.Module):
    """Flattens the axes from `first` to `last`, both included, into one."""

    def __init__(self, first: int, last: int) -> None:
        super().__init__()
        self.first, self.last = first, last

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(self.first, self.last)

    def extra_repr(self) -> str:
        return f"{self.first}, {self.last}"


class Reshape(nn.Module):
    """Reshapes the axes from `first` up to, not including, `end` to `sizes`: 0 keeps the size, -1 is inferred."""

    def __init__(self, first: int, end: int, sizes: Sequence[int]) -> None:
        super().__init__()
        self.first, self.end, self.sizes = first, end, tuple(sizes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(self.output_shape(tuple(x.shape)))

    def output_shape(self, shape: Shape) -> Shape:
        """The output shape for an input shape. Raises ValueError if the numbers of elements differ."""
        sizes = [shape[self.first + i] if size == 0 else size for i, size in enumerate(self.sizes)]
        around = (*shape[: self.first], *shape[self.end :])
        if -1 in sizes:
            known = count(around) * count([size for size in sizes if size != -1])
            # For N = 0 the size can't be found by division, so it is inferred from the reshaped axes only.
            if known == 0:
                inside = count([s for s in shape[self.first : self.end] if s])
                left = inside // max(1, count([s for s in sizes if s > 0]))
            else:
                left = count(shape) // known
            sizes[sizes.index(-1)] = left
        new = (*shape[: self.first], *sizes, *shape[self.end :])
        if count(new) != count(shape):
            raise ValueError(f"expected sizes with as many elements as {shape}, got {self.sizes}")
        return new

    def extra_repr(self) -> str:
        return f"axes {self.first} to {self.end}: {self.sizes}"


def build_flatten(layer: LayerParameter, bottoms: Sequence[Shape]) -> Built:
    """Build a Flatten of the axes from `axis` to `end_axis`."""
    want_bottoms(bottoms, 1)
    want_tops(layer)
    ndim = len(bottoms[0])
    first = axis_of(layer.flatten_param.axis, ndim)
    last = axis_of(layer.flatten_param.end_axis, ndim, "end_axis")
    if first > last:
        raise ValueError(f"expected axis before end_axis, got {first} and {last}")
    return Built(Flatten(first, last))


def build_reshape(layer: LayerParameter, bottoms: Sequence[Shape]) -> Built:
    """Build a Reshape of num_axes axes from `axis` on (-1: all). A negative axis counts from the end; -1 is the end."""
    want_bottoms(bottoms, 1)
    want_tops(layer)
    settings, ndim = layer.reshape_param, len(bottoms[0])
    first = settings.axis if settings.axis >= 0 else ndim + settings.axis + 1
    end = ndim if settings.num_axes == -1 else first + settings.num_axes
    if not 0 <= first <= end <= ndim:
        raise ValueError(f"expected axis and num_axes within {bottoms[0]}, got {settings.axis} and {settings.num_axes}")
    sizes = list(settings.shape.dim)
    kept = [i for i, size in enumerate(sizes) if size == 0]
    if any(size < -1 for size in sizes) or sizes.count(-1) > 1 or any(first + i >= ndim for i in kept):
        raise ValueError(f"expected sizes >= 0, at most one -1, and 0 only for an existing axis, got {sizes[:9]}")
    return Built(Reshape(first, end, sizes))
