"""The result of a layer's builder, and helpers to check its settings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import nn

from detpipe.backbone.caffe.caffe_net_pb2 import FillerParameter, LayerParameter

MAX_SIZE = 2**31 - 1
"""The largest size or count in a setting: Caffe's int."""

MAX_ACTIVATIONS = 2**29
"""Largest number of elements of all blobs for one image: 2 GiB in float32, 30 times VGG-19 at 224 pixels. A net keeps
its blobs, so a small prototxt could otherwise use any amount of memory."""

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Built:
    """module: maps the bottoms to the top, or to a tuple of tops. Its parameters, then its buffers, are Caffe's blobs.

    fillers: one for each blob, in the same order.
    """

    module: nn.Module
    fillers: list[FillerParameter] = field(default_factory=list)


def constant(value: float = 0.0) -> FillerParameter:
    """A constant filler."""
    return FillerParameter(type="constant", value=value)


def axis_of(axis: int, ndim: int, what: str = "axis") -> int:
    """The axis counted from 0, if it may be given from the end (-1). Raises ValueError if it does not exist."""
    if not -ndim <= axis < ndim:
        raise ValueError(f"expected {what} in [-{ndim}, {ndim}), got {axis}")
    return axis % ndim


def want_bottoms(bottoms: Sequence[Shape], lowest: int, highest: int | None = None) -> None:
    """Raise ValueError unless there are `lowest` to `highest` bottoms; highest None: exactly `lowest`."""
    top = lowest if highest is None else highest
    if not lowest <= len(bottoms) <= top:
        wanted = f"{lowest}" if top == lowest else f"{lowest} to {top}"
        raise ValueError(f"expected {wanted} bottoms, got {len(bottoms)}")


def want_tops(layer: LayerParameter, highest: int = 1) -> None:
    """Raise ValueError unless there are 1 to `highest` tops. Optional second tops of Caffe may be unsupported here."""
    if not 1 <= len(layer.top) <= highest:
        wanted = "1 top" if highest == 1 else f"1 to {highest} tops"
        raise ValueError(f"expected {wanted}, got {len(layer.top)}")


def positive(value: int, name: str) -> int:
    """The value. Raises ValueError unless it is from 1 to MAX_SIZE."""
    if not 1 <= value <= MAX_SIZE:
        raise ValueError(f"expected {name} of 1 or more, got {value}")
    return value


def count(shape: Sequence[int]) -> int:
    """The number of elements of a shape."""
    return math.prod(shape)


def check_activations(total: int, images: int, what: str) -> None:
    """Raise ValueError if blobs, or a layer's own copy of one, have too many elements for each of the images."""
    if total > MAX_ACTIVATIONS * max(1, images):
        raise ValueError(
            f"expected {what} of at most {MAX_ACTIVATIONS} elements for one image, got {total // max(1, images)}; give "
            "a smaller input size"
        )
