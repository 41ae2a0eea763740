"""The settings of views: crop and augmentation of stored images."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(kw_only=True)
class ViewConfig:
    """Crop and augmentation of stored images."""

    share: float | None = None
    """null: crop a square of the network's input size from the stored pixels, as Caffe's crop_size. A number in (0, 1]:
    crop a square with this share of the shorter side, and resize it to the input size, for images of any size."""
    random_crop: bool = True
    """Training: crop at a random position. false: crop the centre, as testing always does."""
    random_area: float | None = None
    """Training: crop a random rectangle with at least this share of the area and an aspect ratio of 3:4 to 4:3, and
    resize it to the input size (0.08 in GoogLeNet). Needs view.share for testing."""
    colour: float = 0.0
    """Training: multiply brightness, contrast and saturation each by a random factor in [1 - colour, 1 + colour]."""
    mixup: float = 0.0
    """Training: mix each image and label with another one, with a weight drawn from Beta(mixup, mixup). 0: no mixup."""

    def __post_init__(self) -> None:
        for name in ("share", "random_area"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= 1:
                raise ValueError(f"view.{name}: expected a share above 0 up to 1, or null, got {value}")
        if self.random_area is not None and self.share is None:
            raise ValueError(
                "view.random_area: expected a view.share for the tests beside it, got none; give view.share=0.875, say"
            )
        if not 0 <= self.colour < 1:
            raise ValueError(f"view.colour: expected a number from 0 and below 1, got {self.colour}")
        if not 0 <= self.mixup < math.inf:
            raise ValueError(f"view.mixup: expected a number of at least 0, got {self.mixup}")
