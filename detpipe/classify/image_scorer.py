"""Scores of all regions of an image from one pass over it: Fast R-CNN's detection (Girshick 2015, section 2.4).

R: regions of an image. K: classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from detpipe.classify.detect import ScoredRegions
from detpipe.classify.device import autocast
from detpipe.classify.scaled_image import Scaling
from detpipe.heads.fast_rcnn import FastRcnn
from detpipe.solver.prefetch import Prefetcher
from detpipe.structures import Float32Array, Image

REGIONS_AT_ONCE = 4000
"""Regions that are pooled and classified together, which bounds the memory of an image with many."""


@dataclass(frozen=True, eq=False)
class View:
    """An image as the network sees it (H', W', 3), its regions there (R, 4), and whether it is mirrored."""

    pixels: Image
    regions: Float32Array
    mirrored: bool


class ImageScorer:
    """A Fast R-CNN at work.

    scales: pixels of the shorter side; of several the mean of probabilities and deltas is taken, and with `flip` of
    each also mirrored (multi-scale testing).
    """

    def __init__(
        self,
        network: FastRcnn,
        *,
        scales: Sequence[int],
        max_side: int,
        flip: bool,
        device: torch.device,
        bf16: bool,
        compiled: bool,
    ) -> None:
        self.network = network.to(device).to(memory_format=torch.channels_last).eval()
        self._maps = torch.compile(self.network.feature_maps, dynamic=True) if compiled else self.network.feature_maps
        self._scales, self._max_side, self._flips = tuple(scales), max_side, (False, True) if flip else (False,)
        self._device, self._bf16 = device, bf16

    def score(self, images: Iterable[tuple[Image, Float32Array]]) -> Iterator[ScoredRegions]:
        """See `Scorer`. Images are read and scaled in a side thread; each goes through the network by itself."""
        stream = (self._views(image, boxes) for image, boxes in images)
        # A thread that reads a stream: the number of images is not known, so the end is marked.
        ahead = Prefetcher(lambda _: next(stream, None), 0, 1 << 62, depth=3)
        try:
            for views in ahead:
                if views is None:
                    return
                yield self._scored(views)
        finally:
            ahead.close()

    def _views(self, image: Image, boxes: Float32Array) -> list[View]:
        image_size = (image.shape[0], image.shape[1])
        scalings = [
            Scaling.to_side(image_size, scale, self._max_side, mirrored=mirrored)
            for scale in self._scales
            for mirrored in self._flips
        ]
        return [View(one.pixels(image), one.to_input(boxes), one.mirrored) for one in scalings]

    def _scored(self, views: Sequence[View]) -> ScoredRegions:
        if not len(views[0].regions):
            columns = self.network.head.linear.out_features
            empty = np.zeros((0, columns - 1, 4), dtype=np.float32) if self.network.box_regressor is not None else None
            return ScoredRegions(np.zeros((0, columns), dtype=np.float32), empty)
        scored = [self._seen(view) for view in views]
        deltas = [one.deltas for one in scored if one.deltas is not None]
        return ScoredRegions(
            np.mean([one.probabilities for one in scored], axis=0),
            np.mean(deltas, axis=0) if deltas else None,
        )

    def _seen(self, view: View) -> ScoredRegions:
        """The scores of one view; deltas are those of the image, not mirrored."""
        with torch.inference_mode(), autocast(self._device, self._bf16):
            maps = self._maps(torch.from_numpy(view.pixels)[None].to(self._device))
            regions = torch.nn.functional.pad(torch.from_numpy(view.regions), (1, 0)).to(self._device)
            parts = [self.network.classify(self.network.pool(maps, part)) for part in regions.split(REGIONS_AT_ONCE)]
            probabilities = torch.cat([logits.float().softmax(dim=1) for logits, _ in parts]).cpu().numpy()
            moves = [part.float() for _, part in parts if part is not None]
            deltas = torch.cat(moves).cpu().numpy() if moves else None
        if deltas is not None and view.mirrored:
            deltas[:, :, 0] *= -1
        return ScoredRegions(probabilities, deltas)
