"""Grids of small images: the filters of a convolution, the feature maps of a layer."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

from detpipe.report.drawing import contact_sheet
from detpipe.resize import Interpolation, resize
from detpipe.structures import Float32Array, Image

GAP = (16, 18, 22)
"""Colour of the lines between tiles."""
LINE = 1
"""Width of the lines between the enlarged tiles, in pixels."""


def mosaic(tiles: Sequence[Image], side: int) -> Image:
    """Tiles of one size (h, w, 3) in a nearly square grid, enlarged by an integer factor.

    side: the maximum width of the result in pixels. It is exceeded if the tiles don't fit at their own size; a tile
    wider than `side` is shrunk. Returns (H, W, 3). Raises ValueError without tiles.
    """
    if not tiles:
        raise ValueError("mosaic: expected tiles, got none")
    height, width = tiles[0].shape[:2]
    columns = math.ceil(math.sqrt(len(tiles) * height / width))
    cell = side // columns - LINE
    shrink = min(1.0, max(cell, 1) / width)
    scale = max(1, cell // width)
    size = (max(1, round(width * shrink)) * scale, max(1, round(height * shrink)) * scale)
    how = Interpolation.area if shrink < 1 else Interpolation.nearest
    rows = -(-len(tiles) // columns)
    sheet = np.full((rows * (size[1] + LINE) + LINE, columns * (size[0] + LINE) + LINE, 3), GAP, dtype=np.uint8)
    for index, tile in enumerate(tiles):
        top = index // columns * (size[1] + LINE) + LINE
        left = index % columns * (size[0] + LINE) + LINE
        sheet[top : top + size[1], left : left + size[0]] = resize(tile, size[::-1], how)
    return sheet


def heat(numbers: Float32Array) -> Image:
    """A map (h, w) as an RGB image (h, w, 3) in viridis: dark blue is its minimum, yellow its maximum.

    A constant map (for example of a dead channel) is black, and so are NaN and infinity.
    """
    finite = np.isfinite(numbers)
    low, high = (float(numbers[finite].min()), float(numbers[finite].max())) if finite.any() else (0.0, 0.0)
    if low == high:
        return np.zeros((*numbers.shape, 3), dtype=np.uint8)
    # Halved, so that the difference of two large numbers is finite.
    shares = (np.where(finite, numbers, low) / 2 - low / 2) / (high / 2 - low / 2)
    coloured = cv2.applyColorMap(np.round(255 * shares).astype(np.uint8), cv2.COLORMAP_VIRIDIS)
    return np.where(finite[:, :, None], coloured[:, :, ::-1], 0).astype(np.uint8)


def beside(image: Image, picture: Image) -> Image:
    """The image, resized to the picture's height (and at most its width), to the left of the picture."""
    height, width = picture.shape[:2]
    left = contact_sheet([image], 1, (height, max(1, min(width, round(image.shape[1] * height / image.shape[0])))))
    return np.concatenate([left, np.full((height, 8, 3), GAP, dtype=np.uint8), picture], axis=1)
