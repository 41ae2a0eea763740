"""The unique boxes of a selective search, with cheap features for ranking them.

U: unique boxes of all hierarchies. T: regions of all hierarchies. h, w: height and width of the working image.
Features are integers: shares in thousandths, similarities in 1 / 2^12.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from detpipe.jit import compiled
from detpipe.proposals.selective_search.colour_spaces import Planes
from detpipe.proposals.selective_search.felzenszwalb import Int32Array
from detpipe.proposals.selective_search.grouping import Hierarchy
from detpipe.structures import Int64Array

FEATURES = {
    "occurrences": "share of the hierarchies that contain the box",
    "place": "smallest position from the top of a hierarchy, as a share of its regions",
    "rank": "the same position as a number of regions",
    "mean_place": "mean of the relative positions of all regions with this box",
    "fill": "largest share of the box that a region covers",
    "least_fill": "smallest share of the box that a region covers",
    "lifetime": "largest decrease of similarity between the merge that made a region and its own merge",
    "absorbed": "smallest similarity at which a region was merged",
    "growth": "largest factor by which a merge enlarged the box, 1000 is no growth",
    "segmentations": "share of the segmentations that contain the box",
    "votes": "number of almost equal boxes, in thousandths per hierarchy",
    "area": "share of the image, in 1 / 10000",
    "width": "share of the image's width",
    "height": "share of the image's height",
    "aspect": "width over height",
    "borders": "sides on the image's border: left 1, right 2, top 4, bottom 8",
    "centre_x": "horizontal distance of the centre from the image centre, as a share of half the width",
    "centre_y": "vertical distance of the centre from the image centre, as a share of half the height",
    "contrast": "mean brightness difference across the sides, relative to the image's mean",
    "crossing": "mean brightness difference along the sides (contours cut by them), relative to the image's mean",
    "inside": "mean brightness difference in the box, relative to the image's mean",
}
"""The features of a box, in the order of the columns."""

# The columns by name, for compiled code.
(
    _OCCURRENCES, _PLACE, _RANK, _MEAN_PLACE, _FILL, _LEAST_FILL, _LIFETIME, _ABSORBED, _GROWTH, _SEGMENTATIONS, _VOTES,
    _AREA, _WIDTH, _HEIGHT, _ASPECT, _BORDERS, _CENTRE_X, _CENTRE_Y, _CONTRAST, _CROSSING, _INSIDE,
) = range(len(FEATURES))  # fmt: skip
_N_FEATURES = len(FEATURES)
_MOST = 100_000
"""Upper bound of the features that are divided by a brightness difference."""


class Candidates(NamedTuple):
    """The unique boxes, in the order in which the hierarchies contain them.

    boxes: (U, 4) int32, x1 y1 x2 y2 in pixels of the working image. features: (U, len(FEATURES)) int32.
    numbers, positions: (T,) int32, for each region the index of its box, and its position from the top of its
    hierarchy, 0 for the whole image.
    """

    boxes: Int32Array
    features: Int32Array
    numbers: Int32Array
    positions: Int32Array


def candidates(hierarchies: Sequence[Hierarchy], per_segmentation: int, grey: Planes) -> Candidates:
    """The unique boxes of hierarchies. Each `per_segmentation` successive hierarchies have the same initial segments.

    grey: (1, h, w) uint8, the brightness of the working image. Each hierarchy has a region, so that U is at least 1.
    """
    lengths = np.array([len(hierarchy.sizes) for hierarchy in hierarchies], dtype=np.int32)
    columns = (np.concatenate(parts) for parts in zip(*hierarchies, strict=True))
    boxes, sizes, parents, similarities = columns
    size = grey.shape[1], grey.shape[2]
    found, features, numbers, positions, met = _of_hierarchies(
        lengths, boxes, sizes, parents, similarities, per_segmentation
    )
    _count_votes(found, met, len(hierarchies), features)
    _measure(found, *size, features)
    _measure_steps(found, *_step_sums(grey), *size, features)
    return Candidates(found, features, numbers, positions)


@compiled
def _hash(a: int, b: int, c: int, d: int, mask: int) -> int:
    return ((a * 0x9E3779B1 + b * 0x85EBCA6B + c * 0xC2B2AE35 + d * 0x27D4EB2F) >> 7) & mask


@compiled
def _slots(entries: int) -> int:
    """The size of a hash table for this many entries: a power of 2, at most half full."""
    slots = 64
    while slots < 2 * entries:
        slots *= 2
    return slots


@compiled
def _of_hierarchies(
    lengths: Int32Array,
    boxes: Int32Array,
    sizes: Int32Array,
    parents: Int32Array,
    similarities: Int32Array,
    per_segmentation: int,
) -> tuple[Int32Array, Int32Array, Int32Array, Int32Array, Int32Array]:
    """The unique boxes with their features from the hierarchies, and the number of regions of each, (U,) int32."""
    total = len(boxes)
    slots = _slots(total)
    table = np.full(slots, -1, np.int32)
    found = np.empty((total, 4), np.int32)
    f = np.zeros((total, _N_FEATURES), np.int32)
    numbers = np.empty(total, np.int32)
    positions = np.empty(total, np.int32)
    met = np.zeros(total, np.int32)
    places = np.zeros(total, np.int64)
    last_hierarchy = np.full(total, -1, np.int32)
    last_segmentation = np.full(total, -1, np.int32)
    count = 0
    start = 0
    for g in range(len(lengths)):
        for i in range(lengths[g]):
            r = start + i
            x1, y1, x2, y2 = boxes[r, 0], boxes[r, 1], boxes[r, 2], boxes[r, 3]
            slot = _hash(x1, y1, x2, y2, slots - 1)
            while table[slot] >= 0:
                u = table[slot]
                if found[u, 0] == x1 and found[u, 1] == y1 and found[u, 2] == x2 and found[u, 3] == y2:
                    break
                slot = (slot + 1) & (slots - 1)
            if table[slot] < 0:
                table[slot] = count
                found[count, 0], found[count, 1], found[count, 2], found[count, 3] = x1, y1, x2, y2
                f[count, _PLACE] = f[count, _RANK] = f[count, _LEAST_FILL] = f[count, _ABSORBED] = 0x7FFFFFFF
                count += 1
            u = table[slot]
            area = (x2 - x1) * (y2 - y1)
            rank = lengths[g] - 1 - i
            place = rank * 1000 // lengths[g]
            fill = sizes[r] * 1000 // area
            lifetime, absorbed, growth = 0, 4096, 1000  # for the whole image, which is never merged
            if parents[r] >= 0:
                p = start + parents[r]
                absorbed = similarities[p] >> 8
                lifetime = max((similarities[r] >> 8) - absorbed, 0)
                growth = (boxes[p, 2] - boxes[p, 0]) * (boxes[p, 3] - boxes[p, 1]) * 1000 // area
            f[u, _PLACE] = min(f[u, _PLACE], place)
            f[u, _RANK] = min(f[u, _RANK], rank)
            f[u, _FILL] = max(f[u, _FILL], fill)
            f[u, _LEAST_FILL] = min(f[u, _LEAST_FILL], fill)
            f[u, _LIFETIME] = max(f[u, _LIFETIME], lifetime)
            f[u, _ABSORBED] = min(f[u, _ABSORBED], absorbed)
            f[u, _GROWTH] = max(f[u, _GROWTH], min(growth, 1_000_000))
            numbers[r], positions[r] = u, rank
            met[u] += 1
            places[u] += place
            if last_hierarchy[u] != g:
                last_hierarchy[u] = g
                f[u, _OCCURRENCES] += 1
            if last_segmentation[u] != g // per_segmentation:
                last_segmentation[u] = g // per_segmentation
                f[u, _SEGMENTATIONS] += 1
        start += lengths[g]
    for u in range(count):
        f[u, _OCCURRENCES] = f[u, _OCCURRENCES] * 1000 // len(lengths)
        f[u, _SEGMENTATIONS] = f[u, _SEGMENTATIONS] * 1000 // (len(lengths) // per_segmentation)
        f[u, _MEAN_PLACE] = places[u] // met[u]
    return found[:count].copy(), f[:count].copy(), numbers, positions, met[:count].copy()


@compiled
def _count_votes(boxes: Int32Array, met: Int32Array, n_hierarchies: int, f: Int32Array) -> None:
    """Boxes are almost equal if centre and size lie in the same cell, whose width is an eighth of the size."""
    count = len(boxes)
    slots = _slots(count)
    cells = np.zeros(slots, np.int32)
    cell_of = np.empty(count, np.int32)
    for u in range(count):
        x1, y1, x2, y2 = boxes[u, 0], boxes[u, 1], boxes[u, 2], boxes[u, 3]
        step_x, step_y = 1, 1
        while 8 * step_x < x2 - x1:
            step_x *= 2
        while 8 * step_y < y2 - y1:
            step_y *= 2
        # Two cells with the same slot count as one: this is rare, and the same on every machine.
        cell_of[u] = _hash(
            (x1 + x2) // (2 * step_x) * 64 + step_x,
            (y1 + y2) // (2 * step_y) * 64 + step_y,
            (x2 - x1 + step_x // 2) // step_x,
            (y2 - y1 + step_y // 2) // step_y,
            slots - 1,
        )
        cells[cell_of[u]] += met[u]
    for u in range(count):
        f[u, _VOTES] = cells[cell_of[u]] * 1000 // n_hierarchies


@compiled
def _measure(boxes: Int32Array, height: int, width: int, f: Int32Array) -> None:
    for u in range(len(boxes)):
        x1, y1, x2, y2 = boxes[u, 0], boxes[u, 1], boxes[u, 2], boxes[u, 3]
        wide, high = x2 - x1, y2 - y1
        f[u, _AREA] = wide * high * 10000 // (width * height)
        f[u, _WIDTH] = wide * 1000 // width
        f[u, _HEIGHT] = high * 1000 // height
        f[u, _ASPECT] = wide * 1000 // high
        f[u, _BORDERS] = (x1 == 0) + 2 * (x2 == width) + 4 * (y1 == 0) + 8 * (y2 == height)
        f[u, _CENTRE_X] = abs(x1 + x2 - width) * 1000 // width
        f[u, _CENTRE_Y] = abs(y1 + y2 - height) * 1000 // height


@compiled
def _step_sums(grey: Planes) -> tuple[Int32Array, Int32Array, Int32Array, Int32Array, Int64Array]:
    """Cumulative sums of absolute brightness differences of neighbouring pixels, for fast sums over lines and boxes.

    across: (h + 1, w + 1), between columns x - 1 and x, summed over the rows above y. over: (h + 1, w + 1), between
    rows y - 1 and y, summed over the columns left of x. down: (h + 1, w), within column x. along: (h, w + 1), within
    row y. inside: (h + 1, w + 1), all differences above y and left of x. Differences at the image border are 0.
    """
    height, width = grey.shape[1], grey.shape[2]
    across = np.zeros((height + 1, width + 1), np.int32)
    over = np.zeros((height + 1, width + 1), np.int32)
    down = np.zeros((height + 1, width), np.int32)
    along = np.zeros((height, width + 1), np.int32)
    inside = np.zeros((height + 1, width + 1), np.int64)
    for y in range(height):
        row = inside[y + 1, 0]
        for x in range(width):
            here = np.int32(grey[0, y, x])
            left = abs(here - np.int32(grey[0, y, x - 1])) if x > 0 else 0
            up = abs(here - np.int32(grey[0, y - 1, x])) if y > 0 else 0
            row += left + up
            across[y + 1, x] = across[y, x] + left
            over[y, x + 1] = over[y, x] + up
            down[y + 1, x] = down[y, x] + up
            along[y, x + 1] = along[y, x] + left
            inside[y + 1, x + 1] = inside[y, x + 1] + row
    return across, over, down, along, inside


@compiled
def _measure_steps(
    boxes: Int32Array,
    across: Int32Array,
    over: Int32Array,
    down: Int32Array,
    along: Int32Array,
    inside: Int64Array,
    height: int,
    width: int,
    f: Int32Array,
) -> None:
    """Differences relative to the image's mean, (the sum of all) / (2 h w): a pixel has two neighbours."""
    summed = inside[height, width] if inside[height, width] > 0 else 1
    pixels = height * width
    # The products below are at most 2,040,000 x pixels^2. In an image of more than 1.5 million pixels, both factors are
    # halved until the product fits into 63 bits.
    most = (1 << 62) // (2_040_000 * pixels)
    while pixels > most:
        pixels, summed = pixels >> 1, max(summed >> 1, 1)
    for u in range(len(boxes)):
        x1, y1, x2, y2 = boxes[u, 0], boxes[u, 1], boxes[u, 2], boxes[u, 3]
        wide, high = x2 - x1, y2 - y1
        # A side on the image border has no differences across it, and is not counted.
        line = high * ((x1 > 0) + (x2 < width)) + wide * ((y1 > 0) + (y2 < height))
        steps = across[y2, x1] - across[y1, x1] + across[y2, x2] - across[y1, x2]
        steps += over[y1, x2] - over[y1, x1] + over[y2, x2] - over[y2, x1]
        cut = down[y2, x1] - down[y1, x1] + down[y2, x2 - 1] - down[y1, x2 - 1]
        cut += along[y1, x2] - along[y1, x1] + along[y2 - 1, x2] - along[y2 - 1, x1]
        within = inside[y2, x2] - inside[y1, x2] - inside[y2, x1] + inside[y1, x1]
        f[u, _CONTRAST] = min(steps * 2000 * pixels // ((line + 1) * summed), _MOST)
        f[u, _CROSSING] = min(cut * 2000 * pixels // (2 * (wide + high) * summed), _MOST)
        f[u, _INSIDE] = min(within * 1000 * pixels // (wide * high * summed), _MOST)
