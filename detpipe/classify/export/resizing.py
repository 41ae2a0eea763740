"""Resizing in the graph, as `detpipe.resize` and `Scaling` compute it with OpenCV.

Along a side that shrinks, each pixel is the mean of the area it covers. In units of 1 / (old length x new length), the
borders of pixels are whole numbers, so the weights are exact fractions of integers. Along a side that grows, OpenCV
interpolates with weights of 11 bits, and its integer arithmetic is repeated here. Results differ from OpenCV's in few
pixels, by 1.
"""

from __future__ import annotations

import numpy as np

from detpipe.classify.export.onnx_graph import Graph, Value

WEIGHT_ONE = 2048
"""OpenCV's weights of bilinear interpolation are multiples of 1 / 2048."""


def size_by_side(height: Value, width: Value, shorter: int, longest: int) -> tuple[Value, Value]:
    """The size of the scaled image, as in `Scaling.to_side`: scalars int64 -> (height, width), int64."""
    factor = _quotient(shorter, height.at_most(width)).at_most(_quotient(longest, height.at_least(width)))
    return _nearest(height, factor, 1), _nearest(width, factor, 1)


def size_by_multiples(height: Value, width: Value, side: int, step: int, most: int) -> tuple[Value, Value]:
    """The size of the scaled image, as in `shown_size` of the features: multiples of `step`, at most `most`."""
    factor = _quotient(side, height.at_most(width))
    new_height, new_width = _nearest(height, factor, step), _nearest(width, factor, step)
    return (new_height * step).at_most(most), (new_width * step).at_most(most)


def _quotient(over: int, under: Value) -> Value:
    """In float64, as in Python, because sides are often halfway between two numbers."""
    return under.graph.value(over, np.float64) / under.to(np.float64)


def _nearest(side: Value, factor: Value, step: int) -> Value:
    """side * factor / step to the nearest integer, halves to the even one, at least 1."""
    length = side.to(np.float64) * factor / float(step)
    return side.graph.op("Round", length).to(np.int64).at_least(1)


def resized(graph: Graph, image: Value, height: Value, width: Value, to_height: Value, to_width: Value) -> Value:
    """Resize an image: (H, W, 3) uint8 or float32 -> (H', W', 3) float32 with whole numbers from 0 to 255.

    The passes along the width work on the transposed image: in all passes the resized axis is the first one, and rows
    are contiguous, which is several times faster.
    """
    short, narrow = to_height.at_most(height), to_width.at_most(width)
    rows = area_mean(graph, image.reshape(height, -1), height, short)  # (short, 3 W)
    columns = rows.transpose(1, 0).reshape(width, -1)  # (W, 3 short)
    columns = area_mean(graph, columns, width, narrow)
    # OpenCV rounds halves to the even number, but up if both sides are exactly halved.
    halved = (short * 2).equals(height) & (narrow * 2).equals(width)
    up = halved.to(np.float32) * TO_UP
    columns = graph.op("Round", columns + up)
    left, right, of_left, of_right = _neighbours(graph, width=narrow, to_width=to_width)
    columns = columns.take(left) * of_left + columns.take(right) * of_right
    columns = graph.op("Floor", columns * (1 / 16))
    rows = columns.reshape(-1, short).transpose(1, 0)  # (short, 3 W')
    top, bottom, of_top, of_bottom = _neighbours(graph, width=short, to_width=to_height)
    upper = graph.op("Floor", rows.take(top) * (of_top * (1 / 65536)))
    lower = graph.op("Floor", rows.take(bottom) * (of_bottom * (1 / 65536)))
    grown = graph.op("Floor", (upper + lower + 2) * 0.25)
    return grown.reshape(to_height, to_width, 3)


TO_UP = 1 / 1024
"""Added to means of four pixels, which are multiples of 1/4, so that halves are rounded up."""


def area_mean(graph: Graph, pixels: Value, length: Value, to_length: Value) -> Value:
    """Shrink the first axis by area averaging: (n, a) -> (m, a) float32, m <= n."""
    index = graph.range(to_length).unsqueeze(1)
    count = (length + to_length - 1) / to_length + 1  # T, the most pixels that a result covers a part of
    taps = index * length / to_length + graph.range(count).unsqueeze(0)  # (m, T)
    end = ((taps + 1) * to_length).at_most((index + 1) * length)
    overlap = (end - (taps * to_length).at_least(index * length)).at_least(0)
    weights = overlap.to(np.float32) / length.to(np.float32)
    covered = pixels.take(taps.at_most(length - 1)).to(np.float32)  # (m, T, a)
    return graph.matmul(weights.unsqueeze(1), covered).squeeze(1)


def _neighbours(graph: Graph, *, width: Value, to_width: Value) -> tuple[Value, Value, Value, Value]:
    """The two pixels that each result lies between, (m,) each, and their weights in 1 / 2048, (m, 1) each.

    If the length stays the same, the weights are 2048 and 0.
    """
    index = graph.range(to_width)
    place = ((index * 2 + 1) * width - to_width).at_least(0)  # in units of 1 / (2 m)
    low = place / (to_width * 2)
    share = (place - low * to_width * 2).to(np.float32) / (to_width * 2).to(np.float32)
    of_high = graph.op("Round", share * WEIGHT_ONE).unsqueeze(1)
    of_low = graph.op("Round", (1 - share) * WEIGHT_ONE).unsqueeze(1)
    return low, (low + 1).at_most(width - 1), of_low, of_high
