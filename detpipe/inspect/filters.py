"""Filters of convolutions as images, and finding the filters of the first layer."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

FLAT = 0.5
"""Brightness of a filter whose values are all equal."""


def is_filter_bank(tensor: Tensor) -> bool:
    """Whether the tensor is (filters, channels, height, width), larger than 1 x 1, and not empty."""
    return tensor.ndim == 4 and tensor.shape[2] * tensor.shape[3] > 1 and tensor.numel() > 0


def first_filters(tensors: Mapping[str, Tensor]) -> str | None:
    """The name of the first layer's filters, or None: the first filters with three channels, else with one.

    Three channels are tried first, because depthwise kernels, which have one channel, may come earlier in a file.
    """
    banks = {name: tensor for name, tensor in tensors.items() if is_filter_bank(tensor)}
    for channels in (3, 1):
        for name, tensor in banks.items():
            if tensor.shape[1] == channels:
                return name
    return None


def filter_pictures(filters: Tensor, most: int, *, bgr: bool) -> list[npt.NDArray[np.uint8]]:
    """Filters (F, C, h, w) as RGB images (h, w, 3) uint8, each scaled to 0..255 by its own minimum and maximum.

    A filter with three channels gives one colour image; bgr: its first channel is blue. Otherwise each channel gives
    a grey image, filter by filter. most: limit of the number of images. NaN and infinity are black; a filter with
    equal values is grey. Raises ValueError for a tensor of another shape.
    """
    if not is_filter_bank(filters):
        raise ValueError(f"expected filters (F, C, h, w) larger than 1 x 1, got {tuple(filters.shape)}")
    if filters.shape[1] == 3:
        shown = filters[:most].detach().float()
        planes = shown.flip(1) if bgr else shown
    else:
        # Slice before reshape, which may copy.
        rows = filters[: -(-most // filters.shape[1])].detach().float()
        planes = rows.reshape(-1, 1, *rows.shape[2:])[:most].expand(-1, 3, -1, -1)
    return [scaled(plane).permute(1, 2, 0).mul(255).round().byte().numpy() for plane in planes.cpu()]


def scaled(numbers: Tensor) -> Tensor:
    """Scale values to 0..1 by their finite minimum and maximum. NaN and infinity become 0; equal values become FLAT."""
    finite = numbers[numbers.isfinite()]
    if not len(finite):
        return torch.zeros_like(numbers)
    low, high = finite.min(), finite.max()
    if low == high:
        return torch.where(numbers.isfinite(), FLAT, 0.0)
    # Halved, so that the difference of two large numbers does not overflow.
    result = (numbers / 2 - low / 2) / (high / 2 - low / 2)
    return result.nan_to_num(0.0, 0.0, 0.0).clamp(0, 1)
