"""The settings of crops: how regions are cut out and stored."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

REFERENCE_SIDE = 227
"""Side of R-CNN's crop. context_pad is given in its pixels."""


class CropMode(enum.Enum):
    """R-CNN's crop_mode. warp: stretch the box to a square. square: crop the tightest square around the box."""

    warp = "warp"
    square = "square"


class Encoding(enum.Enum):
    """Image format of stored crops: jpeg is about ten times smaller; raw is lossless and needs no decoding."""

    jpeg = "jpeg"
    raw = "raw"


MAX_SIZE = 2048
"""Limit on the side of a crop: a batch of larger ones would fill the memory."""


@dataclass(kw_only=True)
class CropConfig:
    """How regions are cropped from their image, and stored."""

    size: int = 128
    """Side of a crop in pixels. It is also the network's input size."""
    mode: CropMode = CropMode.warp
    """warp stretches the box to a square; square crops the tightest square around it."""
    context_pad: int = 16
    """Context around the box, in pixels of a crop of 227 x 227 (as in R-CNN). It is scaled with crops.size."""
    fill: list[int] = field(default_factory=lambda: [127, 127, 127])
    """RGB colour of the part of a crop outside the image. The default is close to the ImageNet mean."""
    encoding: Encoding = Encoding.jpeg
    """Image format of stored crops: jpeg or raw (lossless)."""
    jpeg_quality: int = 95
    """OpenCV's JPEG quality, 1 to 100."""

    def __post_init__(self) -> None:
        if not 8 <= self.size <= MAX_SIZE:
            raise ValueError(f"crops.size: expected 8 to {MAX_SIZE} pixels, got {self.size}")
        if not 0 <= self.context_pad < REFERENCE_SIDE // 2:
            raise ValueError(f"crops.context_pad: expected 0 to {REFERENCE_SIDE // 2 - 1}, got {self.context_pad}")
        if len(self.fill) != 3 or not all(0 <= value <= 255 for value in self.fill):
            raise ValueError(f"crops.fill: expected three values of 0 to 255, got {list(self.fill)}")
        if not 1 <= self.jpeg_quality <= 100:
            raise ValueError(f"crops.jpeg_quality: expected 1 to 100, got {self.jpeg_quality}")
