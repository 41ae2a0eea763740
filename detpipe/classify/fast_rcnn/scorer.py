"""Inference of Fast R-CNN: one forward pass per image scores all of its regions (Girshick 2015, section 2.4).

R: regions of one image. K: classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from detpipe import boxes as geometry
from detpipe.classify.detect import ScoredRegions, Scorer, moved_by_best, refuse_best_box, seen_from
from detpipe.classify.fast_rcnn.network import FastRcnnSpec
from detpipe.classify.fast_rcnn.tiled_scorer import TiledScorer
from detpipe.classify.multibox_fast_rcnn.network import MultiBoxFastRcnnSpec
from detpipe.classify.settings import DetectConfig, Duplicates
from detpipe.heads.fast_rcnn.network import FastRcnn, RegionOutputs
from detpipe.heads.multibox_fast_rcnn import MultiBoxFastRcnn
from detpipe.network.device import autocast
from detpipe.network.image_per_core import image_per_core
from detpipe.network.scaled_image import Scaling, mean_colour, padded
from detpipe.solver.prefetch import read_ahead
from detpipe.structures import Float32Array, Image
from detpipe.tiles import TilesConfig

REGIONS_AT_ONCE = 4000
"""Number of regions that are pooled and classified together. It bounds the memory for images with many regions."""

REFINED_FROM = 0.05
"""Regions whose highest class probability is below this are not refined."""

COMPILED_MULTIPLE = 128
"""A compiled network pads its input to multiples of this. The preset's sizes then give five input shapes."""


@dataclass(frozen=True, eq=False)
class View:
    """An image at one scale, maybe mirrored. pixels: (H', W', 3)."""

    scaling: Scaling
    pixels: Image


@dataclass(frozen=True, eq=False)
class ViewMaps:
    """The feature maps of a view, from which regions are pooled.

    input_size: (height, width) of the network's input, including padding.
    """

    scaling: Scaling
    input_size: tuple[int, int]
    maps: list[Tensor]


def fast_rcnn_scorer(
    network: FastRcnn,
    spec: FastRcnnSpec | MultiBoxFastRcnnSpec,
    config: DetectConfig,
    device: torch.device,
    *,
    bf16: bool,
) -> Scorer:
    """The scorer of a network, at `detect.fast_rcnn.scales`; if they are empty, at the largest training scale.

    It works on tiles if `tiles_of` says so. Raises ClassifierError for `detect.fast_rcnn.duplicates=learned` or both,
    if the network does not predict which boxes are the best ones.
    """
    if network.best is None:
        refuse_best_box(config)
    scorer = FastRcnnScorer(
        network,
        scales=config.fast_rcnn.scales or spec.head.scales[-1:],
        max_side=spec.head.max_side,
        flip=config.fast_rcnn.flip,
        refine=spec.head.refine,
        device=device,
        bf16=bf16,
        compiled=config.compile,
        proposals=config.max_proposals,
        uses_best=config.fast_rcnn.duplicates is not Duplicates.nms,
    )
    tiles = tiles_of(spec, config)
    if not tiles.used:
        return scorer
    proposes = isinstance(network, MultiBoxFastRcnn)
    return TiledScorer(scorer, tiles, proposes=proposes, score_floor=config.score_floor)


def tiles_of(spec: FastRcnnSpec | MultiBoxFastRcnnSpec, config: DetectConfig) -> TilesConfig:
    """The tiles in detection: `detect.fast_rcnn.tiles`, or the tiles of the training if its size is null."""
    return spec.head.tiles if config.fast_rcnn.tiles.size is None else config.fast_rcnn.tiles


class FastRcnnScorer:
    """Scores regions with one forward pass per image and view.

    scales: lengths of the shorter side in pixels. With several scales, probabilities and deltas are averaged; `flip`
    adds the mirrored image at each scale (multi-scale testing). refine: how often top-scoring regions are moved by
    their deltas and scored again. maps_of: computes the feature maps of images (N, H, W, 3) uint8 on the device; it is
    compiled if `compiled` is set. proposals: for an image without regions, a network that proposes scores at most this
    many regions of its own. uses_best: multiply class probabilities by the probability of being the best box.
    """

    def __init__(
        self,
        network: FastRcnn,
        *,
        scales: Sequence[int],
        max_side: int,
        flip: bool,
        refine: int,
        device: torch.device,
        bf16: bool,
        compiled: bool,
        proposals: int = 0,
        uses_best: bool = False,
    ) -> None:
        self.network = network.to(device).to(memory_format=torch.channels_last).eval()
        # With dynamic sizes, inductor fails where maps are merged. So images are padded to a few sizes, each of them
        # compiled once.
        self.maps_of = torch.compile(network.feature_maps, dynamic=False) if compiled else network.feature_maps
        self._compiled, self._multiple = compiled, COMPILED_MULTIPLE if compiled else 1
        if isinstance(network, MultiBoxFastRcnn):
            self._multiple = max(self._multiple, 2 * network.strides[-1])
        self._proposals = proposals
        self.scales, self.max_side, self._flips = tuple(scales), max_side, (False, True) if flip else (False,)
        self._refine, self._uses_best = refine, uses_best
        self.bf16, self._device = bf16, device

    def score(self, images: Iterable[tuple[Image, Float32Array]]) -> Iterator[ScoredRegions]:
        """See `Scorer`. A second thread reads and scales the images; the network takes one image at a time.

        On a CPU, each core processes its own image: threads that share an image wait for each other at every layer.
        """
        shown = read_ahead((boxes, self._views(image)) for image, boxes in images)
        if self._compiled:
            return (self._scored(boxes, views) for boxes, views in shown)
        return image_per_core(lambda one: self._scored(*one), shown, self._device)

    def attention(self, image: Image, boxes: Float32Array) -> Float32Array:
        """How much each region of an image attends to each, in the first pass at the first scale.

        image: (H, W, 3). boxes: (R, 4), as they are scored. Returns (L, H, R, R) of L layers and H heads, where rows
        sum to 1.
        """
        network = self.network
        assert network.attention is not None
        with torch.inference_mode(), autocast(self._device, self.bf16):
            one = self._view_maps(self._views(image)[0])
            regions = functional.pad(torch.from_numpy(one.scaling.to_input(boxes)), (1, 0)).to(self._device)
            features = torch.cat(
                [network.hidden(network.pool(one.maps, part)) for part in regions.split(REGIONS_AT_ONCE)]
            )
            weights: Float32Array = network.attention.weights(features, regions[:, 1:]).float().cpu().numpy()
        return weights

    def _views(self, image: Image) -> list[View]:
        image_size = (image.shape[0], image.shape[1])
        scalings = [
            Scaling.to_side(image_size, scale, self.max_side, mirrored=mirrored)
            for scale in self.scales
            for mirrored in self._flips
        ]
        return [View(scaling, scaling.pixels(image)) for scaling in scalings]

    def padded(self, pixels: Image) -> Image:
        """Pad the right and bottom: (H, W, 3) -> (1, H', W', 3).

        For a compiled network, padding gives few input sizes. For a network that proposes, it makes the cells of each
        feature map divide the input evenly.
        """
        return padded(pixels, self._multiple, mean_colour(self.network.backbone.spec))

    def _scored(self, boxes: Float32Array, views: Sequence[View]) -> ScoredRegions:
        """Compute the maps of each view, score the regions, and rescore top-scoring regions after box refinement.

        Probabilities are averaged over the passes. The deltas of the last pass are given relative to the input regions.
        """
        own = not len(boxes) and isinstance(self.network, MultiBoxFastRcnn)
        if not len(boxes) and not own:
            return self._nothing()
        with torch.inference_mode(), autocast(self._device, self.bf16):
            all_maps = [self._view_maps(view) for view in views]
        if own:
            boxes, confidences = self._own_regions(all_maps)
            if not len(boxes):
                return self._nothing()
            scored = self._scored_regions(all_maps, boxes)
            probabilities = self._by_quality(scored.probabilities, confidences)
            return self._by_best(replace(scored, probabilities=probabilities, boxes=boxes))
        return self._by_best(self._scored_regions(all_maps, boxes))

    def _view_maps(self, view: View) -> ViewMaps:
        pixels = self.padded(view.pixels)
        maps = self.maps_of(torch.from_numpy(pixels).to(self._device))
        return ViewMaps(view.scaling, (pixels.shape[1], pixels.shape[2]), maps)

    def _nothing(self) -> ScoredRegions:
        columns = self.network.head.linear.out_features
        empty = np.zeros((0, columns - 1, 4), dtype=np.float32) if self.network.box_regressor is not None else None
        return ScoredRegions(np.zeros((0, columns), dtype=np.float32), empty)

    def _by_best(self, scored: ScoredRegions) -> ScoredRegions:
        """Multiply class probabilities by the probability of being the best box, if asked for."""
        if scored.best is None:
            return scored
        probabilities = scored.probabilities.copy()
        probabilities[:, 1:] *= scored.best[:, None]
        return replace(scored, probabilities=probabilities)

    def _by_quality(self, probabilities: Float32Array, confidences: Float32Array) -> Float32Array:
        """Geometric mean of class probabilities (R, K + 1) and proposal confidences (R,), weighted by `quality`.

        Background probabilities stay unchanged: only detections of a class need a good box.
        """
        assert isinstance(self.network, MultiBoxFastRcnn)
        share = np.float32(self.network.quality)
        mixed = probabilities.copy()
        mixed[:, 1:] = probabilities[:, 1:] ** (1 - share) * confidences[:, None] ** share
        return mixed

    def _own_regions(self, all_maps: Sequence[ViewMaps]) -> tuple[Float32Array, Float32Array]:
        """The regions that the network proposes on all views, best first, and their confidences.

        Returns boxes (R, 4) in pixels of the image, and confidences (R,).
        """
        assert isinstance(self.network, MultiBoxFastRcnn)
        boxes, scores = [], []
        for view_maps in all_maps:
            with torch.inference_mode(), autocast(self._device, self.bf16):
                output = self.network.predict(view_maps.maps, view_maps.input_size)
                found, confidence = self.network.propose(output, 0, view_maps.scaling.input_size, self._proposals)
            boxes.append(geometry.clip(view_maps.scaling.to_image(found.cpu().numpy()), view_maps.scaling.image_size))
            scores.append(confidence.cpu().numpy())
        every, score = np.concatenate(boxes), np.concatenate(scores)
        kept = geometry.nms(every, score, self.network.proposal_nms) if len(all_maps) > 1 else np.arange(len(every))
        kept = kept[geometry.area(every[kept]) > 0][: self._proposals]
        return every[kept], score[kept]

    def _scored_regions(self, all_maps: Sequence[ViewMaps], boxes: Float32Array) -> ScoredRegions:
        """Scores of R >= 1 regions. Top-scoring regions are scored again after box refinement.

        A network with attention then attends among the regions that are scored again.
        """
        first = self._mean_scores(all_maps, boxes)
        if first.deltas is None or not self._refine:
            return first
        rows = np.flatnonzero((first.probabilities[:, 1:].max(axis=1) >= REFINED_FROM) & (geometry.area(boxes) > 0))
        passes, moved_boxes = [first.of(rows)], boxes[rows]
        for _ in range(self._refine if len(rows) else 0):
            moved_boxes = moved_by_best(moved_boxes, passes[-1], all_maps[0].scaling.image_size)
            passes.append(self._mean_scores(all_maps, moved_boxes))
        first.probabilities[rows] = np.mean([one.probabilities for one in passes], axis=0)
        first.deltas[rows] = seen_from(boxes[rows], moved_boxes, passes[-1].deltas)
        if first.best is not None:
            first.best[rows] = np.mean([one.best for one in passes if one.best is not None], axis=0)
        return first

    def _mean_scores(self, all_maps: Sequence[ViewMaps], boxes: Float32Array) -> ScoredRegions:
        """Scores averaged over the views; R is at least 1. Deltas refer to the image that is not mirrored."""
        scored = [self._scores_in(view_maps, boxes) for view_maps in all_maps]
        deltas = [one.deltas for one in scored if one.deltas is not None]
        best = [one.best for one in scored if one.best is not None]
        return ScoredRegions(
            np.mean([one.probabilities for one in scored], axis=0),
            np.mean(deltas, axis=0) if deltas else None,
            best=np.mean(best, axis=0) if best else None,
        )

    def _scores_in(self, view_maps: ViewMaps, boxes: Float32Array) -> ScoredRegions:
        with torch.inference_mode(), autocast(self._device, self.bf16):
            regions = functional.pad(torch.from_numpy(view_maps.scaling.to_input(boxes)), (1, 0)).to(self._device)
            parts = self._outputs(view_maps.maps, regions)
            probabilities = torch.cat([one.logits.float().softmax(dim=1) for one in parts]).cpu().numpy()
            moves = [one.deltas.float() for one in parts if one.deltas is not None]
            deltas = torch.cat(moves).cpu().numpy() if moves else None
            logits = [one.best.float() for one in parts if one.best is not None and self._uses_best]
            best = torch.cat(logits).sigmoid().cpu().numpy() if logits else None
        if deltas is not None and view_maps.scaling.mirrored:
            deltas[:, :, 0] *= -1
        return ScoredRegions(probabilities, deltas, best=best)

    def _outputs(self, maps: list[Tensor], regions: Tensor) -> list[RegionOutputs]:
        """The predictions for regions (R, 5) of one image, in parts. Regions are pooled in parts, but attend to all."""
        network = self.network
        parts = [network.hidden(network.pool(maps, part)) for part in regions.split(REGIONS_AT_ONCE)]
        if network.attention is not None:
            parts = [network.attended(torch.cat(parts), regions)]
        return [network.outputs(part) for part in parts]
