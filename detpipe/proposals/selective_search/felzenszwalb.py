"""Efficient graph-based segmentation (Felzenszwalb and Huttenlocher, IJCV 2004), in integers and exactly
rounded operations.

h, w: height and width. n: pixels, counted row by row. C: channels. An edge joins pixel e // 2 with its right (e
even) or lower (e odd) neighbour: edges are numbers from 0 to 2 n - 1. M: clusters. R: segments.

It differs from the paper for speed (the proposals are as good, see BENCHMARKS.md):
- Pixels have four neighbours, as in OpenCV, not eight.
- First each pixel is merged with the neighbour across its lightest edge (one step of Boruvka's algorithm). This leaves
  a fifth of the edges, between clusters of about four pixels, to sort and to decide. A segment starts with the
  tolerance of a cluster, k / 4, not of a pixel, k, and its first merge ignores the heaviest edge inside the cluster. So
  the same k gives more and smaller segments than the paper's, up to twice as many in smooth images.
- Of the four edges around each 2x2 face the heaviest is dropped. It closes a cycle of lighter edges, so it is in no
  minimum spanning tree. The method merges along such a tree, with rare exceptions.
- Weights are sorted by the leading bits of the squared distance, in steps of 0.2 %, ties in the order of the edges. One
  sort serves every k.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from detpipe.jit import compiled
from detpipe.proposals.selective_search.colour_spaces import Planes
from detpipe.structures import Float32Array

Int32Array = npt.NDArray[np.int32]

_BLUR_BITS = 4
"""Fractional bits of a blurred value: 1 is stored as 16."""
_MANTISSA = 8
"""Bits of the mantissa of the squared distance by which edges are sorted."""
_KEYS = 27 << _MANTISSA
"""Upper bound of the number of keys: squared distances are at most 3 x (255 x 16)^2 < 2^26."""
_OFFSET = (127 << _MANTISSA) - 1
"""Offset of the keys, so that squared distance 0 has key 0 and 1 has key 1 (127 is the exponent of 1.0)."""
_SCALE = float(1 << _BLUR_BITS)


class Graph(NamedTuple):
    """An image's clusters and the edges between them, from light to heavy.

    clusters: (h, w) int32, the cluster of each pixel, 0 to M - 1. sizes: (M,) int32, pixels. heaviest: (M,) int32, the
    key of the heaviest edge inside. edges: (E, 2) int32, the two clusters. keys: (E,) int32, indices into the table of
    weights.
    """

    clusters: Int32Array
    sizes: Int32Array
    heaviest: Int32Array
    edges: Int32Array
    keys: Int32Array


def build_graph(planes: Planes, sigma: float) -> Graph:
    """The graph of an image (C, h, w) uint8, blurred by a Gaussian of sigma pixels (0: no blur)."""
    across, along = _squared_distances(blur(planes, sigma))
    clusters, sizes, heaviest = _cluster(across, along)
    edges, keys = _sorted_edges(across, along, clusters)
    return Graph(clusters, sizes, heaviest, edges, keys)


def segment(graph: Graph, k: float, min_size: int) -> tuple[Int32Array, int]:
    """The segments of a graph: labels (h, w) int32 from 0 to R - 1 in the order of their first pixels, and R.

    k: scale; larger values give larger segments (section 3.2: a segment of s pixels tolerates k / s more difference).
    min_size: segments with fewer pixels are merged across their lightest edge. An image of one pixel has one label.
    """
    return _segment(*graph, _WEIGHTS, np.float32(k), min_size)


def blur(planes: Planes, sigma: float) -> npt.NDArray[np.int16]:
    """Gaussian blur, (C, h, w) uint8 -> (C, h, w) int16 in sixteenths; borders are mirrored (reflect 101)."""
    return _blur(planes, gaussian_kernel(sigma))


def gaussian_kernel(sigma: float) -> Int32Array:
    """A Gaussian cut at about four sigma, as in OpenCV: (2 r + 1,) int32 with sum 256."""
    if sigma <= 0:
        return np.array([256], dtype=np.int32)
    radius = (round(sigma * 8 + 1) | 1) // 2
    weights = [math.exp(-(x * x) / (2 * sigma * sigma)) for x in range(-radius, radius + 1)]
    kernel = np.array([round(256 * weight / sum(weights)) for weight in weights], dtype=np.int32)
    kernel[radius] += 256 - kernel.sum()
    return kernel


def _weights() -> Float32Array:
    """The distance for each key: the square root of the smallest squared distance with this key."""
    bits = (np.arange(_KEYS, dtype=np.int32) + _OFFSET) << (23 - _MANTISSA)
    weights = np.sqrt(bits.view(np.float32)) / np.float32(_SCALE)
    weights[0] = 0
    return np.asarray(weights, dtype=np.float32)


@compiled
def _key(bits: int) -> int:
    """The key of a squared distance, from the bits of its float32."""
    return max((bits >> (23 - _MANTISSA)) - _OFFSET, 0)


@compiled
def _blur(planes: Planes, kernel: Int32Array) -> npt.NDArray[np.int16]:
    channels, height, width = planes.shape
    radius = len(kernel) // 2
    smooth = np.empty((channels, height, width), np.int16)
    # Rows after the horizontal blur; each is used by the 2 r + 1 rows around it.
    rows = np.empty((height, width), np.int32)
    padded = np.empty(width + 2 * radius, np.int32)
    total = np.empty(width, np.int32)
    half = np.int32(1 << (15 - _BLUR_BITS))
    for c in range(channels):
        for y in range(height):
            for x in range(width):
                padded[radius + x] = planes[c, y, x]
            for x in range(1, radius + 1):
                # Mirrored; an image narrower than the kernel repeats its border.
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
                smooth[c, y, x] = (total[x] + half) >> (16 - _BLUR_BITS)
    return smooth


@compiled
def _squared_distances(smooth: npt.NDArray[np.int16]) -> tuple[Float32Array, Float32Array]:
    """Squared colour distances to the right and the lower neighbour, both (h, w) float32; infinite at the border."""
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
def _cluster(right: Float32Array, down: Float32Array) -> tuple[Int32Array, Int32Array, Int32Array]:
    """Merge each pixel with the neighbour across its lightest edge; ties by the edge number."""
    height, width = right.shape
    # The bits of positive floats, read as integers, have the same order as the floats.
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
            # In the order of the edge numbers: a strict order prevents cycles of pixels.
            bits, other = above[x], -width
            if before[x] < bits:
                bits, other = before[x], -1
            if across[y, x] < bits:
                bits, other = across[y, x], 1
            if along[y, x] < bits:
                bits, other = along[y, x], width
            target[y, x] = y * width + x + (other if bits < never else 0)
            lightest[y, x] = _key(bits) if bits < never else 0
        for x in range(width):
            above[x] = along[y, x]
    return _number_clusters(target.reshape(-1), lightest.reshape(-1), height, width)


@compiled
def _number_clusters(
    target: Int32Array, lightest: Int32Array, height: int, width: int
) -> tuple[Int32Array, Int32Array, Int32Array]:
    """Number the clusters in the order of their first pixels.

    target, lightest: (n,) int32, the pixel across each pixel's lightest edge, and the key of this edge. Every path
    along targets ends at two pixels that are each other's target, because each edge on it is lighter than the one
    before.
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
def _sorted_edges(right: Float32Array, down: Float32Array, clusters: Int32Array) -> tuple[Int32Array, Int32Array]:
    """Edges between clusters sorted by key, without the heaviest edge of each face. A stable counting sort."""
    height, width = right.shape
    across, along = right.view(np.int32), down.view(np.int32)
    # Among equal edges of a face, the one with the highest number counts as the heaviest: top < left < other < bottom.
    kept = np.empty(2 * width, np.uint8)
    found = np.empty(2 * height * width + 1, np.int32)
    count = 0
    for y in range(height):
        for x in range(width):
            kept[2 * x] = clusters[y, x] != clusters[y, min(x + 1, width - 1)]
            kept[2 * x + 1] = clusters[y, x] != clusters[min(y + 1, height - 1), x]
        if y + 1 < height:
            for x in range(width - 1):
                top, bottom, left, other = across[y, x], across[y + 1, x], along[y, x], along[y, x + 1]
                kept[2 * x] &= (top <= bottom) | (top <= left) | (top <= other)
                kept[2 * x + 1] &= (left < top) | (left <= bottom) | (left <= other)
            for x in range(1, width):
                top, bottom, left, other = across[y, x - 1], across[y + 1, x - 1], along[y, x - 1], along[y, x]
                kept[2 * x + 1] &= (other < top) | (other <= bottom) | (other < left)
        if y > 0:
            for x in range(width - 1):
                top, bottom, left, other = across[y - 1, x], across[y, x], along[y - 1, x], along[y - 1, x + 1]
                kept[2 * x] &= (bottom < top) | (bottom < left) | (bottom < other)
        for i in range(2 * width):
            # Branch-free: the branch would be unpredictable.
            found[count] = 2 * y * width + i
            count += kept[i]
    keys = np.empty(count, np.int32)
    starts = np.zeros(_KEYS + 1, np.int32)
    flat_across, flat_along, flat = across.reshape(-1), along.reshape(-1), clusters.reshape(-1)
    for i in range(count):
        p = found[i] >> 1
        bits = flat_along[p] if found[i] & 1 else flat_across[p]
        keys[i] = _key(bits)
        starts[keys[i] + 1] += 1
    for key in range(_KEYS):
        starts[key + 1] += starts[key]
    edges = np.empty((count, 2), np.int32)
    sorted_keys = np.empty(count, np.int32)
    for i in range(count):
        p = found[i] >> 1
        at = starts[keys[i]]
        starts[keys[i]] = at + 1
        edges[at, 0] = flat[p]
        edges[at, 1] = flat[p + width] if found[i] & 1 else flat[p + 1]
        sorted_keys[at] = keys[i]
    return edges, sorted_keys


@compiled
def _segment(
    clusters: Int32Array,
    sizes: Int32Array,
    heaviest: Int32Array,
    edges: Int32Array,
    keys: Int32Array,
    weights: Float32Array,
    k: np.float32,
    min_size: int,
) -> tuple[Int32Array, int]:
    m = len(sizes)
    parent = np.empty(m, np.int32)
    size = sizes.copy()
    bound = np.empty(m, np.float32)  # the heaviest edge that may merge a segment, section 3.1
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
            # Int(C) + k / |C|, ignoring heavier edges inside a cluster: see the top of the file.
            bound[a] = weight + k / np.float32(size[a])
        else:
            refused[n_refused, 0], refused[n_refused, 1] = a, b
            n_refused += 1
    # Only edges that did not merge two segments can connect a small segment to a neighbour.
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
    # Clusters are numbered in the order of their first pixels, so segments get this order, too.
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
