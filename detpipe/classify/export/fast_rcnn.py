"""The graph of Fast R-CNN, and of MultiBox and Fast R-CNN on shared maps: as `FastRcnnScorer` computes it.

R: regions, with one more at the end that is never detected, so that no tensor is empty. K: classes. L: maps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

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
from detpipe.classify.settings import DetectConfig, Duplicates
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
    """Maps and regions (R, 5) -> probabilities (R, K + 1); if there is box regression, deltas (R, K, 4); with
    `uses_best`, the probability of being the best box (R,).

    The last region is the spare one: no other one attends to it.
    """

    def __init__(self, network: FastRcnn, *, uses_best: bool) -> None:
        super().__init__()
        self.network, self.uses_best = network, uses_best

    def forward(self, maps: list[Tensor], regions: Tensor) -> tuple[Tensor, ...]:
        features = self.network.hidden(self.network.pool(maps, regions))
        if self.network.attention is not None:
            count = regions.shape[0]  # len() would make it a constant of the traced graph
            spare = torch.arange(count) == count - 1
            features = self.network.attention.at_once(features, regions[:, 1:], spare)
        outputs = self.network.outputs(features)
        found = [outputs.logits.softmax(dim=1)]
        if outputs.deltas is not None:
            found.append(outputs.deltas)
        if self.uses_best and outputs.best is not None:
            found.append(outputs.best.sigmoid())
        return tuple(found)


def _maps_part(network: FastRcnn) -> onnx.ModelProto:
    """The layers that run once on the image."""
    multiple = _multiple(network)
    return traced(
        _MapsPart(network),
        {"image": torch.zeros((1, 4 * multiple if multiple > 1 else 256, 320, 3), dtype=torch.uint8)},
        {"image": {1: multiple, 2: multiple}},
    )


def _region_part(network: FastRcnn, *, uses_best: bool) -> onnx.ModelProto:
    """Pooling and the layers that run on the regions."""
    size = 512
    maps = [torch.zeros((1, network.depth, size // stride, size // stride + 3)) for stride in network.strides]
    regions = torch.tensor([[0, 0, 0, 500, 500], [0, 0, 0, 9, 9], [0, 0, 0, 200, 150]], dtype=torch.float32)
    return traced(
        _RegionPart(network, uses_best=uses_best),
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


@dataclass(frozen=True, eq=False)
class _Scores:
    """What the network predicts for regions: see `_RegionPart`. None: it does not predict it."""

    probabilities: Value
    deltas: Value | None
    best: Value | None


class FastRcnnExport(DetectorExport):
    """The graph from image, and boxes unless the network proposes itself, to detections."""

    CONVOLUTIONS = "maps"

    def __init__(self, network: FastRcnn, spec: FastRcnnSpec | MultiBoxFastRcnnSpec, config: DetectConfig) -> None:
        self._network, self._head, self.config = network, spec.head, config
        self.proposes = isinstance(network, MultiBoxFastRcnn)
        self._sides = config.fast_rcnn.scales or spec.head.scales[-1:]
        self._uses_best = config.fast_rcnn.duplicates is not Duplicates.nms
        self.parts = {"maps": _maps_part(network), "regions": _region_part(network, uses_best=self._uses_best)}

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
        if isinstance(network, MultiBoxFastRcnn):
            boxes, confidences = _joined(graph, found, network.proposal_nms, config.max_proposals)
            regions = with_spare(graph, boxes, most)
        else:
            assert proposals is not None
            regions = given_regions(graph, proposals, most, config.max_proposals)
        scored, moved = self._scored(graph, views, regions, most)
        probabilities = scored.probabilities
        if isinstance(network, MultiBoxFastRcnn):
            probabilities = _by_quality(graph, probabilities, confidences, network.quality)
        if scored.best is not None:
            probabilities = _by_best(graph, probabilities, scored.best)
        return finished(graph, regions, moved, probabilities, most, config)

    def _scored(
        self, graph: Graph, views: Sequence[_View], regions: Regions, most: Value
    ) -> tuple[_Scores, Value | None]:
        """The scores of regions (R, 4), and the boxes moved by the deltas of each class (R, K, 4).

        Likely regions are moved by the deltas of their best class and scored again, as in `FastRcnnScorer`.
        """
        first, refine = self._mean_scores(graph, views, regions.boxes), self._head.refine
        if first.deltas is None:
            return first, None
        moved = decoded(graph, regions.boxes.unsqueeze(1), first.deltas)
        if not refine:
            return first, moved
        highest = _by_class(first.probabilities).maximum(1).squeeze(1)
        likely = (highest >= REFINED_FROM) & (area(regions.boxes) > 0.0) & regions.real
        rows = graph.concat([likely.where(), regions.count.reshape(1)], axis=0)  # and the spare one
        boxes, deltas = regions.boxes.take(rows), first.deltas.take(rows)
        probabilities = [first.probabilities.take(rows)]
        best = [] if first.best is None else [first.best.take(rows)]
        for _ in range(refine):
            boxes = moved_by_best(graph, boxes, probabilities[-1], deltas, most)
            again = self._mean_scores(graph, views, boxes)
            assert again.deltas is not None
            deltas = again.deltas
            probabilities.append(again.probabilities)
            best += [] if again.best is None else [again.best]
        targets = decoded(graph, boxes.unsqueeze(1), deltas)
        has_area = (area(targets) > 0.0).unsqueeze(2)
        targets = graph.where(has_area, targets, boxes.unsqueeze(1))
        index = rows.unsqueeze(1)
        scores = replace(
            first,
            probabilities=graph.op("ScatterND", first.probabilities, index, _mean(graph, probabilities)),
            best=None if first.best is None else graph.op("ScatterND", first.best, index, _mean(graph, best)),
        )
        return scores, graph.op("ScatterND", moved, index, targets)

    def _mean_scores(self, graph: Graph, views: Sequence[_View], boxes: Value) -> _Scores:
        """Scores averaged over the views. Deltas refer to the image that is not mirrored."""
        has_deltas = self._network.box_regressor is not None
        results = []
        for view in views:
            regions = graph.op("Pad", view.to_input(boxes), graph.shape(0, 1, 0, 0))
            one = graph.call(self.parts["regions"], [*view.maps, regions], "regions")
            if view.mirrored and has_deltas:
                one[1] = one[1] * graph.value([-1, 1, 1, 1], np.float32)
            results.append(one)
        means = [_mean(graph, column) for column in zip(*results, strict=True)]
        return _Scores(means[0], means[1] if has_deltas else None, means[-1] if self._uses_best else None)


def _mean(graph: Graph, values: Sequence[Value]) -> Value:
    """Their mean, element by element."""
    return graph.op("Sum", *values) / float(len(values)) if len(values) > 1 else values[0]


def _by_class(probabilities: Value) -> Value:
    """(R, K + 1) -> (R, K), without the background's."""
    return probabilities.part(1, np.iinfo(np.int64).max, 1)


def _by_quality(graph: Graph, probabilities: Value, confidences: Value, share: float) -> Value:
    """The mean of class probabilities (R, K + 1) and confidences (R - 1,), as `FastRcnnScorer` mixes them."""
    confidences = graph.concat([confidences, graph.value([0.0], np.float32)], axis=0)
    mixed = _by_class(probabilities) ** (1 - share) * (confidences**share).unsqueeze(1)
    return graph.concat([probabilities.part(0, 1, 1), mixed], axis=1)


def _by_best(graph: Graph, probabilities: Value, best: Value) -> Value:
    """Class probabilities (R, K + 1) times the probabilities of being the best box (R,), as `FastRcnnScorer`."""
    return graph.concat([probabilities.part(0, 1, 1), _by_class(probabilities) * best.unsqueeze(1)], axis=1)


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
