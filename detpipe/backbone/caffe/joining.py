"""Caffe's layers that join blobs (Eltwise, Concat) or split them (Slice, Split, Silence)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from itertools import pairwise

import torch
from torch import nn

from detpipe.backbone.caffe.built import Built, Shape, axis_of, want_bottoms, want_tops
from detpipe.backbone.caffe.caffe_net_pb2 import EltwiseParameter, LayerParameter

MANY = 10_000


class Eltwise(nn.Module):
    """The element-wise PROD, SUM (each bottom times its coefficient) or MAX of blobs of the same shape."""

    def __init__(self, operation: str, coefficients: Sequence[float]) -> None:
        super().__init__()
        self.operation, self.coefficients = operation, tuple(coefficients)

    def forward(self, *bottoms: torch.Tensor) -> torch.Tensor:
        if self.operation == "PROD":
            return reduce(torch.mul, bottoms)
        if self.operation == "MAX":
            return reduce(torch.maximum, bottoms)
        if all(c == 1 for c in self.coefficients):
            return reduce(torch.add, bottoms)
        return reduce(torch.add, (c * x for c, x in zip(self.coefficients, bottoms, strict=True)))

    def extra_repr(self) -> str:
        return f"{self.operation}, coefficients={self.coefficients}"


class Concat(nn.Module):
    """Concatenates blobs along an axis."""

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, *bottoms: torch.Tensor) -> torch.Tensor:
        return torch.cat(bottoms, self.axis)

    def extra_repr(self) -> str:
        return f"axis={self.axis}"


class Slice(nn.Module):
    """Splits a blob along an axis into parts of the given sizes."""

    def __init__(self, axis: int, sizes: Sequence[int]) -> None:
        super().__init__()
        self.axis, self.sizes = axis, tuple(sizes)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(x.split(list(self.sizes), self.axis))

    def extra_repr(self) -> str:
        return f"axis={self.axis}, sizes={self.sizes}"


class Split(nn.Module):
    """Returns the same blob for each top; no tops for Silence."""

    def __init__(self, tops: int) -> None:
        super().__init__()
        self.tops = tops

    def forward(self, *bottoms: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return bottoms[:1] * self.tops


def build_eltwise(layer: LayerParameter, bottoms: Sequence[Shape]) -> Built:
    """Build an Eltwise of two or more blobs of the same shape."""
    want_bottoms(bottoms, 2, MANY)
    want_tops(layer)
    settings = layer.eltwise_param
    operation = EltwiseParameter.EltwiseOp.Name(settings.operation)
    if any(shape != bottoms[0] for shape in bottoms):
        raise ValueError(f"expected bottoms of the same shape, got {sorted(set(bottoms))}")
    if settings.coeff and (operation != "SUM" or len(settings.coeff) != len(bottoms)):
        raise ValueError(f"expected a coeff for each of {len(bottoms)} bottoms of a SUM, got {len(settings.coeff)}")
    return Built(Eltwise(operation, settings.coeff or [1.0] * len(bottoms)))


def build_concat(layer: LayerParameter, bottoms: Sequence[Shape]) -> Built:
    """Build a Concat of blobs that differ only along the axis."""
    want_bottoms(bottoms, 1, MANY)
    want_tops(layer)
    settings = layer.concat_param
    axis = axis_of(settings.concat_dim if settings.HasField("concat_dim") else settings.axis, len(bottoms[0]))
    if len({(*shape[:axis], *shape[axis + 1 :]) for shape in bottoms}) > 1:
        raise ValueError(f"expected bottoms that differ only along axis {axis}, got {list(bottoms)[:4]}")
    return Built(Concat(axis))


def build_slice(layer: LayerParameter, bottoms: Sequence[Shape]) -> Built:
    """Build a Slice at each slice_point, or into equal parts."""
    want_bottoms(bottoms, 1)
    want_tops(layer, MANY)
    settings = layer.slice_param
    axis = axis_of(settings.slice_dim if settings.HasField("slice_dim") else settings.axis, len(bottoms[0]))
    size, tops = bottoms[0][axis], len(layer.top)
    if settings.slice_point:
        points = [0, *settings.slice_point, size]
        sizes = [b - a for a, b in pairwise(points)]
        if len(sizes) != tops or min(sizes) < 1:
            raise ValueError(
                f"expected {tops - 1} ascending slice_point below {size} for {tops} tops, got {points[1:-1][:9]}"
            )
    else:
        if size % tops:
            raise ValueError(f"expected a size that is a multiple of {tops} tops, got {size}")
        sizes = [size // tops] * tops
    return Built(Slice(axis, sizes))


def build_split(layer: LayerParameter, bottoms: Sequence[Shape]) -> Built:
    """Build a Split (which Caffe inserts itself, and some files contain) or a Silence, which has no tops."""
    if layer.type == "Silence":
        want_bottoms(bottoms, 1, MANY)
        return Built(Split(0))
    want_bottoms(bottoms, 1)
    want_tops(layer, MANY)
    return Built(Split(len(layer.top)))
