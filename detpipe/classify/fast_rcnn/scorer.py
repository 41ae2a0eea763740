"""Scores of all regions of an image from one pass over it: Fast R-CNN's detection (Girshick 2015, section 2.4).

R: regions of an image. K: classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from detpipe import boxes as geometry
from detpipe.classify.detect import ScoredRegions, Scorer, moved_by_best
from detpipe.classify.fast_rcnn.network import FastRcnnSpec
from detpipe.classify.multibox_fast_rcnn.network import MultiBoxFastRcnnSpec
from detpipe.classify.settings import DetectConfig
from detpipe.heads.fast_rcnn.network import FastRcnn
from detpipe.heads.multibox_fast_rcnn import MultiBoxFastRcnn
from detpipe.network.device import autocast
from detpipe.network.image_per_core import image_per_core
from detpipe.network.scaled_image import Scaling, mean_colour
from detpipe.solver.prefetch import read_ahead
from detpipe.structures import Float32Array, Image

REGIONS_AT_ONCE = 4000
"""Regions that are pooled and classified together, which bounds the memory of an image with many."""

REFINED_FROM = 0.05
"""Regions that are an object's with less than this probability are not looked at again."""

COMPILED_MULTIPLE = 128
"""Sides of the input are made multiples of this where the network is compiled: with the preset's sizes five shapes."""


@dataclass(frozen=True, eq=False)
class View:
    """How an image is shown, and its pixels so: (H', W', 3)."""

    scaling: Scaling
    pixels: Image


@dataclass(frozen=True, eq=False)
class Look:
    """What the network made of a view: the maps that regions are pooled from.

    input_size: (height, width) of what went through the network, padding included.
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
    """The network in inference, at `detect.fast_rcnn.scales`, or at the largest scale of its training."""
    return FastRcnnScorer(
        network,
        scales=config.fast_rcnn.scales or spec.head.scales[-1:],
        max_side=spec.head.max_side,
        flip=config.fast_rcnn.flip,
        refine=spec.head.refine,
        device=device,
        bf16=bf16,
        compiled=config.compile,
        proposals=config.max_proposals,
    )


class FastRcnnScorer:
    """Scores of regions from one pass over each image.

    scales: pixels of the shorter side; of several the mean of probabilities and deltas is taken, and with `flip` of
    each also mirrored (multi-scale testing). refine: how often likely regions are moved and scored again. maps_of: from
    images (N, H, W, 3) uint8 on the device to the maps, compiled where asked for. proposals: a network that proposes
    looks at so many regions of its own, of an image that comes without any.
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
    ) -> None:
        self.network = network.to(device).to(memory_format=torch.channels_last).eval()
        # With free sizes inductor fails on the merge of maps: images are padded to a few sizes, each compiled once.
        self.maps_of = torch.compile(network.feature_maps, dynamic=False) if compiled else network.feature_maps
        self._compiled, self._multiple = compiled, COMPILED_MULTIPLE if compiled else 1
        if isinstance(network, MultiBoxFastRcnn):
            self._multiple = max(self._multiple, 2 * network.strides[-1])
        self._proposals = proposals
        self.scales, self.max_side, self._flips = tuple(scales), max_side, (False, True) if flip else (False,)
        self._refine = refine
        self.bf16, self._device = bf16, device

    def score(self, images: Iterable[tuple[Image, Float32Array]]) -> Iterator[ScoredRegions]:
        """See `Scorer`. Images are read and scaled in a side thread; each goes through the network by itself.

        On a CPU each core takes an image of its own: threads within one image wait for each other at every layer.
        """
        shown = read_ahead((boxes, self._views(image)) for image, boxes in images)
        if self._compiled:
            return (self._scored(boxes, views) for boxes, views in shown)
        return image_per_core(lambda one: self._scored(*one), shown, self._device)

    def _views(self, image: Image) -> list[View]:
        image_size = (image.shape[0], image.shape[1])
        scalings = [
            Scaling.to_side(image_size, scale, self.max_side, mirrored=mirrored)
            for scale in self.scales
            for mirrored in self._flips
        ]
        return [View(scaling, scaling.pixels(image)) for scaling in scalings]

    def padded(self, pixels: Image) -> Image:
        """(H, W, 3) -> (1, H', W', 3), padded at right and bottom: where the network is compiled, for a few sizes, and
        where it proposes, so that each map's cells are even parts."""
        height, width = (-(-side // self._multiple) * self._multiple for side in pixels.shape[:2])
        if (height, width) == pixels.shape[:2]:
            return pixels[None]
        canvas = np.empty((1, height, width, 3), dtype=np.uint8)
        canvas[:] = mean_colour(self.network.backbone.spec)
        canvas[0, : pixels.shape[0], : pixels.shape[1]] = pixels
        return canvas

    def _scored(self, boxes: Float32Array, views: Sequence[View]) -> ScoredRegions:
        """One pass over the image in each view, then over the regions: once, and likely ones where they moved to.

        Probabilities are means over the passes. The last pass's deltas are given as seen from the regions.
        """
        own = not len(boxes) and isinstance(self.network, MultiBoxFastRcnn)
        if not len(boxes) and not own:
            return self._nothing()
        with torch.inference_mode(), autocast(self._device, self.bf16):
            looks = [self._look(view) for view in views]
        if own:
            boxes, confidences = self._own_regions(looks)
            if not len(boxes):
                return self._nothing()
            scored = self._scored_regions(looks, boxes)
            return replace(scored, probabilities=self._by_quality(scored.probabilities, confidences), boxes=boxes)
        return self._scored_regions(looks, boxes)

    def _look(self, view: View) -> Look:
        pixels = self.padded(view.pixels)
        maps = self.maps_of(torch.from_numpy(pixels).to(self._device))
        return Look(view.scaling, (pixels.shape[1], pixels.shape[2]), maps)

    def _nothing(self) -> ScoredRegions:
        columns = self.network.head.linear.out_features
        empty = np.zeros((0, columns - 1, 4), dtype=np.float32) if self.network.box_regressor is not None else None
        return ScoredRegions(np.zeros((0, columns), dtype=np.float32), empty)

    def _by_quality(self, probabilities: Float32Array, confidences: Float32Array) -> Float32Array:
        """The classes' probabilities (R, K + 1) and the proposals' own confidences (R,), by their geometric mean.

        The background's stay: of a good class alone a good box is wanted.
        """
        assert isinstance(self.network, MultiBoxFastRcnn)
        share = np.float32(self.network.quality)
        mixed = probabilities.copy()
        mixed[:, 1:] = probabilities[:, 1:] ** (1 - share) * confidences[:, None] ** share
        return mixed

    def _own_regions(self, looks: Sequence[Look]) -> tuple[Float32Array, Float32Array]:
        """The regions that the network proposes, of all looks together, best first, and its confidence in them.

        (R, 4) in pixels of the image, (R,).
        """
        assert isinstance(self.network, MultiBoxFastRcnn)
        boxes, scores = [], []
        for look in looks:
            with torch.inference_mode(), autocast(self._device, self.bf16):
                output = self.network.predict(look.maps, look.input_size)
                found, confidence = self.network.propose(output, 0, look.scaling.input_size, self._proposals)
            boxes.append(geometry.clip(look.scaling.to_image(found.cpu().numpy()), look.scaling.image_size))
            scores.append(confidence.cpu().numpy())
        every, score = np.concatenate(boxes), np.concatenate(scores)
        kept = geometry.nms(every, score, self.network.proposal_nms) if len(looks) > 1 else np.arange(len(every))
        kept = kept[geometry.area(every[kept]) > 0][: self._proposals]
        return every[kept], score[kept]

    def _scored_regions(self, looks: Sequence[Look], boxes: Float32Array) -> ScoredRegions:
        """Scores of R regions, R of at least 1: those that are likely an object's are looked at where they moved to."""
        first = self._seen(looks, boxes)
        if first.deltas is None or not self._refine:
            return first
        rows = np.flatnonzero((first.probabilities[:, 1:].max(axis=1) >= REFINED_FROM) & (geometry.area(boxes) > 0))
        passes, places = [first.of(rows)], boxes[rows]
        for _ in range(self._refine if len(rows) else 0):
            places = moved_by_best(places, passes[-1], looks[0].scaling.image_size)
            passes.append(self._seen(looks, places))
        first.probabilities[rows] = np.mean([one.probabilities for one in passes], axis=0)
        first.deltas[rows] = seen_from(boxes[rows], places, passes[-1].deltas)
        return first

    def _seen(self, looks: Sequence[Look], boxes: Float32Array) -> ScoredRegions:
        """The mean scores over the looks; R of at least 1. Deltas are those of the image, not mirrored."""
        scored = [self._seen_in(look, boxes) for look in looks]
        deltas = [one.deltas for one in scored if one.deltas is not None]
        return ScoredRegions(
            np.mean([one.probabilities for one in scored], axis=0),
            np.mean(deltas, axis=0) if deltas else None,
        )

    def _seen_in(self, look: Look, boxes: Float32Array) -> ScoredRegions:
        with torch.inference_mode(), autocast(self._device, self.bf16):
            regions = functional.pad(torch.from_numpy(look.scaling.to_input(boxes)), (1, 0)).to(self._device)
            parts = [
                self.network.classify(self.network.pool(look.maps, part)) for part in regions.split(REGIONS_AT_ONCE)
            ]
            probabilities = torch.cat([logits.float().softmax(dim=1) for logits, _ in parts]).cpu().numpy()
            moves = [part.float() for _, part in parts if part is not None]
            deltas = torch.cat(moves).cpu().numpy() if moves else None
        if deltas is not None and look.scaling.mirrored:
            deltas[:, :, 0] *= -1
        return ScoredRegions(probabilities, deltas)


def seen_from(boxes: Float32Array, places: Float32Array, deltas: Float32Array | None) -> Float32Array:
    """The deltas that move `boxes` to where `deltas` move `places`: (R, 4), (R, 4), (R, K, 4) -> (R, K, 4).

    Where a box would shrink to nothing it stays in its place.
    """
    assert deltas is not None
    columns = []
    for label in range(deltas.shape[1]):
        moved = geometry.decode(places, deltas[:, label])
        solid = (geometry.area(moved) > 0)[:, None]
        columns.append(geometry.encode(boxes, np.where(solid, moved, places)))
    return np.stack(columns, axis=1)
