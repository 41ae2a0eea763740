"""RoIAlign on a CPU (Mask R-CNN, He et al. 2017, section 3), forward and backward, as compiled code.

Bins and sampling points are as in torchvision's `roi_align(sampling_ratio=2, aligned=True)`: a bin is the mean of
2 x 2 bilinear samples. The weight of a cell in a bin is a weight of its row times a weight of its column, at most
four rows and four columns. So cells are first summed over the rows of a bin, for all columns of a region at once, then
over the columns of each bin. Channels are the innermost loop, so the compiler uses vector instructions.

Sums have a fixed order for any number of threads: regions are split for the forward pass, channels for the backward
pass.

R: number of regions. C: channels. P: side of a pooled region. N: number of images. L: number of maps.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from detpipe.jit import compiled, explained
from detpipe.structures import Float32Array, Int64Array

UInt16Array = npt.NDArray[np.uint16]
UInt64Array = npt.NDArray[np.uint64]

SAMPLES = 2
"""Sampling points per side of a bin (section 3: 4 points per bin)."""

PARALLEL_FROM = 64
"""Smallest number of regions for which several threads are used."""

LANES = 16
"""In the backward pass a thread has a multiple of this number of channels: a cache line of float32."""

MOST_CELLS = 2 * SAMPLES
"""Of a bin, per axis: two of each sample."""


def align(maps: Sequence[Tensor], strides: Sequence[int], regions: Tensor, levels: Tensor, size: int) -> Tensor:
    """Pool each region from its map: L maps (N, C, H / stride, W / stride), (R, 5), (R,) -> (R, C, P, P).

    regions: float32 (image index, x1, y1, x2, y2), in pixels of the network's input. levels: the map of each region,
    int64 in 0..L - 1. Sums are in float32; the result is bf16 for bf16 maps, else float32. The gradients of the maps
    have the maps' precision. Maps with `channels_last` are read without a copy. R = 0 gives (0, C, P, P).
    """
    _warm_up()
    aligned: Tensor = _Align.apply(regions, levels, tuple(strides), size, *maps)
    return aligned


class _Align(torch.autograd.Function):
    """The two passes of `align`."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, regions: Tensor, levels: Tensor, strides: Sequence[int], size: int, *maps: Tensor
    ) -> Tensor:
        """See `align`."""
        boxes = regions.detach().float().contiguous().numpy()
        level = levels.numpy()
        dtype = torch.bfloat16 if maps[0].dtype == torch.bfloat16 else torch.float32
        pooled = torch.empty((len(boxes), maps[0].shape[1], size, size), dtype=dtype)
        floats, bits = np.zeros(0, dtype=np.float32), np.zeros(0, dtype=np.uint16)
        if dtype is torch.bfloat16:
            bits = pooled.view(torch.int16).numpy().view(np.uint16).reshape(-1)
        else:
            floats = pooled.numpy().reshape(-1)
        threads = torch.get_num_threads() if len(boxes) >= PARALLEL_FROM else 1
        jobs = []
        for number, (one, stride) in enumerate(zip(maps, strides, strict=True)):
            cells = np.asarray(one.detach().float().permute(0, 2, 3, 1).contiguous().numpy())
            for rows in np.array_split(np.flatnonzero(level == number), threads):
                scale = np.float32(1 / stride)
                height, width, depth = cells.shape[1:]
                place = (cells.reshape(-1), height, width, depth)
                jobs.append(functools.partial(_pool, *place, boxes, rows, scale, size))
        _run([functools.partial(job, floats, bits) for job in jobs], threads)
        ctx.boxes, ctx.level, ctx.strides, ctx.size = boxes, level, strides, size  # type: ignore[attr-defined]
        ctx.kinds = [(one.shape, one.dtype) for one in maps]  # type: ignore[attr-defined]
        return pooled

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of the maps."""
        boxes, level, strides, size = ctx.boxes, ctx.level, ctx.strides, ctx.size  # type: ignore[attr-defined]
        upstream = gradient.detach().float().contiguous().numpy().reshape(-1)
        threads = torch.get_num_threads() if len(boxes) >= PARALLEL_FROM else 1
        jobs, found = [], []
        for number, ((shape, _), stride) in enumerate(zip(ctx.kinds, strides, strict=True)):  # type: ignore[attr-defined]
            images, depth, height, width = shape
            rows = np.flatnonzero(level == number)
            parts = []
            for first, count in _parts(depth, threads):
                part = torch.zeros((images, height, width, count))
                parts.append(part)
                place = (height, width, depth, first, count)
                cells = part.numpy().reshape(-1)
                jobs.append(functools.partial(_spread, cells, *place, boxes, rows, np.float32(1 / stride), size))
            found.append(parts)
        _run([functools.partial(job, upstream) for job in jobs], threads)
        gradients = [
            (torch.cat(parts, dim=3) if len(parts) > 1 else parts[0]).to(dtype).permute(0, 3, 1, 2)
            for parts, (_, dtype) in zip(found, ctx.kinds, strict=True)  # type: ignore[attr-defined]
        ]
        return None, None, None, None, *gradients


def _run(jobs: Sequence[Callable[[], None]], threads: int) -> None:
    if threads == 1:
        for job in jobs:
            job()
        return
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(job) for job in jobs]:
            done.result()


def _parts(depth: int, threads: int) -> list[tuple[int, int]]:
    """The first channel and the number of channels of each thread's part."""
    step = -(-depth // (threads * LANES)) * LANES
    return [(first, min(step, depth - first)) for first in range(0, depth, step)]


@functools.cache
def _warm_up() -> None:
    """Load or compile the code, once per process, with a log line if it takes long."""
    nothing, none, bits = np.zeros(0, np.float32), np.zeros((0, 5), np.float32), np.zeros(0, np.uint16)
    rows, one = np.zeros(0, np.int64), np.float32(1)
    with explained("RoIAlign"):
        _pool(nothing, 1, 1, 1, none, rows, one, 1, nothing, bits)
        _spread(nothing, 1, 1, 1, 0, 1, none, rows, one, 1, nothing)


# --- Compiled ---------------------------------------------------------------------------------------------------------
# Indices are unsigned, because numba allows negative ones otherwise, and the compiler then finds no vector loop.


@compiled
def _pool(
    values: Float32Array,
    height: int,
    width: int,
    depth: int,
    boxes: Float32Array,
    rows: Int64Array,
    scale: np.float32,
    size: int,
    floats: Float32Array,
    bits: UInt16Array,
) -> None:
    """Pool the regions `rows` of `boxes` (R, 5) from a flat map (N, H, W, C) into their rows of (R, C, P, P).

    The result goes to `floats`, or rounded to bf16 to `bits`, whichever is not empty; both are flat.
    """
    x_starts, x_weights, x_counts = _nothing_yet(size)
    y_starts, y_weights, y_counts = _nothing_yet(size)
    line = np.empty(width * depth, np.float32)
    sums = np.empty(size * size * depth, np.float32)
    integers = sums.view(np.uint32)
    short = np.empty(size * size * depth, np.uint16)
    for row in rows:
        length = _cells_of(
            boxes, row, scale, size, height, width, depth,
            x_starts, x_weights, x_counts, y_starts, y_weights, y_counts,
        )  # fmt: skip
        for y in range(size):
            _sum(values, y_starts, y_weights, y, y_counts[y], line, np.uint64(0), length)
            for x in range(size):
                to = np.uint64((y * size + x) * depth)
                _sum(line, x_starts, x_weights, x, x_counts[x], sums, to, np.uint64(depth))
        to = np.uint64(row * depth * size * size)
        if len(bits):
            _round(integers, short)
            _transpose(short, np.uint64(size * size), np.uint64(depth), bits, to)
        else:
            _transpose(sums, np.uint64(size * size), np.uint64(depth), floats, to)


@compiled
def _spread(
    values: Float32Array,
    height: int,
    width: int,
    depth: int,
    first: int,
    count: int,
    boxes: Float32Array,
    rows: Int64Array,
    scale: np.float32,
    size: int,
    upstream: Float32Array,
) -> None:
    """Add the gradients of the regions `rows` to the gradient of a map.

    values: (N, H, W, count), the gradient of the channels from `first`, flat. upstream: (R, C, P, P), flat.
    """
    x_starts, x_weights, x_counts = _nothing_yet(size)
    y_starts, y_weights, y_counts = _nothing_yet(size)
    line = np.empty(width * count, np.float32)
    own = np.empty(size * size * count, np.float32)
    for row in rows:
        length = _cells_of(
            boxes, row, scale, size, height, width, count,
            x_starts, x_weights, x_counts, y_starts, y_weights, y_counts,
        )  # fmt: skip
        begin = np.uint64((row * depth + first) * size * size)
        _transpose_back(upstream, begin, np.uint64(size * size), np.uint64(count), own)
        for y in range(size):
            for k in range(length):
                line[k] = 0
            for x in range(size):
                at = np.uint64((y * size + x) * count)
                _add(own, at, np.uint64(count), line, x_starts, x_weights, x, x_counts[x])
            _add(line, np.uint64(0), length, values, y_starts, y_weights, y, y_counts[y])


@compiled
def _nothing_yet(size: int) -> tuple[UInt64Array, Float32Array, Int64Array]:
    """The cells of P bins along one axis: where they start in a flat array, their weights, and their number."""
    return np.zeros((size, MOST_CELLS), np.uint64), np.zeros((size, MOST_CELLS), np.float32), np.zeros(size, np.int64)


@compiled
def _cells_of(
    boxes: Float32Array,
    row: int,
    scale: np.float32,
    size: int,
    height: int,
    width: int,
    depth: int,
    x_starts: UInt64Array,
    x_weights: Float32Array,
    x_counts: Int64Array,
    y_starts: UInt64Array,
    y_weights: Float32Array,
    y_counts: Int64Array,
) -> np.uint64:
    """Fill the tables of one region's bins. Returns the length of its lines: columns times channels.

    x_starts: positions in such a line. y_starts: positions of lines in the map (N, H, W, C).
    """
    half = np.float32(0.5)
    left, top = boxes[row, 1] * scale - half, boxes[row, 2] * scale - half
    right, bottom = boxes[row, 3] * scale - half, boxes[row, 4] * scale - half
    _cells_along(left, (right - left) / np.float32(size), width, x_starts, x_weights, x_counts)
    _cells_along(top, (bottom - top) / np.float32(size), height, y_starts, y_weights, y_counts)
    least, most = np.uint64(width), np.uint64(0)
    for x in range(size):
        for i in range(x_counts[x]):
            least, most = min(least, x_starts[x, i]), max(most, x_starts[x, i] + np.uint64(1))
    above = np.uint64(int(boxes[row, 0]) * height)
    for one in range(size):
        for i in range(x_counts[one]):
            x_starts[one, i] = (x_starts[one, i] - least) * np.uint64(depth)
        for i in range(y_counts[one]):
            y_starts[one, i] = ((above + y_starts[one, i]) * np.uint64(width) + least) * np.uint64(depth)
    return (most - least) * np.uint64(depth) if most > least else np.uint64(0)


@compiled
def _cells_along(
    start: np.float32,
    step: np.float32,
    limit: int,
    cells: UInt64Array,
    weights: Float32Array,
    counts: Int64Array,
) -> None:
    """The different cells of each bin along one axis of `limit` cells, and their weights.

    A sample more than one cell outside of the map is 0 (no cells). Others are moved to the nearest cell's centre. The
    steps and their order are as in torchvision's kernel, in float32.
    """
    share = np.float32(1 / SAMPLES)
    for one in range(len(counts)):
        count = 0
        for sample in range(SAMPLES):
            offset = (np.float32(sample) + np.float32(0.5)) * step / np.float32(SAMPLES)
            at = start + np.float32(one) * step + offset
            if not (at >= np.float32(-1) and at <= np.float32(limit)):  # also true for NaN
                continue
            at = max(at, np.float32(0))
            low = min(int(at), limit - 1)
            beyond = at - np.float32(low) if low < limit - 1 else np.float32(0)
            for cell, weight in ((low, np.float32(1) - beyond), (low + 1, beyond)):
                if weight == 0:
                    continue
                place = 0
                while place < count and cells[one, place] != np.uint64(cell):
                    place += 1
                if place == count:
                    cells[one, place], weights[one, place] = np.uint64(cell), np.float32(0)
                    count += 1
                weights[one, place] += share * weight
        counts[one] = count


@compiled
def _sum(
    source: Float32Array,
    starts: UInt64Array,
    weights: Float32Array,
    row: int,
    count: int,
    target: Float32Array,
    to: np.uint64,
    length: np.uint64,
) -> None:
    """target[to + k] = the sum over i < count of weights[row, i] source[starts[row, i] + k], for k < length."""
    a, b, c, d = starts[row, 0], starts[row, 1], starts[row, 2], starts[row, 3]
    p, q, r, s = weights[row, 0], weights[row, 1], weights[row, 2], weights[row, 3]
    if count == 4:
        for k in range(length):
            target[to + k] = p * source[a + k] + q * source[b + k] + r * source[c + k] + s * source[d + k]
    elif count == 3:
        for k in range(length):
            target[to + k] = p * source[a + k] + q * source[b + k] + r * source[c + k]
    elif count == 2:
        for k in range(length):
            target[to + k] = p * source[a + k] + q * source[b + k]
    elif count == 1:
        for k in range(length):
            target[to + k] = p * source[a + k]
    else:
        for k in range(length):
            target[to + k] = 0


@compiled
def _add(
    source: Float32Array,
    begin: np.uint64,
    length: np.uint64,
    target: Float32Array,
    starts: UInt64Array,
    weights: Float32Array,
    row: int,
    count: int,
) -> None:
    """target[starts[row, i] + k] += weights[row, i] source[begin + k], for i < count and k < length."""
    for i in range(count):
        to, weight = starts[row, i], weights[row, i]
        for k in range(length):
            target[to + k] += weight * source[begin + k]


@compiled
def _transpose(
    source: npt.NDArray[Any], height: np.uint64, width: np.uint64, target: npt.NDArray[Any], to: np.uint64
) -> None:
    """Write the transpose of a flat (height, width) array to target, from `to`."""
    for x in range(width):
        for y in range(height):
            target[to + x * height + y] = source[y * width + x]


@compiled
def _transpose_back(
    source: Float32Array, begin: np.uint64, height: np.uint64, width: np.uint64, target: Float32Array
) -> None:
    """The inverse of `_transpose`: target gets the transpose of (width, height) numbers of source, from `begin`."""
    for y in range(height):
        for x in range(width):
            target[y * width + x] = source[begin + x * height + y]


@compiled
def _round(source: npt.NDArray[np.uint32], target: UInt16Array) -> None:
    """The bits of float32 numbers to the bits of bf16: to the nearest, ties to even. NaN stays NaN."""
    for k in range(len(source)):
        one = source[k]
        nearest = (one + np.uint32(0x7FFF) + ((one >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
        if one & np.uint32(0x7FFFFFFF) > np.uint32(0x7F800000):
            nearest = np.uint32(0x7FC0)
        target[k] = np.uint16(nearest)
