"""What a layer's builder gives, and how it reads its settings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import nn

from detpipe.backbone.caffe.caffe_net_pb2 import FillerParameter, LayerParameter

MAX_SIZE = 2**31 - 1
"""The largest setting that is a size or a number of things: Caffe's int."""

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Built:
    """module: from the bottoms to the top, or to a tuple of tops. Its own parameters, then buffers, are Caffe's blobs.

    fillers: one for each blob, in the order of the blobs.
    """

    module: nn.Module
    fillers: list[FillerParameter] = field(default_factory=list)


def constant(value: float = 0.0) -> FillerParameter:
    """The filler of that number."""
    return FillerParameter(type="constant", value=value)


def axis_of(axis: int, ndim: int, what: str = "axis") -> int:
    """An axis from 0, where it may be counted from the end (-1). Raises ValueError where there is none."""
    if not -ndim <= axis < ndim:
        raise ValueError(f"expected {what} in [-{ndim}, {ndim}), got {axis}")
    return axis % ndim


def want_bottoms(bottoms: Sequence[Shape], lowest: int, highest: int | None = None) -> None:
    """Raise ValueError unless there are lowest to highest bottoms; highest None: exactly `lowest`."""
    top = lowest if highest is None else highest
    if not lowest <= len(bottoms) <= top:
        wanted = f"{lowest}" if top == lowest else f"{lowest} to {top}"
        raise ValueError(f"expected {wanted} bottoms, got {len(bottoms)}")


def want_tops(layer: LayerParameter, highest: int = 1) -> None:
    """Raise ValueError for more tops than that; a second top that Caffe has and we don't is among them."""
    if not 1 <= len(layer.top) <= highest:
        wanted = "1 top" if highest == 1 else f"1 to {highest} tops"
        raise ValueError(f"expected {wanted}, got {len(layer.top)}")


def positive(value: int, name: str) -> int:
    """The value. Raises ValueError unless it is 1 or more and an int of Caffe's."""
    if not 1 <= value <= MAX_SIZE:
        raise ValueError(f"expected {name} of 1 or more, got {value}")
    return value


def count(shape: Sequence[int]) -> int:
    """How many numbers a blob of that shape has."""
    return math.prod(shape)
