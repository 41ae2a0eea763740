"""The settings of views: crop and augmentation of stored images."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(kw_only=True)
class ViewConfig:
    """How a stored image becomes the network's input."""

    share: float | None = None
    """null cuts the input's size out of the stored pixels, as Caffe's crop_size; a number from 0 to 1 cuts this share
    of the shorter side and brings it to the input's size: for images that were stored at their own size."""
    random_crop: bool = True
    """In training, cut at a random place; false cuts the middle, as tests always do."""
    random_area: float | None = None
    """In training, cut a random rectangle of at least this share of the area, of a shape from 3:4 to 4:3, and bring it
    to the input's size (GoogLeNet's: 0.08). Tests then want a share."""
    colour: float = 0.0
    """In training, brightness, contrast and saturation each times a factor drawn from 1 - colour to 1 + colour."""
    mixup: float = 0.0
    """In training, mix each image and label with another's by a weight drawn from Beta(mixup, mixup); 0 mixes none."""

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
