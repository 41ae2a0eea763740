"""The colour spaces of selective search (IJCV 2013, section 3.1), in integer arithmetic, so that the bytes
are the same on every machine.

h, w: height and width. A plane is (h, w) uint8; an image in a colour space is its planes, (C, h, w) uint8.
"""

from __future__ import annotations

from enum import Enum

import numpy as np
import numpy.typing as npt

from detpipe.jit import compiled
from detpipe.structures import Image

Planes = npt.NDArray[np.uint8]
"""(C, h, w) uint8."""


class ColourSpace(Enum):
    """A colour space by name. Ranges are 0..255 unless stated."""

    hsv = "hsv"
    """Hue in 0..255, saturation, value."""
    hsv_180 = "hsv_180"
    """OpenCV's HSV: hue in 0..179, which gives it less weight."""
    lab = "lab"
    """CIE L*a*b* (D65) of sRGB, with L in 0..255 and a, b centred at 128."""
    rgi = "rgi"
    """Red and green as shares of the sum of the channels, and the intensity."""
    rg_grey = "rg_grey"
    """Red, green and the intensity; OpenCV calls it rgI."""
    hue = "hue"
    """Only the hue, in 0..255."""
    hue_180 = "hue_180"
    """Only the hue, in 0..179."""
    grey = "grey"
    """Only the intensity."""


def convert(image: Image, space: ColourSpace) -> Planes:
    """The planes of an RGB image (h, w, 3) uint8 in a colour space: (3, h, w), or (1, h, w) for a single channel."""
    if space in (ColourSpace.hsv, ColourSpace.hsv_180):
        return _hsv(image, 256 if space is ColourSpace.hsv else 180)
    if space in (ColourSpace.hue, ColourSpace.hue_180):
        return np.ascontiguousarray(_hsv(image, 256 if space is ColourSpace.hue else 180)[:1])
    if space is ColourSpace.lab:
        return _lab(image, _LINEAR, _CUBE_ROOT)
    grey = _grey(image)
    if space is ColourSpace.grey:
        return grey
    if space is ColourSpace.rg_grey:
        return np.stack([image[:, :, 0], image[:, :, 1], grey[0]])
    return _rgi(image, grey)


@compiled
def _hsv(image: Image, hues: int) -> Planes:
    """Hue in `hues` steps; grey pixels have hue 0. Halves are rounded up."""
    height, width = image.shape[:2]
    planes = np.empty((3, height, width), np.uint8)
    for y in range(height):
        for x in range(width):
            r, g, b = np.int32(image[y, x, 0]), np.int32(image[y, x, 1]), np.int32(image[y, x, 2])
            value = max(r, g, b)
            span = value - min(r, g, b)
            hue = np.int32(0)
            if span > 0:
                if value == r:
                    sixths = g - b
                elif value == g:
                    sixths = b - r + 2 * span
                else:
                    sixths = r - g + 4 * span
                if sixths < 0:
                    sixths += 6 * span
                hue = (2 * sixths * hues + 6 * span) // (12 * span)
                if hue >= hues:
                    hue -= hues
            planes[0, y, x] = hue
            planes[1, y, x] = (span * 255 + value // 2) // value if value > 0 else 0
            planes[2, y, x] = value
    return planes


_ONE = 4096
"""1.0 of linear light and of XYZ relative to white, as an integer."""


def _linear_table() -> npt.NDArray[np.int32]:
    """sRGB's 0..255 -> linear light (IEC 61966-2-1)."""
    level = np.arange(256) / 255
    linear = np.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4)
    return np.asarray(np.rint(linear * _ONE * 4), dtype=np.int32)


def _cube_root_table() -> npt.NDArray[np.int32]:
    """CIE's f(t) for t in 0..1 in steps of 1 / _ONE, times 2^14."""
    t = np.arange(_ONE + 1) / _ONE
    f = np.where(t > 216 / 24389, np.cbrt(t), (24389 / 27 * t + 16) / 116)
    return np.asarray(np.rint(f * (1 << 14)), dtype=np.int32)


# Rounding to integers hides differences in the last bits of the power function between machines.
_LINEAR = _linear_table()
_CUBE_ROOT = _cube_root_table()


@compiled
def _lab(image: Image, linear: npt.NDArray[np.int32], cube_root: npt.NDArray[np.int32]) -> Planes:
    height, width = image.shape[:2]
    planes = np.empty((3, height, width), np.uint8)
    for y in range(height):
        for x in range(width):
            r, g, b = linear[image[y, x, 0]], linear[image[y, x, 1]], linear[image[y, x, 2]]
            # sRGB to XYZ relative to D65 white; the coefficients of a row sum to 2^12, and the table is scaled by 4.
            fx = cube_root[(1777 * r + 1541 * g + 778 * b + 8192) >> 14]
            fy = cube_root[(871 * r + 2929 * g + 296 * b + 8192) >> 14]
            fz = cube_root[(73 * r + 448 * g + 3575 * b + 8192) >> 14]
            lightness = 116 * fy - (16 << 14)
            planes[0, y, x] = min(max((lightness * 255 + (50 << 14)) // (100 << 14), 0), 255)
            planes[1, y, x] = min(max((500 * (fx - fy) + (128 << 14) + (1 << 13)) >> 14, 0), 255)
            planes[2, y, x] = min(max((200 * (fy - fz) + (128 << 14) + (1 << 13)) >> 14, 0), 255)
    return planes


@compiled
def _grey(image: Image) -> Planes:
    """ITU-R BT.601 luma with OpenCV's 14 bits."""
    height, width = image.shape[:2]
    planes = np.empty((1, height, width), np.uint8)
    for y in range(height):
        for x in range(width):
            r, g, b = np.int32(image[y, x, 0]), np.int32(image[y, x, 1]), np.int32(image[y, x, 2])
            planes[0, y, x] = (4899 * r + 9617 * g + 1868 * b + 8192) >> 14
    return planes


@compiled
def _rgi(image: Image, grey: Planes) -> Planes:
    """Black pixels give 0, 0, 0."""
    height, width = image.shape[:2]
    planes = np.empty((3, height, width), np.uint8)
    for y in range(height):
        for x in range(width):
            r, g, b = np.int32(image[y, x, 0]), np.int32(image[y, x, 1]), np.int32(image[y, x, 2])
            total = r + g + b if r + g + b > 0 else 1
            planes[0, y, x] = (r * 255 + total // 2) // total
            planes[1, y, x] = (g * 255 + total // 2) // total
            planes[2, y, x] = grey[0, y, x]
    return planes
