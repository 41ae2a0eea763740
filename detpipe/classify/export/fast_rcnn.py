"""The graph of Fast R-CNN, and of MultiBox and Fast R-CNN on shared maps: as `FastRcnnScorer` computes it.

R: regions, with one more at the end that is never detected, so that no tensor is empty. K: classes. L: maps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import Tensor, nn

from detpipe.classify.export.detector_graph import DetectorExport, Found, Regions, finished, given_regions, with_spare
from detpipe.classify.export.onnx_graph import Graph, Value
from detpipe.classify.export.resizing import resized, size_by_side
from detpipe.classify.export.selection import area, clipped, decoded, limits, moved_by_best, suppressed, top
from detpipe.classify.export.traced_part import traced
from detpipe.classify.fast_rcnn.network import FastRcnnSpec
from detpipe.classify.fast_rcnn.scorer import REFINED_FROM
from detpipe.classify.multibox_fast_rcnn.network import MultiBoxFastRcnnSpec
from detpipe.classify.settings import DetectConfig
from detpipe.heads.fast_rcnn.network import FastRcnn
from detpipe.heads.multibox.network import NMS_CANDIDATES
from detpipe.heads.multibox_fast_rcnn import MultiBoxFastRcnn
from detpipe.network.scaled_image import Scaling, mean_colour, padded
from detpipe.structures import Float32Array, Image

LEAST_SIDE = 1e-3
"""Proposals with a shorter side are dropped, as in `best_boxes`."""


class _MapsPart(nn.Module):
    """(1, H, W, 3) uint8 -> the maps; of a network that proposes also logits (P,) and boxes (P, 4)."""

    def __init__(self, network: FastRcnn) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        maps = self.network.feature_maps(image)
        if not isinstance(self.network, MultiBoxFastRcnn):
            return tuple(maps)
        output = self.network.predict(maps, (image.shape[1], image.shape[2]))
        return (*maps, output.logits[0], self.network.predictor.boxes(output)[0])


class _RegionPart(nn.Module):
    """Maps and regions (R, 5) -> probabilities (R, K + 1), deltas (R, K, 4)."""

    def __init__(self, network: FastRcnn) -> None:
        super().__init__()
        self.network = network

    def forward(self, maps: list[Tensor], regions: Tensor) -> tuple[Tensor, ...]:
        logits, deltas = self.network.classify(self.network.pool(maps, regions))
        probabilities = logits.softmax(dim=1)
        return (probabilities,) if deltas is None else (probabilities, deltas)


def _maps_part(network: FastRcnn) -> onnx.ModelProto:
    """The layers that run once on the image."""
    multiple = _multiple(network)
    return traced(
        _MapsPart(network),
        {"image": torch.zeros((1, 4 * multiple if multiple > 1 else 256, 320, 3), dtype=torch.uint8)},
        {"image": {1: multiple, 2: multiple}},
    )


def _region_part(network: FastRcnn) -> onnx.ModelProto:
    """Pooling and the layers that run on each region."""
    size = 512
    maps = [torch.zeros((1, network.depth, size // stride, size // stride + 3)) for stride in network.strides]
    regions = torch.tensor([[0, 0, 0, 500, 500], [0, 0, 0, 9, 9], [0, 0, 0, 200, 150]], dtype=torch.float32)
    return traced(
        _RegionPart(network),
        {"maps": maps, "regions": regions},
        {"maps": [{2: 1, 3: 1} for _ in maps], "regions": {0: 1}},
    )


def _multiple(network: FastRcnn) -> int:
    """A network that proposes gets images padded to multiples of this (see `FastRcnnScorer`); 1: no padding."""
    return 2 * network.strides[-1] if isinstance(network, MultiBoxFastRcnn) else 1


@dataclass(frozen=True, eq=False)
class _View:
    """An image at one scale, maybe mirrored. factors: (4,). width: of the scaled image, float32, a scalar."""

    factors: Value
    width: Value
    mirrored: bool
    maps: list[Value]

    def _mirror(self, boxes: Value) -> Value:
        if not self.mirrored:
            return boxes
        x1, y1, x2, y2 = (boxes.part(i, i + 1, 1) for i in range(4))
        return boxes.graph.concat([self.width - x2, y1, self.width - x1, y2], axis=1)

    def to_input(self, boxes: Value) -> Value:
        """Boxes of the image (R, 4) on the input."""
        return self._mirror(boxes * self.factors)

    def to_image(self, boxes: Value) -> Value:
        """The inverse."""
        return self._mirror(boxes) / self.factors


class FastRcnnExport(DetectorExport):
    """The graph from image, and boxes unless the network proposes itself, to detections."""

    CONVOLUTIONS = "maps"

    def __init__(self, network: FastRcnn, spec: FastRcnnSpec | MultiBoxFastRcnnSpec, config: DetectConfig) -> None:
        self._network, self._head, self.config = network, spec.head, config
        self.proposes = isinstance(network, MultiBoxFastRcnn)
        self._sides = config.fast_rcnn.scales or spec.head.scales[-1:]
        self.parts = {"maps": _maps_part(network), "regions": _region_part(network)}

    def samples(self, image: Image, boxes: Float32Array) -> Iterator[npt.NDArray[np.uint8]]:
        """The image at each scale, padded."""
        del boxes
        multiple = _multiple(self._network)
        for side in self._sides:
            pixels = Scaling.to_side((image.shape[0], image.shape[1]), side, self._head.max_side).pixels(image)
            yield padded(pixels, multiple, mean_colour(self._network.backbone.spec))

    def detections(self, graph: Graph, image: Value, proposals: Value | None) -> Found:
        """The graph of one image."""
        network, config = self._network, self.config
        height, width = image.size(0), image.size(1)
        most = limits(graph, height, width)
        views: list[_View] = []
        found: list[tuple[Value, Value]] = []
        for side in self._sides:
            new_height, new_width = size_by_side(height, width, side, self._head.max_side)
            pixels = resized(graph, image, height, width, new_height, new_width)
            new_most = limits(graph, new_height, new_width)
            for mirrored in (False, True) if config.fast_rcnn.flip else (False,):
                seen = pixels.part(-1, np.iinfo(np.int64).min, 1, -1) if mirrored else pixels
                seen = _padded(graph, seen, new_height, new_width, network)
                results = graph.call(self.parts["maps"], [seen.unsqueeze(0)], "maps")
                maps, rest = results[: len(network.strides)], results[len(network.strides) :]
                view = _View(new_most / most, new_most.take(0), mirrored, maps)
                views.append(view)
                if isinstance(network, MultiBoxFastRcnn):
                    boxes, scores = _proposed(graph, rest[1], rest[0], new_most, network, config.max_proposals)
                    found.append((clipped(view.to_image(boxes), most), scores))
        if not isinstance(network, MultiBoxFastRcnn):
            assert proposals is not None
            regions = given_regions(graph, proposals, most, config.max_proposals)
            probabilities, moved = _scored(graph, self.parts["regions"], views, regions, most, self._head.refine)
            return finished(graph, regions, moved, probabilities, most, config)
        boxes, scores = _joined(graph, found, network.proposal_nms, config.max_proposals)
        regions = with_spare(graph, boxes, most)
        probabilities, moved = _scored(graph, self.parts["regions"], views, regions, most, self._head.refine)
        probabilities = _by_quality(graph, probabilities, scores, network.quality)
        return finished(graph, regions, moved, probabilities, most, config)


def _by_quality(graph: Graph, probabilities: Value, confidences: Value, share: float) -> Value:
    """The mean of class probabilities (R, K + 1) and confidences (R - 1,), as `FastRcnnScorer` mixes them."""
    confidences = graph.concat([confidences, graph.value([0.0], np.float32)], axis=0)
    by_class = probabilities.part(1, np.iinfo(np.int64).max, 1) ** (1 - share) * (confidences**share).unsqueeze(1)
    return graph.concat([probabilities.part(0, 1, 1), by_class], axis=1)


def _padded(graph: Graph, pixels: Value, height: Value, width: Value, network: FastRcnn) -> Value:
    """Pad the right and bottom with the mean colour, as `FastRcnnScorer.padded`: (h, w, 3) float -> uint8."""
    multiple = _multiple(network)
    if multiple == 1:
        return pixels.to(np.uint8)
    colour = graph.value(mean_colour(network.backbone.spec), np.float32)
    below, right = ((side + multiple - 1) / multiple * multiple - side for side in (height, width))
    pads = graph.shape(0, 0, 0, below, right, 0)
    return (graph.op("Pad", pixels - colour, pads) + colour).to(np.uint8)


def _proposed(
    graph: Graph, boxes: Value, logits: Value, most: Value, network: MultiBoxFastRcnn, count: int
) -> tuple[Value, Value]:
    """The network's best boxes (k, 4) on its input and their confidences (k,), as `best_boxes`."""
    logits, order = top(graph, logits, NMS_CANDIDATES * count)
    boxes = clipped(boxes.take(order), most)
    sides = boxes.part(2, 4, 1) - boxes.part(0, 2, 1)
    solid = (sides.part(0, 1, 1).at_most(sides.part(1, 2, 1)) > LEAST_SIDE).squeeze(1)
    scores = graph.where(solid, graph.op("Sigmoid", logits), -1.0)
    _, rows = suppressed(graph, boxes.unsqueeze(0), scores.unsqueeze(0), network.proposal_nms, count)
    return boxes.take(rows), scores.take(rows)


def _joined(graph: Graph, found: Sequence[tuple[Value, Value]], iou: float, count: int) -> tuple[Value, Value]:
    """The proposals of all views."""
    if len(found) == 1:
        return found[0]
    boxes = graph.concat([one for one, _ in found], axis=0)
    scores = graph.concat([one for _, one in found], axis=0)
    _, rows = suppressed(graph, boxes.unsqueeze(0), scores.unsqueeze(0), iou, count)
    return boxes.take(rows), scores.take(rows)


def _scored(
    graph: Graph, part: onnx.ModelProto, views: Sequence[_View], regions: Regions, most: Value, refine: int
) -> tuple[Value, Value | None]:
    """Probabilities (R, K + 1), and the boxes moved by the deltas of each class (R, K, 4).

    Likely regions are moved by the deltas of their best class and scored again, as in `FastRcnnScorer`.
    """
    probabilities, deltas = _mean_scores(graph, part, views, regions.boxes)
    if deltas is None:
        return probabilities, None
    moved = decoded(graph, regions.boxes.unsqueeze(1), deltas)
    if not refine:
        return probabilities, moved
    best = _best(probabilities)
    likely = (best >= REFINED_FROM) & (area(regions.boxes) > 0.0) & regions.real
    rows = graph.concat([likely.where(), regions.count.reshape(1)], axis=0)  # and the spare one
    passes = [probabilities.take(rows)]
    boxes, targets, deltas_of = regions.boxes.take(rows), moved.take(rows), deltas.take(rows)
    for _ in range(refine):
        boxes = moved_by_best(graph, boxes, passes[-1], deltas_of, most)
        again, new_deltas = _mean_scores(graph, part, views, boxes)
        assert new_deltas is not None
        passes.append(again)
        deltas_of = new_deltas
    targets = decoded(graph, boxes.unsqueeze(1), deltas_of)
    has_area = (area(targets) > 0.0).unsqueeze(2)
    targets = graph.where(has_area, targets, boxes.unsqueeze(1))
    mean = graph.op("Sum", *passes) / float(len(passes))
    index = rows.unsqueeze(1)
    return graph.op("ScatterND", probabilities, index, mean), graph.op("ScatterND", moved, index, targets)


def _best(probabilities: Value) -> Value:
    """(R, K + 1) -> the highest probability of a class, (R,)."""
    return probabilities.part(1, np.iinfo(np.int64).max, 1).maximum(1).squeeze(1)


def _mean_scores(
    graph: Graph, part: onnx.ModelProto, views: Sequence[_View], boxes: Value
) -> tuple[Value, Value | None]:
    """Scores averaged over the views. Deltas refer to the image that is not mirrored."""
    results = []
    for view in views:
        regions = graph.op("Pad", view.to_input(boxes), graph.shape(0, 1, 0, 0))
        one = graph.call(part, [*view.maps, regions], "regions")
        if view.mirrored and len(one) > 1:
            one[1] = one[1] * graph.value([-1, 1, 1, 1], np.float32)
        results.append(one)
    means = [
        graph.op("Sum", *column) / float(len(column)) if len(column) > 1 else column[0]
        for column in zip(*results, strict=True)
    ]
    return means[0], means[1] if len(means) > 1 else None
