"""Shrinking of an image to the working size of selective search, in integers: the same bytes on every machine.

H, W: height and width of the image. h, w: height and width of the smaller image.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from detpipe.jit import compiled
from detpipe.structures import Float32Array, Image

_COVERED = 4
"""Number of pixels in each direction that are averaged for one pixel of the smaller image. In larger images only every
second, third ... pixel is used, so that a large photograph takes little time."""


def working_size(image_size: tuple[int, int], max_side: int) -> tuple[int, int]:
    """(height, width) with the same aspect ratio and no side above max_side pixels; never larger than the image."""
    height, width = image_size
    longer = max(height, width)
    if longer <= max_side:
        return height, width
    # Halves are rounded up, in integers: a float quotient could have an inexact last bit.
    return tuple(max((2 * side * max_side + longer) // (2 * longer), 1) for side in (height, width))  # type: ignore[return-value]


def shrink(image: Image, size: tuple[int, int]) -> Image:
    """The image (H, W, 3) uint8 shrunk to the size (h, w) by averaging the area under each pixel."""
    height, width = size
    if (height, width) == image.shape[:2]:
        return np.ascontiguousarray(image)
    step = max(min(image.shape[0] // height, image.shape[1] // width) // _COVERED, 1)
    return _area_mean(image, step, height, width)


def enlarge(boxes: npt.NDArray[Any], image_size: tuple[int, int], size: tuple[int, int]) -> Float32Array:
    """Boxes (N, 4) of the smaller image, scaled to the image: (N, 4) float32; N = 0 gives (0, 4).

    The box of the whole smaller image becomes exactly the box of the whole image.
    """
    vertical, horizontal = image_size[0] / size[0], image_size[1] / size[1]
    # In float64: in float32, 288 x (1491 / 288) is less than 1491.
    return np.asarray(boxes * np.array([horizontal, vertical, horizontal, vertical]), dtype=np.float32)


@compiled
def _area_mean(image: Image, step: int, height: int, width: int) -> Image:
    """The area mean of every step-th row and column."""
    first = step // 2
    rows, columns = (image.shape[0] - first - 1) // step + 1, (image.shape[1] - first - 1) // step + 1
    small = np.empty((height, width, 3), np.uint8)
    # A pixel of the smaller image covers `rows` x `columns` units of area, a pixel of the image height x width.
    area = rows * columns
    line = np.empty(3 * image.shape[1], np.int32)
    for y in range(height):
        line[:] = 0
        for row in range(y * rows // height, ((y + 1) * rows + height - 1) // height):
            covered = np.int32(min((y + 1) * rows, (row + 1) * height) - max(y * rows, row * height))
            source = image[first + row * step].reshape(-1)
            for i in range(3 * image.shape[1]):
                line[i] += covered * source[i]
        for x in range(width):
            r, g, b = 0, 0, 0
            for column in range(x * columns // width, ((x + 1) * columns + width - 1) // width):
                covered = min((x + 1) * columns, (column + 1) * width) - max(x * columns, column * width)
                at = 3 * (first + column * step)
                r += covered * line[at]
                g += covered * line[at + 1]
                b += covered * line[at + 2]
            small[y, x, 0] = (r + area // 2) // area
            small[y, x, 1] = (g + area // 2) // area
            small[y, x, 2] = (b + area // 2) // area
    return small
