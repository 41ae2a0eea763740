"""Where a region lies in its image, and how soon it was proposed: what a warped crop doesn't show.

R: regions of one image.
"""

from __future__ import annotations

import numpy as np

from detpipe.structures import Float32Array, Int64Array

COLUMNS = 11
"""G: the numbers of a region."""


def region_geometry(boxes: Float32Array, image_size: tuple[int, int], places: Int64Array) -> Float32Array:
    """(R, 4) boxes, (height, width), (R,) places among the image's proposals from 0 -> (R, COLUMNS) float32.

    The logarithms of its share of the image's area, width and height and of its own aspect; the centre, as a share of
    the image, from the middle; whether it touches the left, upper, right and lower border; the logarithm of its place.
    R = 0 gives no rows. Boxes have an area.
    """
    height, width = image_size
    w, h = (boxes[:, 2] - boxes[:, 0]).astype(np.float64), (boxes[:, 3] - boxes[:, 1]).astype(np.float64)
    columns = [
        np.log(w * h / (height * width)),
        np.log(w / h),
        np.log(w / width),
        np.log(h / height),
        (boxes[:, 0] + boxes[:, 2]) / 2 / width - 0.5,
        (boxes[:, 1] + boxes[:, 3]) / 2 / height - 0.5,
        boxes[:, 0] < 2,
        boxes[:, 1] < 2,
        boxes[:, 2] > width - 2,
        boxes[:, 3] > height - 2,
        np.log(places + 3.0),
    ]
    return np.stack(columns, axis=1).astype(np.float32)


def mirrored_geometry(geometry: Float32Array) -> Float32Array:
    """What `region_geometry` says of the same regions in the mirrored image: (R, COLUMNS) -> (R, COLUMNS)."""
    mirrored = geometry[:, [0, 1, 2, 3, 4, 5, 8, 7, 6, 9, 10]]  # left and right border change places
    mirrored[:, 4] *= -1
    return mirrored
