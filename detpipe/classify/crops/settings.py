"""The settings of crops: how regions are cut out and stored."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

REFERENCE_SIDE = 227
"""R-CNN's crop, in whose pixels context_pad is given."""


class CropMode(enum.Enum):
    """R-CNN's crop_mode: warp stretches the box to a square; square cuts the tightest square around it."""

    warp = "warp"
    square = "square"


class Encoding(enum.Enum):
    """How a crop is stored: jpeg is ten times smaller, raw is exact and needs no decoding."""

    jpeg = "jpeg"
    raw = "raw"


@dataclass(kw_only=True)
class CropConfig:
    """How regions are cut out and stored."""

    size: int = 128
    """Side of a crop in pixels, which is also the network's input."""
    mode: CropMode = CropMode.warp
    """How a box becomes a square."""
    context_pad: int = 16
    """Context around the box, in pixels of a crop of 227 (R-CNN's unit), whatever `size` is."""
    fill: list[int] = field(default_factory=lambda: [127, 127, 127])
    """RGB outside of the image: the network's mean, which is 0 after normalisation."""
    encoding: Encoding = Encoding.jpeg
    """How crops are stored."""
    jpeg_quality: int = 95
    """OpenCV's JPEG quality, 1 to 100."""

    def __post_init__(self) -> None:
        if self.size < 8:
            raise ValueError(f"crops.size: expected at least 8 pixels, got {self.size}")
        if not 0 <= self.context_pad < REFERENCE_SIDE // 2:
            raise ValueError(f"crops.context_pad: expected 0 to {REFERENCE_SIDE // 2 - 1}, got {self.context_pad}")
        if len(self.fill) != 3 or not all(0 <= value <= 255 for value in self.fill):
            raise ValueError(f"crops.fill: expected three values of 0 to 255, got {list(self.fill)}")
        if not 1 <= self.jpeg_quality <= 100:
            raise ValueError(f"crops.jpeg_quality: expected 1 to 100, got {self.jpeg_quality}")
