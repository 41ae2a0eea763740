"""Boxes as four columns of 16-bit integers, as a ProposalRecord stores them.

N: boxes. s: the scale. A coordinate x, in pixels, is stored as q = round(x 2^s), a uint16, and read as q 2^-s. s is the
largest integer with max(height, width) 2^s <= 65535, so that the far border of the image still fits: 6 for 640
pixels, 0 from 32768 to 65535, negative for larger images.

Rounding errors:
1. A coordinate is off by at most half a unit, e = 2^-(s + 1): 1/128 pixel at 640. (q is the nearest integer, and
   q 2^-s is exact in float32, which has 24 bits for q's 16.) In images of more than 131070 pixels the far border may
   lie within a unit; it is then off by up to one unit.
2. Integer pixel coordinates are exact in images of up to 65535 pixels: s >= 0, so x 2^s is an integer.
3. A rounded box of width w and height h, both above 2e, has an IoU with the original of at least
   (w - 2e)(h - 2e) / ((w + 2e)(h + 2e)). (Each side moves by at most e: both boxes contain the box that is smaller by
   e on each side, and lie in the box that is larger by e.) This is 0.994 for 10 x 10 pixels at 640.
4. The IoU with any other box g changes by at most 1 minus this value, because 1 - IoU is a metric (Jaccard distance):
   |IoU(a, g) - IoU(b, g)| <= 1 - IoU(a, b).

float16, also two bytes, has 11 bits of precision at every position: between 512 and 1024 pixels it is off by up to
1/4 pixel (IoU 0.82 instead of 0.994), and above 2048 it can't hold all integers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from detpipe.boxes import clip
from detpipe.proposals.proposer import SourcedProposals, best_of_equal
from detpipe.structures import Float32Array, Proposals

Units = npt.NDArray[np.uint16]

LARGEST = 65535
"""The largest uint16."""


def scale_of(image_size: tuple[int, int]) -> int:
    """s for an image of (height, width): the largest integer with max(height, width) 2^s <= 65535.

    Raises ValueError for an image without pixels.
    """
    side = max(image_size)
    if min(image_size) < 1:
        raise ValueError(f"scale_of: expected a height and a width from 1, got {image_size}")
    if side <= LARGEST:
        return (LARGEST // side).bit_length() - 1
    # The smallest t with side <= 65535 * 2^t, in integers so that it is exact for any size.
    return -((side - 1) // LARGEST).bit_length()


def snap(boxes: Float32Array, image_size: tuple[int, int]) -> Float32Array:
    """The boxes as they will be read back, clipped to the image: (N, 4) -> (N, 4). Idempotent.

    A box narrower than a unit may become empty, and two boxes may become equal: see `snapped`.
    """
    return _from_units(_to_units(boxes, image_size), scale_of(image_size))


def snapped(found: SourcedProposals, image_size: tuple[int, int]) -> SourcedProposals:
    """The proposals as they will be read back.

    Boxes that become empty, or equal to a better one, are dropped; the rest is sorted by score, ties by the box.
    No proposals give no proposals.
    """
    boxes, scores = snap(found.proposals.boxes, image_size), found.proposals.scores
    kept = best_of_equal(boxes, scores)
    return SourcedProposals(
        Proposals(boxes[kept], scores[kept]), None if found.sources is None else found.sources[kept]
    )


def to_columns(boxes: Float32Array, image_size: tuple[int, int]) -> tuple[bytes, bytes, bytes, bytes]:
    """x1, y1, x2, y2 of boxes (N, 4), each as N little-endian uint16. No boxes: no bytes.

    Raises ValueError for boxes that rounding would change; `snapped` rounds them first.
    """
    units = _to_units(boxes, image_size)
    if _from_units(units, scale_of(image_size)).tobytes() != boxes.tobytes():
        raise ValueError(
            f"expected boxes in whole units of 2^-{scale_of(image_size)} pixels inside an image of height and width "
            f"{image_size}, got other values; round them with box_columns.snapped"
        )
    x1s, y1s, x2s, y2s = units.T
    return x1s.tobytes(), y1s.tobytes(), x2s.tobytes(), y2s.tobytes()


def from_columns(columns: Sequence[bytes], scale: int) -> Float32Array:
    """The inverse of `to_columns`: four columns of N uint16 -> (N, 4) float32."""
    return _from_units(np.stack([np.frombuffer(column, dtype="<u2") for column in columns], axis=1), scale)


def _to_units(boxes: Float32Array, image_size: tuple[int, int]) -> Units:
    scale = scale_of(image_size)
    height, width = image_size
    # The border can lie within a unit if units are larger than pixels.
    last = np.floor(np.ldexp(np.array([width, height, width, height], dtype=np.float64), scale))
    units = np.rint(np.ldexp(clip(boxes, image_size).astype(np.float64), scale))
    return np.minimum(units, last).astype("<u2")


def _from_units(units: Units, scale: int) -> Float32Array:
    return np.ldexp(units.astype(np.float32), -scale).astype(np.float32, copy=False)
