"""The box around a COCO segmentation: polygons, or a run-length encoded mask (RLE), compressed or not.

No mask is made, so a small file that claims a huge one costs nothing.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from detpipe.structures import Int64Array

Box = tuple[float, float, float, float]
"""x y width height."""
_MOST_COUNTS = 1_000_000
"""Numbers or characters of an RLE. A real mask has some thousands."""
_LONGEST_NUMBER = 12
"""Characters of one number in a compressed RLE: 12 x 5 bits, so that int64 holds it."""


def segmentation_box(segmentation: object) -> Box | None:
    """The smallest box around a segmentation, as COCO has it: x y width height in pixels.

    For polygons it ends at the outermost points, for an RLE at the borders of the outermost pixels. None if there is no
    segmentation, no point and no foreground pixel. Raises ValueError for other content.
    """
    if not segmentation:
        return None
    if isinstance(segmentation, Mapping):
        return _rle_box(segmentation)
    if isinstance(segmentation, list):
        return _polygon_box(segmentation)
    raise ValueError(f"segmentation: expected polygons or an RLE, got {reprlib.repr(segmentation)}")


def _polygon_box(polygons: list[Any]) -> Box | None:
    # Some files have one polygon without the list around it.
    parts = polygons if isinstance(polygons[0], list) else [polygons]
    points = [number for part in parts for number in _numbers(part)]
    if not points:
        return None
    xs, ys = points[0::2], points[1::2]
    return min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)


def _numbers(polygon: object) -> Sequence[float]:
    if isinstance(polygon, list) and len(polygon) % 2 == 0 and all(_is_number(value) for value in polygon):
        return [float(value) for value in polygon]
    raise ValueError(f"segmentation: expected polygons [[x1, y1, x2, y2, ...], ...], got {reprlib.repr(polygon)}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e15


def _rle_box(rle: Mapping[str, Any]) -> Box | None:
    size, counts = rle.get("size"), rle.get("counts")
    if not isinstance(size, list) or len(size) != 2 or not all(_is_size(side) for side in size):
        raise ValueError(f"segmentation: expected an RLE with size [height, width], got {reprlib.repr(size)}")
    if isinstance(counts, str | list) and len(counts) > _MOST_COUNTS:
        raise ValueError(f"segmentation: expected an RLE of at most {_MOST_COUNTS:,} counts, got {len(counts):,}")
    if isinstance(counts, str):
        runs = _decompress(counts)
    elif isinstance(counts, list) and all(_is_size(count) for count in counts):
        runs = np.array(counts, dtype=np.int64)
    else:
        raise ValueError(f"segmentation: expected an RLE with counts, got {reprlib.repr(counts)}")
    height, width = size
    if len(runs) and (runs.min() < 0 or runs.max() > height * width or runs.sum(dtype=np.float64) > height * width):
        raise ValueError(
            f"segmentation: expected an RLE of at most {height} x {width} pixels, got more, or negative runs"
        )
    ends = np.cumsum(runs)
    # Runs alternate between background and foreground, and go down the columns.
    first, behind = ends[0::2][: len(runs) // 2], ends[1::2]
    used = behind > first
    first, last = first[used], behind[used] - 1
    if not len(first):
        return None
    x1, x2 = int(first.min()) // height, int(last.max() + height) // height
    if (first // height != last // height).any():
        # A run that goes on in the next column has the last row of one and the first row of the other.
        return x1, 0, x2 - x1, height
    y1, y2 = int((first % height).min()), height - int((height - last % height).min() - 1)
    return x1, y1, x2 - x1, y2 - y1


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 31


def _decompress(text: str) -> Int64Array:
    """The runs of COCO's compressed RLE (rleFrString of maskApi.c).

    Each number is written in groups of 5 bits, the lowest first: bit 6 says that another group follows, and bit 5 of
    the last group is the sign. From the fourth on, a number is the difference to the one before the last.
    """
    codes = np.frombuffer(text.encode("utf-8", "surrogatepass"), dtype=np.uint8).astype(np.int64) - 48
    if not len(codes):
        return codes
    ends = np.flatnonzero((codes & 32) == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    if codes.min() < 0 or codes.max() > 63 or not len(ends) or ends[-1] != len(codes) - 1:
        raise ValueError(f"segmentation: expected a compressed RLE, got {reprlib.repr(text)}")
    lengths = ends - starts + 1
    if lengths.max() > _LONGEST_NUMBER:
        raise ValueError(f"segmentation: expected a compressed RLE, got a number of {lengths.max()} characters in it")
    place = np.arange(len(codes)) - np.repeat(starts, lengths)
    numbers = np.add.reduceat((codes & 31) << (5 * place), starts)
    negative = (codes[ends] & 16) != 0
    numbers -= np.where(negative, np.int64(1) << (5 * lengths), 0)
    for parity in (1, 2):
        numbers[parity::2] = np.cumsum(numbers[parity::2])
    return numbers
