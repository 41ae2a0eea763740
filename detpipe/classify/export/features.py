"""The graph of a head on stored features: features as `RegionFeatures` computes them, and the head as `FeatureScorer`.

R: regions, with the spare one at the end. D: feature width of a view. G: geometry features. K: classes. S: side of a
crop.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from detpipe.backbone.backbone import Backbone
from detpipe.classify.crops.crop import crop_regions
from detpipe.classify.export.crops import BATCH, Ripmap, in_batches, ripmap
from detpipe.classify.export.detector_graph import DetectorExport, Found, Regions, finished, given_regions
from detpipe.classify.export.onnx_graph import Graph, Value
from detpipe.classify.export.resizing import resized, size_by_multiples
from detpipe.classify.export.selection import decoded, limits, moved_by_best, top
from detpipe.classify.export.traced_part import traced
from detpipe.classify.features.extractor import MAX_LONG, map_stride, shown_size, step_of
from detpipe.classify.features.geometry import COLUMNS
from detpipe.classify.features.network import FeatureClassifier, FeatureClassifierSpec
from detpipe.classify.settings import DetectConfig
from detpipe.network.scaled_image import Scaling
from detpipe.structures import Float32Array, Image

BORDER = 2.0
"""A box that is nearer to the border than this touches it, as in `region_geometry`."""


class _MapsPart(nn.Module):
    """(1, H, W, 3) uint8 -> the last two maps, and the mean of the last one (1, C)."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.maps = list(backbone.feature_maps)[-2:]

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        maps = list(self.backbone.forward_maps(self.backbone.spec.to_input(image), self.maps).values())
        return (*maps, maps[-1].mean(dim=(2, 3)))


class _CropPart(nn.Module):
    """(N, S, S, 3) uint8 -> pooled features (N, C)."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, image: Tensor) -> Tensor:
        pooled: Tensor = self.backbone(self.backbone.spec.to_input(image))
        return pooled


class _HeadPart(nn.Module):
    """Features (R, D) and geometry (R, G) -> scores (R, K + 1), deltas (R, K, 4).

    ignored: (R,) bool, see `FeatureHead.forward`; only for a head with attention.
    """

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, features: Tensor, geometry: Tensor, ignored: Tensor | None = None) -> tuple[Tensor, ...]:
        scores, deltas = self.head(features, geometry, *([] if ignored is None else [ignored]))
        return (scores,) if deltas is None else (scores, deltas)


class FeaturesExport(DetectorExport):
    """The graph from image and boxes to detections."""

    def __init__(self, network: FeatureClassifier, spec: FeatureClassifierSpec, config: DetectConfig) -> None:
        self._spec, self.config, self._features = spec, config, spec.features
        self.CONVOLUTIONS = "maps" if spec.features.image_sides else "crops"  # type: ignore[misc]
        self.parts = {}
        self._stride = map_stride(network.backbone)
        if spec.features.image_sides:
            step = step_of(self._stride)
            image = torch.zeros((1, 4 * step, 5 * step, 3), dtype=torch.uint8)
            self.parts["maps"] = traced(_MapsPart(network.backbone), {"image": image}, {"image": {1: step, 2: step}})
        if spec.features.crops:
            crops = torch.zeros((2, spec.crops.size, spec.crops.size, 3), dtype=torch.uint8)
            self.parts["crops"] = traced(_CropPart(network.backbone), {"image": crops}, {"image": {0: 1}})
        examples = {"features": torch.zeros((2, len(network.head.mean))), "geometry": torch.zeros((2, COLUMNS))}
        self._attends = network.head.attention_layers > 0
        if self._attends:
            examples["ignored"] = torch.tensor([False, True])
        self.parts["head"] = traced(_HeadPart(network.head), examples, {name: {0: 1} for name in examples})

    def samples(self, image: Image, boxes: Float32Array) -> Iterator[npt.NDArray[np.uint8]]:
        """The image at each side; without sides a batch of evenly spaced regions."""
        image_size = (image.shape[0], image.shape[1])
        for side in self._features.image_sides:
            yield Scaling(image_size, shown_size(image_size, side, self._stride)).pixels(image)[None]
        rows = np.linspace(0, len(boxes) - 1, min(BATCH, len(boxes))).round().astype(int)
        if not self._features.image_sides and len(rows):
            yield crop_regions(image, boxes[rows], self._spec.crops)

    def detections(self, graph: Graph, image: Value, proposals: Value | None) -> Found:
        """The graph of one image."""
        assert proposals is not None
        most = limits(graph, image.size(0), image.size(1))
        regions = given_regions(graph, proposals, most, self.config.max_proposals)
        shown = self._shown(graph, image, most)
        ranks = graph.range(regions.boxes.size(0))
        scores, deltas = self._scored(graph, shown, regions.boxes, ranks, regions.real)
        if deltas is None:
            return finished(graph, regions, None, scores, most, self.config)
        if self.config.features.refine:
            real = graph.where(regions.real, scores.part(1, np.iinfo(np.int64).max, 1).maximum(1).squeeze(1), -1.0)
            _, rows = top(graph, real, self.config.features.refine)
            best = moved_by_best(graph, regions.boxes.take(rows), scores.take(rows), deltas.take(rows), most)
            more_real = regions.real.take(rows)
            more_scores, more_deltas = self._scored(graph, shown, best, rows, more_real)
            assert more_deltas is not None
            regions = Regions(
                graph.concat([regions.boxes, best], axis=0),
                regions.count,
                graph.concat([regions.real, more_real], axis=0),
            )
            scores = graph.concat([scores, more_scores], axis=0)
            deltas = graph.concat([deltas, more_deltas], axis=0)
        moved = decoded(graph, regions.boxes.unsqueeze(1), deltas)
        return finished(graph, regions, moved, scores, most, self.config)

    def _shown(self, graph: Graph, image: Value, most: Value) -> _Shown:
        """The image at each side and in each view, and its halved copies for crops."""
        height, width = image.size(0), image.size(1)
        by_view: list[list[_ScaledMaps]] = [[] for _ in self._features.views]
        for side in self._features.image_sides:
            step = step_of(self._stride)
            new_height, new_width = size_by_multiples(height, width, side, step, max(MAX_LONG // step, 1) * step)
            pixels = resized(graph, image, height, width, new_height, new_width).to(np.uint8)
            new_most = limits(graph, new_height, new_width)
            for mirrored, scaled in zip(self._features.views, by_view, strict=True):
                seen = pixels.part(-1, np.iinfo(np.int64).min, 1, -1) if mirrored else pixels
                *maps, mean = graph.call(self.parts["maps"], [seen.unsqueeze(0)], "maps")
                scaled.append(_ScaledMaps(new_most / most, new_most.take(0), mirrored, maps, mean))
        return _Shown(most, by_view, ripmap(graph, image, self._spec.crops) if self._features.crops else None)

    def _scored(
        self, graph: Graph, shown: _Shown, boxes: Value, ranks: Value, real: Value
    ) -> tuple[Value, Value | None]:
        """Scores (R, K + 1) and deltas (R, K, 4), averaged over the views, of boxes (R, 4) with ranks (R,).

        real: (R,) bool, see `Regions`; regions attend to these only.
        """
        geometry = _geometry(graph, boxes, shown.most, ranks)
        pooled: list[Value] = []
        if shown.ripmap is not None:
            pooled = in_batches(graph, boxes, shown.ripmap, self._pooled)
        ignored = [graph.op("Not", real)] if self._attends else []
        results = []
        for view, (mirrored, scaled) in enumerate(zip(self._features.views, shown.views, strict=True)):
            columns = [
                *pooled[view : view + 1],
                *(column for one in scaled for column in one.under(graph, boxes, self)),
            ]
            features = graph.concat(columns, axis=1).to(np.float16).to(np.float32)  # rounded as in a store
            seen = _mirrored(graph, geometry) if mirrored else geometry
            one = graph.call(self.parts["head"], [features, seen, *ignored], "head")
            if mirrored and len(one) > 1:
                one[1] = one[1] * graph.value([-1, 1, 1, 1], np.float32)
            results.append(one)
        means = [
            graph.op("Sum", *column) / float(len(column)) if len(column) > 1 else column[0]
            for column in zip(*results, strict=True)
        ]
        return means[0], means[1] if len(means) > 1 else None

    def _pooled(self, graph: Graph, crops: Value) -> list[Value]:
        """Pooled features of crops for each view."""
        end = np.iinfo(np.int64).min
        views = [crops.part(-1, end, 2, -1) if mirrored else crops for mirrored in self._features.views]
        return [graph.call(self.parts["crops"], [one], "crops")[0] for one in views]

    @property
    def grid(self) -> int:
        """Features under a region are pooled to grid x grid cells."""
        return self._features.grid


@dataclass(frozen=True, eq=False)
class _ScaledMaps:
    """The maps of an image at one side. factors: (4,). width: of the scaled image, float32, a scalar."""

    factors: Value
    width: Value
    mirrored: bool
    maps: list[Value]
    mean: Value

    def under(self, graph: Graph, boxes: Value, of: FeaturesExport) -> list[Value]:
        """The features under boxes (R, 4) of the image: each (R, columns)."""
        boxes = boxes * self.factors
        if self.mirrored:
            x1, y1, x2, y2 = (boxes.part(i, i + 1, 1) for i in range(4))
            boxes = graph.concat([self.width - x2, y1, self.width - x1, y2], axis=1)
        columns = []
        count = boxes.size(0)
        first = graph.op("Expand", graph.value([0], np.int64), count.reshape(1))
        for one in self.maps:
            ratio = one.size(3).to(np.float32) / self.width
            cells = graph.op(
                "RoiAlign",
                one,
                boxes * ratio,
                first,
                output_height=of.grid,
                output_width=of.grid,
                sampling_ratio=2,
                spatial_scale=1.0,
                mode="avg",
                coordinate_transformation_mode="half_pixel",
            )
            columns.append(cells.reshape(count, -1))
        return [*columns, graph.op("Expand", self.mean, graph.shape(count, 1))]


@dataclass(frozen=True, eq=False)
class _Shown:
    """What the backbone has seen of an image. most: its limits. views: for each view the maps of each side."""

    most: Value
    views: list[list[_ScaledMaps]]
    ripmap: Ripmap | None


def _geometry(graph: Graph, boxes: Value, most: Value, ranks: Value) -> Value:
    """Geometry features (R, G), as `region_geometry`."""
    size = most.part(0, 2, 0)
    share = (boxes.part(2, 4, 1) - boxes.part(0, 2, 1)) / size
    centre = (boxes.part(0, 2, 1) + boxes.part(2, 4, 1)) * 0.5 / size - 0.5
    w, h = graph.op("Log", share.part(0, 1, 1)), graph.op("Log", share.part(1, 2, 1))
    aspect = w - h + graph.op("Log", size.take(0) / size.take(1))
    near = (boxes.part(0, 2, 1) < BORDER).to(np.float32)
    far = (boxes.part(2, 4, 1) > size - BORDER).to(np.float32)
    rank = graph.op("Log", ranks.to(np.float32) + 3.0).unsqueeze(1)
    return graph.concat([w + h, aspect, w, h, centre, near, far, rank], axis=1)


def _mirrored(graph: Graph, geometry: Value) -> Value:
    """As `mirrored_geometry`."""
    signs = np.ones(COLUMNS)
    signs[4] = -1
    return geometry.take([0, 1, 2, 3, 4, 5, 8, 7, 6, 9, 10], 1) * graph.value(signs, np.float32)
