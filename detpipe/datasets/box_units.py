"""Boxes in wrong units: shares of the image in place of pixels, corners in place of width and height."""

from __future__ import annotations

import numpy as np

from detpipe.structures import BoolArray, Float64Array

SHARES = (
    "all {} boxes lie within 1 x 1 pixel, so they are shares of the image; multiply x and width by the image's width, "
    "y and height by its height"
)
"""The fault of boxes for which `are_shares` is true, and the remedy; for the number of boxes."""
_ROUNDING = 0.01
"""Shares may be beyond 0 or 1 by this, because exporters round."""
_FAR_OUTSIDE = 0.1
"""Share of the image's side: nobody draws so many boxes that leave the image by so much."""
_MANY = 0.3


def under_a_pixel(boxes: Float64Array) -> BoolArray:
    """Which boxes with an area are narrower and lower than a pixel. (N, 4), x1 y1 x2 y2 -> (N,) bool."""
    sides = boxes[:, 2:] - boxes[:, :2]
    return np.asarray(((sides > 0) & (sides < 1)).all(axis=1))


def are_shares(boxes: Float64Array) -> bool:
    """Whether all boxes (N, 4), x1 y1 x2 y2, lie within 1 x 1 pixel. N = 0 gives False.

    VOC's corners count from 1, so their shares begin at -1 after the conversion.
    """
    return bool(len(boxes)) and bool((boxes >= -1 - _ROUNDING).all() and (boxes[:, 2:] <= 1 + _ROUNDING).all())


def are_corners(written: Float64Array, sizes: Float64Array, areas: Float64Array) -> bool:
    """Whether boxes are [x1, y1, x2, y2] in place of COCO's [x, y, width, height].

    So it is if all lie within their images as corners, but many leave them far as sizes, and the areas, if there are
    any, do not name sizes.
    written: (N, 4), as in the file. sizes: (N, 2), height and width of each box's image. areas: (N,), NaN where the
    file has none. N = 0 gives False.
    """
    if not len(written):
        return False
    first, second, sides = written[:, :2], written[:, 2:], sizes[:, ::-1]
    fit = (second > first).all() and (first >= -1).all() and (second <= sides + 1).all()
    leave = (first + second > (1 + _FAR_OUTSIDE) * sides).any(axis=1)
    as_sizes = np.abs(areas - second.prod(axis=1)) <= 0.01 * second.prod(axis=1)
    return bool(fit and leave.mean() >= _MANY and as_sizes.mean() < 0.5)


def are_shares_of_area(areas: Float64Array, boxes: Float64Array) -> bool:
    """Whether all areas in a file are at most 1, as shares of the image are, but no box is so small.

    areas: (N,), NaN where the file has none. boxes: (N, 4), x1 y1 x2 y2. No areas above 0 give False.
    """
    given = areas > 0
    if not given.any():
        return False
    of_boxes = (boxes[given, 2:] - boxes[given, :2]).prod(axis=1)
    # Some exporters write an area of 1 as a placeholder.
    return bool(areas[given].max() <= 1 and areas[given].min() < 1 and of_boxes.min() > 4)
