"""The filters of a convolution: which tensor holds those of the first layer, and each as a picture."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

FLAT = 0.5
"""The brightness of a filter whose numbers are all the same."""


def is_filter_bank(tensor: Tensor) -> bool:
    """Whether it is (filters, channels, height, width) with some extent in the plane, and not empty."""
    return tensor.ndim == 4 and tensor.shape[2] * tensor.shape[3] > 1 and tensor.numel() > 0


def first_filters(tensors: Mapping[str, Tensor]) -> str | None:
    """The name of the filters that see the image, or None: the first bank of three channels, else of one.

    Colour goes first: the kernels of depthwise convolutions, of one channel, may come earlier in a file.
    """
    banks = {name: tensor for name, tensor in tensors.items() if is_filter_bank(tensor)}
    for channels in (3, 1):
        for name, tensor in banks.items():
            if tensor.shape[1] == channels:
                return name
    return None


def filter_pictures(filters: Tensor, most: int, *, bgr: bool) -> list[npt.NDArray[np.uint8]]:
    """Filters (F, C, h, w) as pictures (h, w, 3) RGB, each brought to 0..255 by its own lowest and highest number.

    Three channels are one picture in colour, blue first with bgr; of other filters each channel is a grey picture of
    its own, filter by filter. most: of the pictures; the first ones. What is no finite number is drawn black; a filter
    of equal numbers grey. Raises ValueError for a tensor of other axes.
    """
    if not is_filter_bank(filters):
        raise ValueError(f"expected filters of (F, C, h, w) with more than one place, got {tuple(filters.shape)}")
    if filters.shape[1] == 3:
        shown = filters[:most].detach().float()
        planes = shown.flip(1) if bgr else shown
    else:
        # Cut before it is reshaped: the first rows alone may have to be copied.
        rows = filters[: -(-most // filters.shape[1])].detach().float()
        planes = rows.reshape(-1, 1, *rows.shape[2:])[:most].expand(-1, 3, -1, -1)
    return [scaled(plane).permute(1, 2, 0).mul(255).round().byte().numpy() for plane in planes.cpu()]


def scaled(numbers: Tensor) -> Tensor:
    """The numbers brought to 0..1 by their lowest and highest finite one; see `filter_pictures` for the others."""
    finite = numbers[numbers.isfinite()]
    if not len(finite):
        return torch.zeros_like(numbers)
    low, high = finite.min(), finite.max()
    if low == high:
        return torch.where(numbers.isfinite(), FLAT, 0.0)
    # Halved, so that the difference of two large numbers stays finite.
    result = (numbers / 2 - low / 2) / (high / 2 - low / 2)
    return result.nan_to_num(0.0, 0.0, 0.0).clamp(0, 1)
