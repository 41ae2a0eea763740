"""Efficient graph-based segmentation (Felzenszwalb and Huttenlocher, IJCV 2004), in integers and exact steps.

h, w: height and width. n: pixels, counted row by row. C: channels. An edge joins pixel e // 2 with its right (e
even) or lower (e odd) neighbour: edges are numbers from 0 to 2 n - 1. M: clusters. R: segments.

Where it departs from the paper, for speed (what it finds is as good, see BENCHMARKS.md):
- Pixels have four neighbours, as in OpenCV, not eight.
- First each pixel joins the neighbour across its lightest edge (a step of Boruvka's). What is left to sort and to
  decide is a fifth of the edges, between clusters of about four pixels. A segment starts with the tolerance of a
  cluster, k / 4, not of a pixel, k; and the heaviest edge inside a cluster is forgotten at its first joining. So the
  same k gives more and smaller segments than the paper's, up to twice as many in smooth images.
- Of the four edges around each 2x2 face the heaviest is left out. It closes a cycle of lighter ones, so it is in no
  minimum spanning tree, of which the method's segments are made but for rare refusals.
- Weights are sorted by the leading bits of the squared distance: steps of 0.2 %, equal ones in the order of the edges.
  One sort serves every k.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from detpipe.jit import compiled
from detpipe.proposals.selective_search.colour_spaces import Planes

Int32Array = npt.NDArray[np.int32]

_BLUR_BITS = 4
"""Fractional bits of a blurred value: 1 is 16."""
_MANTISSA = 8
"""Bits of the squared distance's mantissa that sort the edges."""
_KEYS = 27 << _MANTISSA
"""More than there are: squared distances reach 3 x (255 x 16)^2 < 2^26."""
_SCALE = float(1 << _BLUR_BITS)


class Graph(NamedTuple):
    """An image's clusters and the edges between them, from light to heavy.

    clusters: (h, w) int32, of each pixel, 0 to M - 1. sizes: (M,) int32, pixels. heaviest: (M,) int32, the key of the
    heaviest edge inside. edges: (E, 2) int32, the two clusters. keys: (E,) int32, places in the table of weights.
    """

    clusters: Int32Array
    sizes: Int32Array
    heaviest: Int32Array
    edges: Int32Array
    keys: Int32Array


def build_graph(planes: Planes, sigma: float) -> Graph:
    """The graph of an image (C, h, w) uint8, blurred by a Gaussian of sigma pixels (0: not at all)."""
    across, along = _squared_distances(blur(planes, sigma))
    clusters, sizes, heaviest = _cluster(across, along, _MANTISSA)
    edges, keys = _sorted_edges(across, along, clusters, _MANTISSA, _KEYS)
    return Graph(clusters, sizes, heaviest, edges, keys)


def segment(graph: Graph, k: float, min_size: int) -> tuple[Int32Array, int]:
    """The segments of a graph: labels (h, w) int32 from 0 to R - 1 in the order of their first pixels, and R.

    k: scale, a larger one prefers larger segments (section 3.2: a segment of s pixels may differ inside by k / s more).
    min_size: smaller segments are joined to the neighbour across their lightest edge. An image of one pixel: one label.
    """
    return _segment(*graph, _WEIGHTS, np.float32(k), min_size)


def blur(planes: Planes, sigma: float) -> npt.NDArray[np.int16]:
    """Gaussian blur, (C, h, w) uint8 -> (C, h, w) int16 in sixteenths, borders mirrored without their pixel twice."""
    return _blur(planes, gaussian_kernel(sigma), _BLUR_BITS)


def gaussian_kernel(sigma: float) -> Int32Array:
    """A Gaussian over four sigma to each side, at most, as OpenCV cuts it: (2 r + 1,) int32, adding up to 256."""
    if sigma <= 0:
        return np.array([256], dtype=np.int32)
    radius = (round(sigma * 8 + 1) | 1) // 2
    weights = [math.exp(-(x * x) / (2 * sigma * sigma)) for x in range(-radius, radius + 1)]
    kernel = np.array([round(256 * weight / sum(weights)) for weight in weights], dtype=np.int32)
    kernel[radius] += 256 - kernel.sum()
    return kernel


def _weights() -> npt.NDArray[np.float32]:
    """The distance that each key stands for: the root of the smallest squared distance with that key."""
    bits = (np.arange(_KEYS, dtype=np.int32) + _first_key()) << (23 - _MANTISSA)
    weights = np.sqrt(bits.view(np.float32)) / np.float32(_SCALE)
    weights[0] = 0
    return np.asarray(weights, dtype=np.float32)


def _first_key() -> int:
    """One less than the key of the squared distance 1: what is taken off, so that 0 has the key 0."""
    return int(np.array([1], dtype=np.float32).view(np.int32)[0] >> (23 - _MANTISSA)) - 1


@compiled
def _blur(planes: Planes, kernel: Int32Array, bits: int) -> npt.NDArray[np.int16]:
    channels, height, width = planes.shape
    radius = len(kernel) // 2
    smooth = np.empty((channels, height, width), np.int16)
    # Rows blurred sideways, a ring of them: each is needed by the 2 r + 1 rows around it.
    rows = np.empty((height, width), np.int32)
    padded = np.empty(width + 2 * radius, np.int32)
    total = np.empty(width, np.int32)
    half = np.int32(1 << (15 - bits))
    for c in range(channels):
        for y in range(height):
            for x in range(width):
                padded[radius + x] = planes[c, y, x]
            for x in range(1, radius + 1):
                # Mirrored; an image narrower than the blur repeats its edge.
                padded[radius - x] = padded[radius + min(x, width - 1)]
                padded[radius + width - 1 + x] = padded[radius + max(width - 1 - x, 0)]
            for x in range(width):
                total[x] = kernel[radius] * padded[radius + x]
            for t in range(radius):
                weight = kernel[t]
                for x in range(width):
                    total[x] += weight * (padded[x + t] + padded[x + 2 * radius - t])
            for x in range(width):
                rows[y, x] = total[x]
        for y in range(height):
            for x in range(width):
                total[x] = kernel[radius] * rows[y, x]
            for t in range(1, radius + 1):
                weight = kernel[radius - t]
                above, below = y - t, y + t
                if above < 0:
                    above = min(-above, height - 1)
                if below >= height:
                    below = max(2 * height - 2 - below, 0)
                for x in range(width):
                    total[x] += weight * (rows[above, x] + rows[below, x])
            for x in range(width):
                smooth[c, y, x] = (total[x] + half) >> (16 - bits)
    return smooth


@compiled
def _squared_distances(smooth: npt.NDArray[np.int16]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Squared colour distances to the right and the lower neighbour, (h, w) float32 each; infinite at the border."""
    channels, height, width = smooth.shape
    right = np.empty((height, width), np.float32)
    down = np.empty((height, width), np.float32)
    total = np.empty(width, np.int32)
    for y in range(height):
        total[:] = 0
        for c in range(channels):
            for x in range(width - 1):
                difference = np.int32(smooth[c, y, x]) - np.int32(smooth[c, y, x + 1])
                total[x] += difference * difference
        for x in range(width - 1):
            right[y, x] = total[x]
        right[y, width - 1] = np.inf
        if y + 1 == height:
            down[y, :] = np.inf
            break
        total[:] = 0
        for c in range(channels):
            for x in range(width):
                difference = np.int32(smooth[c, y, x]) - np.int32(smooth[c, y + 1, x])
                total[x] += difference * difference
        for x in range(width):
            down[y, x] = total[x]
    return right, down


@compiled
def _cluster(
    right: npt.NDArray[np.float32], down: npt.NDArray[np.float32], mantissa: int
) -> tuple[Int32Array, Int32Array, Int32Array]:
    """Join each pixel to the neighbour across its lightest edge, of equal ones that with the lowest number."""
    height, width = right.shape
    # The bits of a positive float, read as an integer, are in its own order.
    across, along = right.view(np.int32), down.view(np.int32)
    target = np.empty((height, width), np.int32)
    lightest = np.empty((height, width), np.int32)
    never = np.int32(0x7F800000)  # the bits of infinity
    above = np.full(width, never, np.int32)
    before = np.full(width, never, np.int32)
    for y in range(height):
        for x in range(1, width):
            before[x] = across[y, x - 1]
        for x in range(width):
            # In the order of the edges' numbers: with a strict order no ring of pixels can form.
            bits, other = above[x], -width
            if before[x] < bits:
                bits, other = before[x], -1
            if across[y, x] < bits:
                bits, other = across[y, x], 1
            if along[y, x] < bits:
                bits, other = along[y, x], width
            target[y, x] = y * width + x + (other if bits < never else 0)
            lightest[y, x] = max((bits >> (23 - mantissa)) - ((127 << mantissa) - 1), 0) if bits < never else 0
        for x in range(width):
            above[x] = along[y, x]
    return _number_clusters(target.reshape(-1), lightest.reshape(-1), height, width)


@compiled
def _number_clusters(
    target: Int32Array, lightest: Int32Array, height: int, width: int
) -> tuple[Int32Array, Int32Array, Int32Array]:
    """Number the clusters by their first pixels. target, lightest: (n,) int32, each pixel's lightest edge: its key, and
    the pixel that it leads to.

    From every pixel the way ends at two that lead to each other: each edge on it is lighter than the one before.
    """
    n = height * width
    clusters = np.full(n, -1, np.int32)
    sizes = np.zeros(n, np.int32)
    heaviest = np.zeros(n, np.int32)
    path = np.empty(n, np.int32)
    on_path = np.int32(-2)
    count = 0
    for p in range(n):
        if clusters[p] >= 0:
            continue
        length = 0
        q = p
        while clusters[q] == -1:
            clusters[q] = on_path
            path[length] = q
            length += 1
            q = target[q]
        cluster = clusters[q]
        if cluster == on_path:
            cluster = count
            count += 1
        for i in range(length):
            clusters[path[i]] = cluster
            heaviest[cluster] = max(heaviest[cluster], lightest[path[i]])
        sizes[cluster] += length
    return clusters.reshape(height, width), sizes[:count].copy(), heaviest[:count].copy()


@compiled
def _sorted_edges(
    right: npt.NDArray[np.float32], down: npt.NDArray[np.float32], clusters: Int32Array, mantissa: int, n_keys: int
) -> tuple[Int32Array, Int32Array]:
    """Edges between clusters by key, without the heaviest of each face: a counting sort, equal keys in edge order."""
    height, width = right.shape
    across, along = right.view(np.int32), down.view(np.int32)
    # Of equal edges around a face the one with the highest number is the heaviest: top < left < other < bottom.
    wanted = np.empty(2 * width, np.uint8)
    found = np.empty(2 * height * width + 1, np.int32)
    count = 0
    for y in range(height):
        for x in range(width):
            wanted[2 * x] = clusters[y, x] != clusters[y, min(x + 1, width - 1)]
            wanted[2 * x + 1] = clusters[y, x] != clusters[min(y + 1, height - 1), x]
        if y + 1 < height:
            for x in range(width - 1):
                top, bottom, left, other = across[y, x], across[y + 1, x], along[y, x], along[y, x + 1]
                wanted[2 * x] &= (top <= bottom) | (top <= left) | (top <= other)
                wanted[2 * x + 1] &= (left < top) | (left <= bottom) | (left <= other)
            for x in range(1, width):
                top, bottom, left, other = across[y, x - 1], across[y + 1, x - 1], along[y, x - 1], along[y, x]
                wanted[2 * x + 1] &= (other < top) | (other <= bottom) | (other < left)
        if y > 0:
            for x in range(width - 1):
                top, bottom, left, other = across[y - 1, x], across[y, x], along[y - 1, x], along[y - 1, x + 1]
                wanted[2 * x] &= (bottom < top) | (bottom < left) | (bottom < other)
        for i in range(2 * width):
            # Without a branch, of which one couldn't foresee the way.
            found[count] = 2 * y * width + i
            count += wanted[i]
    keys = np.empty(count, np.int32)
    places = np.zeros(n_keys + 1, np.int32)
    flat_across, flat_along, flat = across.reshape(-1), along.reshape(-1), clusters.reshape(-1)
    for i in range(count):
        p = found[i] >> 1
        bits = flat_along[p] if found[i] & 1 else flat_across[p]
        keys[i] = max((bits >> (23 - mantissa)) - ((127 << mantissa) - 1), 0)
        places[keys[i] + 1] += 1
    for key in range(n_keys):
        places[key + 1] += places[key]
    edges = np.empty((count, 2), np.int32)
    sorted_keys = np.empty(count, np.int32)
    for i in range(count):
        p = found[i] >> 1
        place = places[keys[i]]
        places[keys[i]] = place + 1
        edges[place, 0] = flat[p]
        edges[place, 1] = flat[p + width] if found[i] & 1 else flat[p + 1]
        sorted_keys[place] = keys[i]
    return edges, sorted_keys


@compiled
def _segment(
    clusters: Int32Array,
    sizes: Int32Array,
    heaviest: Int32Array,
    edges: Int32Array,
    keys: Int32Array,
    weights: npt.NDArray[np.float32],
    k: np.float32,
    min_size: int,
) -> tuple[Int32Array, int]:
    m = len(sizes)
    parent = np.empty(m, np.int32)
    size = sizes.copy()
    bound = np.empty(m, np.float32)  # how heavy an edge a segment still takes, section 3.1
    for c in range(m):
        parent[c] = c
        bound[c] = weights[heaviest[c]] + k / np.float32(size[c])
    refused = np.empty((len(edges), 2), np.int32)
    n_refused = 0
    for i in range(len(edges)):
        a, b = edges[i, 0], edges[i, 1]
        while parent[a] != a:
            parent[a] = parent[parent[a]]
            a = parent[a]
        while parent[b] != b:
            parent[b] = parent[parent[b]]
            b = parent[b]
        if a == b:
            continue
        weight = weights[keys[i]]
        if weight <= bound[a] and weight <= bound[b]:
            if size[a] < size[b]:
                a, b = b, a
            parent[b] = a
            size[a] += size[b]
            # Int(C) + k / |C|, but for an edge inside a cluster that was heavier: see the top of the file.
            bound[a] = weight + k / np.float32(size[a])
        else:
            refused[n_refused, 0], refused[n_refused, 1] = a, b
            n_refused += 1
    # Only an edge that was refused can join a small segment to a neighbour.
    for i in range(n_refused):
        a, b = refused[i, 0], refused[i, 1]
        while parent[a] != a:
            parent[a] = parent[parent[a]]
            a = parent[a]
        while parent[b] != b:
            parent[b] = parent[parent[b]]
            b = parent[b]
        if a != b and (size[a] < min_size or size[b] < min_size):
            if size[a] < size[b]:
                a, b = b, a
            parent[b] = a
            size[a] += size[b]
    # Clusters are numbered in the order of their first pixels, so their segments are met in that order too.
    label_of = np.full(m, -1, np.int32)
    count = 0
    for c in range(m):
        root = c
        while parent[root] != root:
            root = parent[root]
        if label_of[root] < 0:
            label_of[root] = count
            count += 1
        parent[c] = root
        label_of[c] = label_of[root]
    height, width = clusters.shape
    labels = np.empty((height, width), np.int32)
    for y in range(height):
        for x in range(width):
            labels[y, x] = label_of[clusters[y, x]]
    return labels, count


_WEIGHTS = _weights()
