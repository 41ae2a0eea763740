"""Spreading the values of an image over 0..255, for images that use few of their bits."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from detpipe.storage.encoded_image import Levels
from detpipe.structures import Stretch

_LOW, _HIGH = 0.5, 99.5
"""Percentiles that become 0 and 255."""


def stretched(pixels: Levels, stretch: Stretch) -> npt.NDArray[np.uint8]:
    """Convert the values of an image, (H, W, 3) or (H, W), to uint8. All channels are scaled alike.

    none keeps the upper 8 of 16 bits. bits divides by the lowest power of two above the largest value. percentile maps
    the range from the 0.5th to the 99.5th percentile to 0..255; an image of a single value becomes 0.
    An image without pixels stays empty.
    """
    if stretch is Stretch.none or not pixels.size:
        return pixels if pixels.dtype == np.uint8 else (pixels >> 8).astype(np.uint8)
    if stretch is Stretch.bits:
        bits = max(int(pixels.max()).bit_length(), 1)
        return np.asarray(pixels >> (bits - 8) if bits > 8 else pixels << (8 - bits), dtype=np.uint8)
    low, high = np.percentile(pixels, (_LOW, _HIGH))
    if low == high:  # most values are equal: the percentiles say nothing
        low, high = pixels.min(), max(pixels.max(), pixels.min() + 1)
    scaled = (pixels.astype(np.float32) - np.float32(low)) * np.float32(255 / (high - low)) + np.float32(0.5)
    return np.asarray(scaled.clip(0, 255), dtype=np.uint8)
