"""Position, size and proposal rank of a region, which a warped crop does not show.

R: regions of one image.
"""

from __future__ import annotations

import numpy as np

from detpipe.structures import Float32Array, Int64Array

COLUMNS = 11
"""G: the number of geometry features of a region."""


def region_geometry(boxes: Float32Array, image_size: tuple[int, int], ranks: Int64Array) -> Float32Array:
    """Geometry features: boxes (R, 4), (height, width), ranks (R,) among the proposals, from 0 -> (R, COLUMNS) float32.

    The columns: log of relative area, of aspect ratio (w / h), of relative width and of relative height; centre (x, y)
    relative to the image, 0 in the middle; whether the box touches the left, top, right and bottom border; log of
    rank + 3. R = 0 gives no rows. Boxes must have an area.
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
        np.log(ranks + 3.0),
    ]
    return np.stack(columns, axis=1).astype(np.float32)


def mirrored_geometry(geometry: Float32Array) -> Float32Array:
    """The geometry features of the same regions in the mirrored image: (R, COLUMNS) -> (R, COLUMNS)."""
    mirrored = geometry[:, [0, 1, 2, 3, 4, 5, 8, 7, 6, 9, 10]]  # swap left and right border
    mirrored[:, 4] *= -1
    return mirrored
