"""R-CNN's inference on crops, optionally as a cascade: score small crops of all regions, then rescore the best.

R: regions of one image. K: classes. S: side of a crop.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from detpipe.classify.crops.crop import crop_regions
from detpipe.classify.crops.network import RcnnNetwork, RcnnSpec
from detpipe.classify.crops.settings import CropConfig
from detpipe.classify.detect import ScoredRegions, Scorer, batches_of, refuse_best_box
from detpipe.classify.settings import DetectConfig
from detpipe.network.device import autocast
from detpipe.solver.prefetch import read_ahead
from detpipe.structures import Float32Array, Image, Int64Array


def crop_scorer(
    network: RcnnNetwork, spec: RcnnSpec, config: DetectConfig, device: torch.device, *, bf16: bool
) -> Scorer:
    """The scorer of a network. With `cascade_size`: score small crops, then rescore the best at full size.

    Raises ClassifierError as `refuse_best_box`.
    """
    refuse_best_box(config)

    def of_size(size: int) -> CropScorer:
        return CropScorer(
            network,
            replace(spec.crops, size=size),
            device=device,
            bf16=bf16,
            compiled=config.compile,
            batch_size=config.batch_size,
        )

    whole = of_size(spec.crops.size)
    if config.crops.cascade_size is None:
        return whole
    return CascadeScorer(of_size(config.crops.cascade_size), whole, keep=config.crops.cascade_keep)


class CropScorer:
    """Scores streams of crops in full batches; a batch may hold crops of several images."""

    def __init__(
        self,
        network: RcnnNetwork,
        crops: CropConfig,
        *,
        device: torch.device,
        bf16: bool,
        compiled: bool,
        batch_size: int,
    ) -> None:
        self._crops = crops
        self.network = network.to(device).to(memory_format=torch.channels_last).eval()
        # freezing folds batch norms into convolutions and reorders weights for oneDNN: most of the speedup.
        self._forward = (
            torch.compile(self.network, dynamic=False, options={"freezing": True}) if compiled else self.network
        )
        self._device = device
        self._bf16 = bf16
        self._batch_size = batch_size
        self._pads = compiled or device.type == "cuda"

    def score(self, images: Iterable[tuple[Image, Float32Array]]) -> Iterator[ScoredRegions]:
        """See `Scorer`. Regions are cropped in a second thread. Batches depend only on the sequence of `images`."""
        return self.score_crops(crop_regions(image, boxes, self._crops) for image, boxes in images)

    def score_crops(self, images: Iterable[npt.NDArray[np.uint8]]) -> Iterator[ScoredRegions]:
        """Scores of the crops (R, S, S, 3) of each image, in order; R may be 0."""
        pending: list[int] = []
        rows: list[tuple[Float32Array, Float32Array | None]] = []
        ready = 0
        for crops, counts in read_ahead(batches_of(images, self._batch_size)):
            pending += counts
            if len(crops):
                rows.append(self._run(crops))
                ready += len(crops)
            while pending and pending[0] <= ready:
                take = pending.pop(0)
                yield self._take(rows, take)
                ready -= take

    def _run(self, crops: npt.NDArray[np.uint8]) -> tuple[Float32Array, Float32Array | None]:
        n = len(crops)
        if self._pads and n < self._batch_size:  # a single shape is compiled only once
            crops = np.concatenate([crops, np.zeros((self._batch_size - n, *crops.shape[1:]), dtype=np.uint8)])
        with torch.inference_mode(), autocast(self._device, self._bf16):
            logits, deltas = self._forward(torch.from_numpy(crops).to(self._device))
            probabilities = logits.float().softmax(dim=1)[:n].cpu().numpy()
        return probabilities, None if deltas is None else deltas[:n].float().cpu().numpy()

    def _take(self, rows: list[tuple[Float32Array, Float32Array | None]], count: int) -> ScoredRegions:
        """Remove the first `count` rows from the scored batches, and return them."""
        parts = []
        while count:
            probabilities, deltas = rows.pop(0)
            if len(probabilities) > count:
                rows.insert(0, (probabilities[count:], None if deltas is None else deltas[count:]))
                probabilities, deltas = probabilities[:count], None if deltas is None else deltas[:count]
            parts.append((probabilities, deltas))
            count -= len(probabilities)
        if not parts:
            columns = self.network.head.linear.out_features
            empty = np.zeros((0, columns - 1, 4), dtype=np.float32) if self.network.box_regressor is not None else None
            return ScoredRegions(np.zeros((0, columns), dtype=np.float32), empty)
        all_deltas = [deltas for _, deltas in parts if deltas is not None]
        return ScoredRegions(
            np.concatenate([probabilities for probabilities, _ in parts]),
            np.concatenate(all_deltas) if all_deltas else None,
        )


class CascadeScorer:
    """`first` scores all regions of an image, `second` rescores the `keep` regions with the least background.

    Both run the same classifier, `first` on smaller crops: half the side is a quarter of the work, without additional
    training (cascades: Viola & Jones 2001, section 4).
    """

    def __init__(self, first: Scorer, second: Scorer, *, keep: int) -> None:
        self._first, self._second, self._keep = first, second, keep

    @property
    def network(self) -> nn.Module:
        """The network of the second pass."""
        return self._second.network

    def score(self, images: Iterable[tuple[Image, Float32Array]]) -> Iterator[ScoredRegions]:
        """See `Scorer`. Regions that the first pass drops get a background probability of 1."""
        kept: list[tuple[int, Int64Array]] = []
        for scored in self._second.score(self._survivors(images, kept)):
            yield in_their_places(scored, *kept.pop(0))

    def _survivors(
        self, images: Iterable[tuple[Image, Float32Array]], kept: list[tuple[int, Int64Array]]
    ) -> Iterator[tuple[Image, Float32Array]]:
        waiting: list[tuple[Image, Float32Array]] = []

        def recorded() -> Iterator[tuple[Image, Float32Array]]:
            for one in images:
                waiting.append(one)
                yield one

        for scored in self._first.score(recorded()):
            image, boxes = waiting.pop(0)
            rows = most_likely(scored, self._keep)
            kept.append((len(boxes), rows))
            yield image, boxes[rows]


def most_likely(scored: ScoredRegions, keep: int) -> Int64Array:
    """Ascending indices of the `keep` regions with the least background, (<= keep,) int64. R = 0 gives (0,)."""
    order = np.argsort(scored.probabilities[:, 0], kind="stable")[:keep]
    return np.sort(order).astype(np.int64)


def in_their_places(scored: ScoredRegions, count: int, rows: Int64Array) -> ScoredRegions:
    """The scores of all `count` regions: for `rows` as given; all others are background with deltas of 0."""
    probabilities = np.zeros((count, scored.probabilities.shape[1]), dtype=np.float32)
    probabilities[:, 0] = 1
    probabilities[rows] = scored.probabilities
    if scored.deltas is None:
        return ScoredRegions(probabilities, None)
    deltas = np.zeros((count, *scored.deltas.shape[1:]), dtype=np.float32)
    deltas[rows] = scored.deltas
    return ScoredRegions(probabilities, deltas)
