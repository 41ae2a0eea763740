"""The hierarchical grouping of selective search (IJCV 2013, algorithm 1): merges the most similar neighbours first.

R: initial segments. A hierarchy has 2 R - 1 regions: the segments 0 .. R - 1, then the merged regions in order; the
last is the whole image. h, w: height and width.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from detpipe.jit import compiled
from detpipe.proposals.selective_search.felzenszwalb import Int32Array
from detpipe.proposals.selective_search.histograms import TEXTURE_BINS, UNIT, Histograms
from detpipe.structures import Int64Array


class Segments(NamedTuple):
    """The initial regions of a hierarchy.

    boxes: (R, 4) int32, x1 y1 x2 y2. sizes: (R,) int32, pixels. pairs: (P, 2) int32, neighbours, the smaller first.
    """

    boxes: Int32Array
    sizes: Int32Array
    pairs: Int32Array


class Hierarchy(NamedTuple):
    """All regions of a grouping.

    boxes: (2 R - 1, 4) int32. sizes: (2 R - 1,) int32, pixels. parents: (2 R - 1,) int32, the region that
    the region was merged into, -1 for the last. similarities: (2 R - 1,) int32, of the two merged regions, in 1 / 2^20;
    2^20 for segments.
    """

    boxes: Int32Array
    sizes: Int32Array
    parents: Int32Array
    similarities: Int32Array


MAX_SEGMENTS = 1 << 19
"""A pair of regions and its similarity must fit into 63 bits."""


def find_segments(labels: Int32Array, count: int) -> Segments:
    """Boxes, sizes and neighbours of the segments of labels (h, w) from 0 to count - 1.

    Neighbours share a side of a pixel, or its upper left corner, as in OpenCV.
    """
    boxes, sizes = _extents(labels, count)
    return Segments(boxes, sizes, _neighbours(labels, count))


def group(segments: Segments, colour: Histograms, texture: Histograms, similarity: str, n_pixels: int) -> Hierarchy:
    """Merge neighbours until one region is left. There must be at least one segment.

    similarity: letters of C (colour), T (texture), S (size), F (fill); their similarities are added (section 3.2).
    n_pixels: of the image. At equal similarity, the pair with the older regions is merged first. Raises ValueError for
    more than MAX_SEGMENTS segments.
    """
    if len(segments.sizes) > MAX_SEGMENTS:
        raise ValueError(
            f"expected at most {MAX_SEGMENTS} segments, got {len(segments.sizes)}; lower proposals.max_side"
        )
    none = np.zeros((len(segments.sizes), 0), dtype=np.uint16)
    hierarchy = _group(
        segments.boxes,
        segments.sizes,
        segments.pairs,
        colour.copy() if "C" in similarity else none,
        texture.copy() if "T" in similarity else none,
        "S" in similarity,
        "F" in similarity,
        len(similarity),
        n_pixels,
        texture.shape[1] // TEXTURE_BINS * UNIT,
    )
    return Hierarchy(*hierarchy)


@compiled
def _extents(labels: Int32Array, count: int) -> tuple[Int32Array, Int32Array]:
    height, width = labels.shape
    boxes = np.empty((count, 4), np.int32)
    boxes[:, 0], boxes[:, 1], boxes[:, 2], boxes[:, 3] = width, height, 0, 0
    sizes = np.zeros(count, np.int32)
    for y in range(height):
        start = 0
        for x in range(1, width + 1):
            # One run of equal labels at a time.
            if x == width or labels[y, x] != labels[y, start]:
                r = labels[y, start]
                boxes[r, 0] = min(boxes[r, 0], start)
                boxes[r, 1] = min(boxes[r, 1], y)
                boxes[r, 2] = max(boxes[r, 2], x)
                boxes[r, 3] = y + 1
                sizes[r] += x - start
                start = x
    return boxes, sizes


@compiled
def _neighbours(labels: Int32Array, count: int) -> Int32Array:
    """Unique pairs of neighbours in scan order, by a hash table."""
    height, width = labels.shape
    table = np.full(1024, -1, np.int64)
    pairs = np.empty((512, 2), np.int32)
    found = 0
    for y in range(height):
        for x in range(width):
            here = labels[y, x]
            for step in range(3):
                if step == 0:
                    other = (labels[y, x - 1]) if x > 0 else here
                elif step == 1:
                    other = (labels[y - 1, x]) if y > 0 else here
                else:
                    other = (labels[y - 1, x - 1]) if x > 0 and y > 0 else here
                if other == here:
                    continue
                low, high = min(here, other), max(here, other)
                code = low * count + high
                slot = (code * 0x9E3779B1 >> 12) & (len(table) - 1)
                while table[slot] >= 0 and table[slot] != code:
                    slot = (slot + 1) & (len(table) - 1)
                if table[slot] == code:
                    continue
                table[slot] = code
                pairs[found, 0], pairs[found, 1] = low, high
                found += 1
                if 2 * found == len(table):
                    larger = np.full(4 * len(table), -1, np.int64)
                    for old in table:
                        if old >= 0:
                            slot = (old * 0x9E3779B1 >> 12) & (len(larger) - 1)
                            while larger[slot] >= 0:
                                slot = (slot + 1) & (len(larger) - 1)
                            larger[slot] = old
                    table = larger
                    grown = np.empty((len(table) // 2, 2), np.int32)
                    for i in range(found):
                        grown[i, 0], grown[i, 1] = pairs[i, 0], pairs[i, 1]
                    pairs = grown
    return pairs[:found].copy()


@compiled
def _overlap(histograms: Histograms, a: int, b: int) -> int:
    """The intersection of two histograms: the sum of the smaller bins."""
    total = np.int32(0)
    for i in range(histograms.shape[1]):
        total = np.int32(total + np.int32(min(histograms[a, i], histograms[b, i])))
    return int(total)


@compiled
def _mix(histograms: Histograms, a: int, b: int, share: np.int32) -> None:
    """Replace the first of two histograms by their mean with weights share / 2^15 and 1 - share / 2^15."""
    rest = np.int32(32768 - share)
    for i in range(histograms.shape[1]):
        mixed = np.uint32(histograms[a, i]) * np.uint32(share) + np.uint32(histograms[b, i]) * np.uint32(rest)
        histograms[a, i] = np.uint16((np.uint32(mixed) + np.uint32(16384)) >> np.uint32(15))


@compiled
def _push(heap: Int64Array, length: int, key: int) -> Int64Array:
    if length == len(heap):
        larger = np.empty(2 * len(heap), np.int64)
        for i in range(length):
            larger[i] = heap[i]
        heap = larger
    at = length
    while at > 0 and heap[(at - 1) >> 1] < key:
        heap[at] = heap[(at - 1) >> 1]
        at = (at - 1) >> 1
    heap[at] = key
    return heap


@compiled
def _pop(heap: Int64Array, length: int) -> int:
    """Remove and return the largest key of a heap of `length` keys."""
    best = heap[0]
    key = heap[length - 1]
    at = 0
    while True:
        child = 2 * at + 1
        if child >= length - 1:
            break
        if child + 1 < length - 1 and heap[child + 1] > heap[child]:
            child += 1
        if heap[child] <= key:
            break
        heap[at] = heap[child]
        at = child
    heap[at] = key
    return int(best)


@compiled
def _similarity(
    boxes: Int32Array,
    sizes: Int32Array,
    rows: Int32Array,
    colour: Histograms,
    texture: Histograms,
    by_size: bool,
    by_fill: bool,
    n_pixels: int,
    per_pixel: int,
    a: int,
    b: int,
) -> int:
    """The sum of the chosen similarities of two regions, each from 0 to the sum of a texture histogram's bins.

    A colour histogram sums to an eighth of this. per_pixel: 2^16 times this sum divided by the number of pixels, so
    that no division is needed here.
    """
    total: int = 0
    if colour.shape[1] > 0:
        total += 8 * _overlap(colour, rows[a], rows[b])
    if texture.shape[1] > 0:
        total += _overlap(texture, rows[a], rows[b])
    together = sizes[a] + sizes[b]
    if by_size:
        total += (n_pixels - together) * per_pixel >> 16
    if by_fill:
        wide = max(boxes[a, 2], boxes[b, 2]) - min(boxes[a, 0], boxes[b, 0])
        high = max(boxes[a, 3], boxes[b, 3]) - min(boxes[a, 1], boxes[b, 1])
        total += (n_pixels - (wide * high - together)) * per_pixel >> 16
    return total


@compiled
def _group(
    first_boxes: Int32Array,
    first_sizes: Int32Array,
    pairs: Int32Array,
    colour: Histograms,
    texture: Histograms,
    by_size: bool,
    by_fill: bool,
    terms: int,
    n_pixels: int,
    one: int,
) -> tuple[Int32Array, Int32Array, Int32Array, Int32Array]:
    per_pixel = (one << 16) // n_pixels
    count = len(first_sizes)
    total = 2 * count - 1
    boxes = np.empty((total, 4), np.int32)
    sizes = np.empty(total, np.int32)
    parents = np.full(total, -1, np.int32)
    similarities = np.full(total, 1 << 20, np.int32)
    rows = np.empty(total, np.int32)  # the row of a region's histogram; a merged region reuses one of its two
    for r in range(count):
        sizes[r] = first_sizes[r]
        rows[r] = r
        for side in range(4):
            boxes[r, side] = first_boxes[r, side]
    # Neighbours of region r: pool[starts[r]] ... pool[starts[r + 1] - 1]. Some of them have since been merged.
    starts = np.zeros(total + 1, np.int64)
    for p in range(len(pairs)):
        starts[pairs[p, 0] + 1] += 1
        starts[pairs[p, 1] + 1] += 1
    for r in range(count):
        starts[r + 1] += starts[r]
    pool = np.empty(max(4 * starts[count], 16), np.int32)
    fill = starts[:count].copy()
    heap = np.empty(max(2 * len(pairs), 16), np.int64)
    length = 0
    last = (1 << 20) - 1
    for p in range(len(pairs)):
        a, b = pairs[p, 0], pairs[p, 1]
        pool[fill[a]] = b
        pool[fill[b]] = a
        fill[a] += 1
        fill[b] += 1
        alike = _similarity(boxes, sizes, rows, colour, texture, by_size, by_fill, n_pixels, per_pixel, a, b)
        heap = _push(heap, length, alike << 40 | (last - b) << 20 | (last - a))
        length += 1
    seen = np.full(total, -1, np.int32)
    alive = np.arange(total).astype(np.int32)  # leads to the unmerged region that contains each one, as in a union-find
    new = count
    while length > 0:
        key = _pop(heap, length)
        length -= 1
        b, a = last - (key >> 20 & last), last - (key & last)
        if parents[a] >= 0 or parents[b] >= 0:
            continue
        share = np.int32((sizes[a] * 32768 + (sizes[a] + sizes[b]) // 2) // (sizes[a] + sizes[b]))
        _mix(colour, rows[a], rows[b], share)
        _mix(texture, rows[a], rows[b], share)
        rows[new] = rows[a]
        parents[a] = parents[b] = new
        alive[a] = alive[b] = new
        sizes[new] = sizes[a] + sizes[b]
        similarities[new] = ((key >> 40) << 20) // (terms * one)
        boxes[new, 0] = min(boxes[a, 0], boxes[b, 0])
        boxes[new, 1] = min(boxes[a, 1], boxes[b, 1])
        boxes[new, 2] = max(boxes[a, 2], boxes[b, 2])
        boxes[new, 3] = max(boxes[a, 3], boxes[b, 3])
        end = starts[new]
        needed = end + starts[a + 1] - starts[a] + starts[b + 1] - starts[b]
        if needed > len(pool):
            larger = np.empty(2 * needed, np.int32)
            for i in range(end):
                larger[i] = pool[i]
            pool = larger
        for old in (a, b):
            for i in range(starts[old], starts[old + 1]):
                other = pool[i]
                while alive[other] != other:
                    alive[other] = alive[alive[other]]
                    other = alive[other]
                if other == new or seen[other] == new:
                    continue
                seen[other] = new
                pool[end] = other
                end += 1
                alike = _similarity(
                    boxes, sizes, rows, colour, texture, by_size, by_fill, n_pixels, per_pixel, new, other
                )
                heap = _push(heap, length, alike << 40 | (last - new) << 20 | (last - other))
                length += 1
        new += 1
        starts[new] = end
    return boxes, sizes, parents, similarities
