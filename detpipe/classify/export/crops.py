"""The graph of R-CNN: regions are cropped as `crop_regions` does it, and classified in batches.

A region is read from a copy of the image that is halved as often on each axis as the region shrinks. All copies are
flattened into one list of pixels, in which a crop looks up the four neighbours of each of its pixels.

R: regions, with the spare one at the end. S: side of a crop. K: classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from detpipe.classify.crops.crop import crop_regions
from detpipe.classify.crops.network import RcnnNetwork, RcnnSpec
from detpipe.classify.crops.settings import REFERENCE_SIDE, CropConfig, CropMode
from detpipe.classify.export.detector_graph import DetectorExport, Found, finished, given_regions
from detpipe.classify.export.onnx_graph import Graph, Value
from detpipe.classify.export.resizing import resized
from detpipe.classify.export.selection import decoded, limits
from detpipe.classify.export.traced_part import traced
from detpipe.classify.settings import DetectConfig
from detpipe.structures import Float32Array, Image

BATCH = 32
"""Number of regions that are cropped and classified together. It bounds the memory."""

LARGEST_REGION = 4096
"""Side in pixels up to which a region's copies of the image are in the graph. Larger regions use the smallest copy."""


class _CropPart(nn.Module):
    """(N, S, S, 3) uint8 -> probabilities (N, K + 1), deltas (N, K, 4)."""

    def __init__(self, network: RcnnNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, crops: Tensor) -> tuple[Tensor, ...]:
        logits, deltas = self.network(crops)
        probabilities = logits.softmax(dim=1)
        return (probabilities,) if deltas is None else (probabilities, deltas)


class RcnnExport(DetectorExport):
    """The graph from image and boxes to detections."""

    CONVOLUTIONS = "crops"

    def __init__(self, network: RcnnNetwork, spec: RcnnSpec, config: DetectConfig) -> None:
        self._crops, self.config = spec.crops, config
        crops = torch.zeros((2, spec.crops.size, spec.crops.size, 3), dtype=torch.uint8)
        self.parts = {"crops": traced(_CropPart(network), {"crops": crops}, {"crops": {0: 1}})}

    def samples(self, image: Image, boxes: Float32Array) -> Iterator[npt.NDArray[np.uint8]]:
        """A batch of evenly spaced regions of the image."""
        rows = np.linspace(0, len(boxes) - 1, min(BATCH, len(boxes))).round().astype(int)
        if len(rows):
            yield crop_regions(image, boxes[rows], self._crops)

    def detections(self, graph: Graph, image: Value, proposals: Value | None) -> Found:
        """The graph of one image."""
        assert proposals is not None
        height, width = image.size(0), image.size(1)
        most = limits(graph, height, width)
        regions = given_regions(graph, proposals, most, self.config.max_proposals)

        def scored(inner: Graph, crops: Value) -> list[Value]:
            return inner.call(self.parts["crops"], [crops], "crops")

        results = in_batches(graph, regions.boxes, ripmap(graph, image, self._crops), scored)
        moved = decoded(graph, regions.boxes.unsqueeze(1), results[1]) if len(results) > 1 else None
        return finished(graph, regions, moved, results[0], most, self.config)


OfCrops = Callable[[Graph, Value], list[Value]]
"""Takes the graph of a batch and its crops (N, S, S, 3) uint8, and returns results (N, ...)."""


@dataclass(frozen=True, eq=False)
class Ripmap:
    """The copies of an image. pixels: (P, 3) uint8, all of them; the last pixel is the colour outside of the image.

    width, height: of each copy, (L L,) int64. start: index of its first pixel. size: (2,) int64, width and height of
    the image. Copy (x, y) is number x L + y. levels: L.
    """

    pixels: Value
    width: Value
    height: Value
    start: Value
    size: Value
    levels: int
    config: CropConfig


def ripmap(graph: Graph, image: Value, config: CropConfig) -> Ripmap:
    """Halve an image (H, W, 3) repeatedly on each axis, as `crop_regions` does it."""
    enlarged = LARGEST_REGION * REFERENCE_SIDE / (REFERENCE_SIDE - 2 * config.context_pad)
    levels = math.floor(math.log2(max(enlarged / config.size, 1))) + 1
    height, width = image.size(0), image.size(1)
    widths, heights, pixels = [], [], []
    for halvings_x in range(levels):
        for halvings_y in range(levels):
            new_width = (width / 2**halvings_x).at_least(1)
            new_height = (height / 2**halvings_y).at_least(1)
            copy = image.to(np.float32)
            if halvings_x or halvings_y:
                copy = resized(graph, image, height, width, new_height, new_width)
            widths.append(new_width.reshape(1))
            heights.append(new_height.reshape(1))
            pixels.append(copy.reshape(-1, 3).to(np.uint8))
    pixels.append(graph.value([config.fill], np.uint8))
    all_widths, all_heights = graph.concat(widths, axis=0), graph.concat(heights, axis=0)
    counts = all_widths * all_heights
    end = graph.op("CumSum", counts, graph.value(0, np.int64))
    return Ripmap(
        graph.concat(pixels, axis=0), all_widths, all_heights, end - counts, graph.shape(width, height), levels, config
    )


def in_batches(graph: Graph, boxes: Value, source: Ripmap, function: OfCrops) -> list[Value]:
    """The results of a function on the crops of all regions (R, 4), BATCH at a time: each (R, ...)."""
    count = boxes.size(0)
    rounds = (count + BATCH - 1) / BATCH
    # The last batch is filled up with the spare region, the last one.
    rows = graph.range(rounds * BATCH).at_most(count - 1)
    batches = boxes.take(rows).reshape(-1, BATCH, 4)

    def body(inner: Graph, index: Value) -> list[Value]:
        batch = inner.use(batches).take(index)
        return function(inner, _cropped(inner, batch, source))

    results = []
    for one in graph.loop(rounds, body):
        tail = graph.op("Shape", one, start=2, dtype=np.int64)
        flat = graph.op("Reshape", one, graph.concat([graph.value([-1], np.int64), tail], axis=0))
        results.append(flat.part(0, count, 0))
    return results


def _cropped(graph: Graph, boxes: Value, source: Ripmap) -> Value:
    """The crops of regions (N, 4): (N, S, S, 3) uint8, as `crop_regions`."""
    config, side = source.config, source.config.size
    low, size = boxes.part(0, 2, 1), boxes.part(2, 4, 1) - boxes.part(0, 2, 1)
    centre = low + size * 0.5
    if config.mode is CropMode.square:
        size = size.maximum(1) + size * 0.0
    size = size * (REFERENCE_SIDE / (REFERENCE_SIDE - 2 * config.context_pad))
    corner = centre - size * 0.5
    # For each axis, the level at which the region shrinks by less than 2.
    ratio = size / float(side)
    level = graph.value(np.zeros((1, 1)), np.int64)
    for step in range(1, source.levels):
        level = level + (ratio >= float(2**step)).to(np.int64)
    number = level.take(0, 1) * source.levels + level.take(1, 1)  # (N,)
    width, height = graph.use(source.width).take(number), graph.use(source.height).take(number)
    shown = graph.concat([width.unsqueeze(1), height.unsqueeze(1)], axis=1)  # (N, 2)
    to_level = shown.to(np.float32) / graph.use(source.size).to(np.float32)
    scale = ratio * to_level
    # Pixel centres of the crop in pixel centres of the copy; this gives the halves.
    first = corner * to_level + scale * 0.5 - 0.5
    steps = graph.value(np.arange(side), np.float32)
    place = first.unsqueeze(2) + scale.unsqueeze(2) * steps  # (N, 2, S)
    floor = graph.op("Floor", place)
    share = place - floor
    low_cell = floor.to(np.int64)
    high_cell = low_cell + 1
    last = shown.unsqueeze(2)
    start = graph.use(source.start).take(number).reshape(-1, 1, 1)
    pixels = graph.use(source.pixels)
    outside = pixels.size(0) - 1

    def axis(cells: Value, which: int) -> tuple[Value, Value]:
        cell, limit = cells.take(which, 1), last.take(which, 1)
        return cell.at_least(0).at_most(limit - 1), (cell >= 0) & (cell < limit)

    def corner_pixels(rows: Value, columns: Value) -> Value:
        (y, y_inside), (x, x_inside) = axis(rows, 1), axis(columns, 0)
        index = start + y.unsqueeze(2) * width.reshape(-1, 1, 1) + x.unsqueeze(1)  # (N, S, S)
        inside = y_inside.unsqueeze(2) & x_inside.unsqueeze(1)
        return pixels.take(graph.where(inside, index, outside)).to(np.float32)

    right, down = share.take(0, 1).unsqueeze(1, 3), share.take(1, 1).unsqueeze(2, 3)
    upper = corner_pixels(low_cell, low_cell)
    upper = upper + (corner_pixels(low_cell, high_cell) - upper) * right
    lower = corner_pixels(high_cell, low_cell)
    lower = lower + (corner_pixels(high_cell, high_cell) - lower) * right
    return graph.op("Round", upper + (lower - upper) * down).to(np.uint8)
