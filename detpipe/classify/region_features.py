"""Features of regions by a frozen backbone: of the crop, and of wider crops around it, side by side.

R: regions of one image. S: side of a crop. D: feature width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from detpipe.backbone.backbone import Backbone
from detpipe.classify.crop import REFERENCE_SIDE, CropConfig, crop_regions
from detpipe.classify.detect import batches_of
from detpipe.classify.device import autocast
from detpipe.solver.prefetch import Prefetcher
from detpipe.structures import Float32Array, Image

Crops = npt.NDArray[np.uint8]


@dataclass(kw_only=True)
class FeatureConfig:
    """What of a region is seen, beside its crop."""

    contexts: list[int] = field(default_factory=list)
    """More crops of each region, each with this context_pad (of 227), whose features stand beside those of the crop."""
    flip: bool = False
    """Take the mean of a crop's features and of its mirror image's: twice the time."""

    def __post_init__(self) -> None:
        if not all(0 <= pad < REFERENCE_SIDE // 2 for pad in self.contexts):
            raise ValueError(f"features.contexts: wanted 0 to {REFERENCE_SIDE // 2 - 1}, got {list(self.contexts)}")


class RegionFeatures:
    """A backbone that never learns, as an extractor of a feature store."""

    def __init__(
        self,
        backbone: Backbone,
        crops: CropConfig,
        config: FeatureConfig,
        *,
        device: torch.device,
        bf16: bool,
        batch_size: int = 64,
    ) -> None:
        self.backbone = backbone.to(device).to(memory_format=torch.channels_last).eval()
        self.crops = crops
        self.config = config
        self.device = device
        self.bf16 = bf16
        self._batch_size = batch_size

    @property
    def width(self) -> int:
        """D: the backbone's, once for each crop of a region."""
        return self.backbone.feature_width * (1 + len(self.config.contexts))

    def features(self, images: Iterable[tuple[Image, Float32Array]]) -> Iterator[Float32Array]:
        """(R, D) float32 for the boxes (R, 4) of each image, in order; R may be 0. Crops are cut in a side thread.

        Batches are cut from the start of `images`: the same images in the same order give the same numbers.
        """
        held: list[Float32Array] = []
        counts: list[int] = []
        for crops, begun in self._prefetched(images):
            counts += begun
            if len(crops):
                held.append(self._run(crops))
            while counts and counts[0] <= sum(map(len, held)):
                joined = np.concatenate(held) if held else np.zeros((0, self.width), dtype=np.float32)
                count = counts.pop(0)
                yield joined[:count]
                held = [joined[count:]]

    def _prefetched(self, images: Iterable[tuple[Image, Float32Array]]) -> Iterator[tuple[Crops, list[int]]]:
        stream = batches_of((self._cut(image, boxes) for image, boxes in images), self._batch_size)
        end: tuple[Crops, list[int]] = (np.zeros((0, 0), dtype=np.uint8), [-1])
        batches = Prefetcher(lambda _: next(stream, end), 0, 1 << 62, depth=3)
        try:
            for crops, counts in batches:
                if counts == [-1]:
                    return
                yield crops, counts
        finally:
            batches.close()

    def _cut(self, image: Image, boxes: Float32Array) -> Crops:
        """(R, C, S, S, 3): every crop of each region."""
        pads = [self.crops.context_pad, *self.config.contexts]
        return np.stack([crop_regions(image, boxes, replace(self.crops, context_pad=pad)) for pad in pads], axis=1)

    def _run(self, crops: Crops) -> Float32Array:
        columns = [self._pooled(np.ascontiguousarray(crops[:, one])) for one in range(crops.shape[1])]
        return np.concatenate(columns, axis=1)

    def _pooled(self, crops: Crops) -> Float32Array:
        """(N, S, S, 3) -> (N, feature_width)."""
        with torch.inference_mode(), autocast(self.device, self.bf16):
            seen = self._forward(torch.from_numpy(crops))
            if self.config.flip:
                seen = (seen + self._forward(torch.from_numpy(crops).flip(2))) / 2
            return np.asarray(seen.cpu().numpy())

    def _forward(self, crops: Tensor) -> Tensor:
        features: Tensor = self.backbone(self.backbone.spec.to_input(crops.to(self.device)))
        return features.float()


def network_digest(backbone: Backbone) -> str:
    """A digest of a backbone's weights and buffers, by name: what features were made with."""
    state = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(backbone.state_dict().items()):
        if not name.startswith("classifier."):
            state.update(f"{name} {tuple(tensor.shape)} {tensor.dtype};".encode())
            state.update(tensor.detach().cpu().numpy().tobytes())
    return state.hexdigest()
