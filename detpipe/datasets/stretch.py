"""Spreading the values of an image over 0..255, for images that use few of their bits."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from detpipe.storage.encoded_image import Levels
from detpipe.structures import Image, Stretch

_LOW, _HIGH = 0.5, 99.5
"""Percentiles that become 0 and 255."""
_FEW_BITS, _DARK = 64, 32
"""An image uses few of its bits below the first value, and is dark if 99 % of its values are below the second."""


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


def darkness(pixels: Image) -> str | None:
    """What is remarkable about the values of an image (H, W, 3), H, W > 0, and what to do; None for a usual image.

    Found are images that use at most 6 of 8 bits, such as 12-bit data in a 16-bit file, and nearly black ones.
    """
    # A sixteenth of the pixels is enough to see that an image is usual, and counting is faster than a percentile.
    some = np.ascontiguousarray(pixels[::4, ::4])
    if np.count_nonzero(some >= _FEW_BITS) > 0.01 * some.size:
        return None
    largest = int(pixels.max())
    if not largest:
        return "all pixels are black; export the image again, or remove it"
    if largest < _FEW_BITS:
        return (
            f"the largest value is {largest} of 255, as of data that use few of their bits; dataset.stretch=bits or "
            "dataset.stretch=percentile spreads them"
        )
    bright = int(np.percentile(some, 99))
    if bright < _DARK:
        return f"99 % of the values are at most {bright} of 255; dataset.stretch=percentile spreads them"
    return None
