"""The input of a network: size, channel order, mean and scale.

N: number of images. H, W: height and width in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import torch

from detpipe.resize import Interpolation


class ChannelOrder(StrEnum):
    """The channel order that a network was trained with (BGR for Caffe models)."""

    RGB = "RGB"
    BGR = "BGR"


Triple = tuple[float, float, float]


@dataclass(frozen=True)
class InputSpec:
    """The input of a network.

    size: (height, width) in pixels. mean, std: in units of 0..255, in the network's channel order. interpolation: how
    images are enlarged.
    """

    size: tuple[int, int]
    mean: Triple
    std: Triple
    channel_order: ChannelOrder = ChannelOrder.RGB
    interpolation: Interpolation = Interpolation.bilinear

    def __post_init__(self) -> None:
        if len(self.size) != 2 or min(self.size) < 1:
            raise ValueError(f"InputSpec.size: expected (height, width) of at least 1 pixel, got {self.size}")
        if len(self.mean) != 3 or len(self.std) != 3:
            raise ValueError(f"InputSpec: expected 3 means and 3 stds, got {self.mean} and {self.std}")
        if min(self.std) <= 0:
            raise ValueError(f"InputSpec.std: expected numbers above 0, got {self.std}")

    def to_input(self, images: torch.Tensor) -> torch.Tensor:
        """The normalised input of the network: (value - mean) / std in its channel order.

        images: (N, H, W, 3) uint8 RGB, of any size. Returns (N, 3, H, W) float32 on the same device, in channels_last
        memory format. N = 0 gives (0, 3, H, W). Raises ValueError for another shape or dtype.
        """
        if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != torch.uint8:
            raise ValueError(f"to_input: expected (N, H, W, 3) uint8 RGB, got {tuple(images.shape)} {images.dtype}")
        if self.channel_order is ChannelOrder.BGR:
            images = images.flip(-1)
        # Mean and std of a whole row, because broadcasting over three numbers is many times slower.
        width = images.shape[2]
        mean = torch.tensor(self.mean, dtype=torch.float32, device=images.device).repeat(width)
        std = torch.tensor(self.std, dtype=torch.float32, device=images.device).repeat(width)
        rows = images.reshape(*images.shape[:2], 3 * width).to(torch.float32)
        return rows.sub_(mean).div_(std).reshape(images.shape).permute(0, 3, 1, 2)
