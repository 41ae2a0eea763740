"""Colour and texture histograms, by which selective search compares regions (IJCV 2013, section 3.2).

h, w: height and width. C: channels. R: regions. A histogram is a row of groups of bins. The sum of each group is UNIT,
or a little less because bins are rounded down to integers.
- Colour: one group of 25 bins per channel, as in the paper.
- Texture: 8 groups of 10 bins per channel: the derivatives along x, y and the diagonals, positive and negative parts.
  The paper uses Gaussian derivatives, OpenCV uses Scharr's on rotated images; here they are Scharr's kernel, straight
  and rotated.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from detpipe.jit import compiled
from detpipe.proposals.selective_search.colour_spaces import Planes
from detpipe.proposals.selective_search.felzenszwalb import Int32Array
from detpipe.structures import Int64Array

Histograms = npt.NDArray[np.uint16]
"""(R, bins) uint16."""
Codes = npt.NDArray[np.uint8]
"""(5 C, h, w) uint8: the bin of each pixel in C colour groups, then in 4 C groups of signed derivatives."""

UNIT = 1 << 15
COLOUR_BINS = 25
DIRECTIONS = 4
TEXTURE_BINS = 10
_SIGNED = 2 * TEXTURE_BINS - 1
"""Bins of a signed derivative: one count serves its positive and its negative group."""


def region_histograms(codes: Codes, labels: Int32Array, sizes: Int32Array) -> tuple[Histograms, Histograms]:
    """Colour (R, 25 C) and texture (R, 80 C) histograms of the regions with labels (h, w) and sizes (R,)."""
    channels = len(codes) // (1 + DIRECTIONS)
    starts = np.array(
        [
            *(c * COLOUR_BINS for c in range(channels)),
            *(channels * COLOUR_BINS + g * _SIGNED for g in range(4 * channels)),
        ]
    )
    counts = _count(codes, labels, len(sizes), starts, channels * (COLOUR_BINS + DIRECTIONS * _SIGNED))
    return _normalise(counts, sizes, channels)


@compiled
def pixel_codes(planes: Planes) -> Codes:
    """The bins of each pixel of an image (C, h, w): C colour groups, then 4 C groups of signed derivatives."""
    channels, height, width = planes.shape
    codes = np.empty((5 * channels, height, width), np.uint8)
    slopes = np.empty((4, height, width), np.int16)
    padded = np.empty((height + 2, width + 2), np.int16)
    for c in range(channels):
        # The border pixels are repeated.
        for y in range(height):
            for x in range(width):
                padded[y + 1, x + 1] = planes[c, y, x]
                codes[c, y, x] = planes[c, y, x] * COLOUR_BINS >> 8
            padded[y + 1, 0], padded[y + 1, width + 1] = planes[c, y, 0], planes[c, y, width - 1]
        for x in range(width + 2):
            padded[0, x], padded[height + 1, x] = padded[1, x], padded[height, x]
        for y in range(height):
            above, here, below = padded[y], padded[y + 1], padded[y + 2]
            for x in range(width):
                nw, n, ne = above[x], above[x + 1], above[x + 2]
                w, e = here[x], here[x + 2]
                sw, s, se = below[x], below[x + 1], below[x + 2]
                slopes[0, y, x] = 3 * (ne - nw + se - sw) + 10 * (e - w)
                slopes[1, y, x] = 3 * (sw - nw + se - ne) + 10 * (s - n)
                slopes[2, y, x] = 3 * (e - n + s - w) + 10 * (se - nw)
                slopes[3, y, x] = 3 * (e - s + n - w) + 10 * (ne - sw)
        for d in range(4):
            # The bins of each direction cover the range up to the image's largest derivative, as in OpenCV.
            most, least = np.int16(0), np.int16(0)
            for y in range(height):
                for x in range(width):
                    most = max(most, slopes[d, y, x])
                    least = min(least, slopes[d, y, x])
            up, down = np.int32((TEXTURE_BINS << 16) // (most + 1)), np.int32((TEXTURE_BINS << 16) // (1 - least))
            for y in range(height):
                for x in range(width):
                    slope = np.int32(slopes[d, y, x])
                    rise, fall = slope if slope > 0 else 0, -slope if slope < 0 else 0
                    steps = (np.int32(rise * up) >> 16) - (np.int32(fall * down) >> 16)
                    codes[channels + 4 * c + d, y, x] = TEXTURE_BINS - 1 + steps
    return codes


@compiled
def _count(codes: Codes, labels: Int32Array, regions: int, starts: Int64Array, bins: int) -> Int32Array:
    groups, height, width = codes.shape
    counts = np.zeros((regions, bins), np.int32)
    # The bins of a row are stored together, so that the counts of a pixel are independent in memory.
    line = np.empty((width, groups), np.uint16)
    for y in range(height):
        for g in range(groups):
            for x in range(width):
                line[x, g] = starts[g] + codes[g, y, x]
        for x in range(width):
            row = counts[labels[y, x]]
            for g in range(groups):
                row[line[x, g]] += 1
    return counts


@compiled
def _normalise(counts: Int32Array, sizes: Int32Array, channels: int) -> tuple[Histograms, Histograms]:
    regions = len(sizes)
    n_colour = channels * COLOUR_BINS
    colour = np.empty((regions, n_colour), np.uint16)
    texture = np.empty((regions, channels * DIRECTIONS * 2 * TEXTURE_BINS), np.uint16)
    for r in range(regions):
        size = sizes[r]
        share = UNIT / size  # one product, then rounded down: the same result on every machine
        for b in range(n_colour):
            colour[r, b] = np.uint16(counts[r, b] * share)
        for g in range(channels * DIRECTIONS):
            zero = n_colour + g * _SIGNED + TEXTURE_BINS - 1
            positive, negative = 0, 0
            for b in range(1, TEXTURE_BINS):
                texture[r, 2 * g * TEXTURE_BINS + b] = np.uint16(counts[r, zero + b] * share)
                texture[r, (2 * g + 1) * TEXTURE_BINS + b] = np.uint16(counts[r, zero - b] * share)
                positive += counts[r, zero + b]
                negative += counts[r, zero - b]
            texture[r, 2 * g * TEXTURE_BINS] = np.uint16((size - positive) * share)
            texture[r, (2 * g + 1) * TEXTURE_BINS] = np.uint16((size - negative) * share)
    return colour, texture
