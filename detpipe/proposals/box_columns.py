"""Boxes as four columns of whole numbers, two bytes each: the form in which a ProposalRecord holds them.

N: boxes. s: the scale. A coordinate x, in pixels, is stored as q = round(x 2^s), a uint16, and read as q 2^-s. s is the
largest whole number with max(height, width) 2^s <= 65535, so that the far border of the image still fits: 6 for 640
pixels, 0 from 32768 to 65535, below 0 for larger images.

What is lost:
1. A coordinate is off by half a unit at most, e = 2^-(s + 1): 1/128 pixel at 640. (q is the nearest whole number, and
   q 2^-s is exact in float32, which has 24 bits for q's 16.) Images of more than 131070 pixels may end within a unit:
   there a far border is off by a whole one.
2. Whole pixels are exact in images of up to 65535 pixels: s >= 0, so x 2^s is a whole number.
3. A box of width w and height h, both above 2e, keeps an IoU with itself of at least
   (w - 2e)(h - 2e) / ((w + 2e)(h + 2e)). (Each side moves by e at most: the two boxes share the box that is smaller by
   e on each side, and lie in the one that is larger by e.) That is 0.994 for 10 x 10 pixels at 640.
4. The IoU with any other box g changes by no more than that leaves to 1, since 1 - IoU is a metric (Jaccard's):
   |IoU(a, g) - IoU(b, g)| <= 1 - IoU(a, b).

float16, which has the same two bytes, has 11 bits of precision wherever the box lies: between 512 and 1024 it is off by
up to 1/4 pixel (0.82 in place of 0.994), above 2048 whole pixels are lost.
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
"""Of a uint16."""


def scale_of(image_size: tuple[int, int]) -> int:
    """s of an image of (height, width): the largest whole number with max(height, width) 2^s <= 65535.

    Raises ValueError for an image without a pixel.
    """
    side = max(image_size)
    if min(image_size) < 1:
        raise ValueError(f"scale_of: expected a height and a width from 1, got {image_size}")
    if side <= LARGEST:
        return (LARGEST // side).bit_length() - 1
    # The least t with side <= 65535 * 2^t; whole numbers, so that no size is too absurd.
    return -((side - 1) // LARGEST).bit_length()


def snap(boxes: Float32Array, image_size: tuple[int, int]) -> Float32Array:
    """Each box as it will be read back, within the image: (N, 4) -> (N, 4). Snapping twice changes nothing.

    A box narrower than a unit may become empty, and two boxes equal: see `snapped`.
    """
    return _from_units(_to_units(boxes, image_size), scale_of(image_size))


def snapped(found: SourcedProposals, image_size: tuple[int, int]) -> SourcedProposals:
    """The proposals as they will be read back.

    Those that have become empty, or equal to a better one, are gone; the order is again that of the scores, ties by
    the box. No proposals: none.
    """
    boxes, scores = snap(found.proposals.boxes, image_size), found.proposals.scores
    kept = best_of_equal(boxes, scores)
    return SourcedProposals(
        Proposals(boxes[kept], scores[kept]), None if found.sources is None else found.sources[kept]
    )


def to_columns(boxes: Float32Array, image_size: tuple[int, int]) -> tuple[bytes, bytes, bytes, bytes]:
    """x1, y1, x2, y2 of boxes (N, 4), each as N little-endian uint16. No boxes: no bytes.

    Raises ValueError for boxes that would be read back as others: `snapped` makes proposals that are not.
    """
    units = _to_units(boxes, image_size)
    if _from_units(units, scale_of(image_size)).tobytes() != boxes.tobytes():
        raise ValueError(
            f"expected boxes in whole units of 2^-{scale_of(image_size)} pixels inside an image of height and width "
            f"{image_size}, got others; make them so with box_columns.snapped"
        )
    x1s, y1s, x2s, y2s = units.T
    return x1s.tobytes(), y1s.tobytes(), x2s.tobytes(), y2s.tobytes()


def from_columns(columns: Sequence[bytes], scale: int) -> Float32Array:
    """The inverse of `to_columns`: four columns of N uint16 -> (N, 4) float32."""
    return _from_units(np.stack([np.frombuffer(column, dtype="<u2") for column in columns], axis=1), scale)


def _to_units(boxes: Float32Array, image_size: tuple[int, int]) -> Units:
    scale = scale_of(image_size)
    height, width = image_size
    # Only where units are larger than pixels can the border lie within one.
    last = np.floor(np.ldexp(np.array([width, height, width, height], dtype=np.float64), scale))
    units = np.rint(np.ldexp(clip(boxes, image_size).astype(np.float64), scale))
    return np.minimum(units, last).astype("<u2")


def _from_units(units: Units, scale: int) -> Float32Array:
    return np.ldexp(units.astype(np.float32), -scale).astype(np.float32, copy=False)
