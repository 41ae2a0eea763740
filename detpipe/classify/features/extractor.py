"""Region features from a frozen backbone: from the crop of each region, and from feature maps of the whole image.

A crop shows only the region, at high resolution. The maps add its surroundings, which distinguish a part of an object
from a whole object. (R-CNN's crops, Girshick et al. 2014; RoIAlign on maps of two scales, He et al. 2017, section 3.)

R: regions of one image. S: side of a crop. V: views, original and mirrored. D: feature width of all views.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
import torch
from torchvision.ops import roi_align

from detpipe.backbone.backbone import Backbone
from detpipe.classify.crops.crop import crop_regions
from detpipe.classify.crops.settings import CropConfig
from detpipe.classify.detect import batches_of
from detpipe.classify.features.settings import FeatureConfig
from detpipe.network.device import autocast
from detpipe.network.image_per_core import image_per_core
from detpipe.network.scaled_image import Scaling
from detpipe.solver.prefetch import read_ahead
from detpipe.structures import Float32Array, Image

Crops = npt.NDArray[np.uint8]

STEP, MAX_LONG = 64, 4096
"""Sides of a scaled image are multiples of about STEP and at most MAX_LONG, which bounds the memory."""


class RegionFeatures:
    """Extracts region features with a frozen backbone."""

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
        self._maps = used_maps(backbone)
        self._stride = map_stride(backbone)

    @property
    def width(self) -> int:
        """D. Each view has the pooled features of the crop, then for each side the cells of both maps and the last
        map's mean."""
        channels = [self.backbone.feature_maps[name].channels for name in self._maps]
        of_image = self.config.grid**2 * sum(channels) + channels[-1]
        of_view = self.backbone.feature_width * self.config.crops + of_image * len(self.config.image_sides)
        return of_view * len(self.config.views)

    def features(self, images: Iterable[tuple[Image, Float32Array]]) -> Iterator[Float32Array]:
        """(R, D) float32 for the boxes (R, 4) of each image, in order; R may be 0. A second thread makes the crops.

        Batches depend only on the sequence of `images`: the same images in the same order give the same numbers.
        Without crops, images share no batch, and on a CPU each core processes its own image.
        """
        if not self.config.crops:
            yield from image_per_core(lambda one: self._of_views(*one), images, self.device)
            return
        held: list[tuple[Image, Float32Array]] = []

        def noted() -> Iterator[tuple[Image, Float32Array]]:
            for image, boxes in images:
                held.append((image, boxes))
                yield image, boxes

        for pooled in self._of_crops(noted()):
            image, boxes = held.pop(0)
            by_view = np.split(pooled, len(self.config.views), axis=1)
            columns = [
                np.concatenate([of_crops, *self._of_image(image, boxes, mirrored)], axis=1)
                for mirrored, of_crops in zip(self.config.views, by_view, strict=True)
            ]
            yield np.concatenate(columns, axis=1)

    def _of_views(self, image: Image, boxes: Float32Array) -> Float32Array:
        """(R, D) without the columns of crops."""
        columns = [one for mirrored in self.config.views for one in self._of_image(image, boxes, mirrored)]
        return np.concatenate(columns, axis=1)

    def _of_crops(self, images: Iterable[tuple[Image, Float32Array]]) -> Iterator[Float32Array]:
        """(R, V feature_width) for each image."""
        held = np.zeros((0, self.backbone.feature_width * len(self.config.views)), dtype=np.float32)
        counts: list[int] = []
        cut = (crop_regions(image, boxes, self.crops) for image, boxes in images)
        for crops, begun in read_ahead(batches_of(cut, self._batch_size)):
            counts += begun
            if len(crops):
                held = np.concatenate([held, self._pooled(crops)])
            while counts and counts[0] <= len(held):
                count = counts.pop(0)
                yield held[:count]
                held = held[count:]

    def _pooled(self, crops: Crops) -> Float32Array:
        """(N, S, S, 3) -> (N, V feature_width)."""
        with torch.inference_mode(), autocast(self.device, self.bf16):
            inputs = torch.from_numpy(crops).to(self.device)
            views = [
                self.backbone(self.backbone.spec.to_input(inputs.flip(2) if one else inputs))
                for one in self.config.views
            ]
            return np.asarray(torch.cat(views, dim=1).float().cpu().numpy())

    def _of_image(self, image: Image, boxes: Float32Array, mirrored: bool) -> list[Float32Array]:
        """For each side (R, grid^2 x channels of both maps + channels of the last): region cells, and image mean."""
        return [self._under(boxes, image, side, mirrored) for side in self.config.image_sides]

    def _under(self, boxes: Float32Array, image: Image, side: int, mirrored: bool) -> Float32Array:
        image_size = (image.shape[0], image.shape[1])
        scaling = Scaling(image_size, shown_size(image_size, side, self._stride), mirrored)
        pixels = scaling.pixels(image)
        with torch.inference_mode():
            with autocast(self.device, self.bf16):
                inputs = self.backbone.spec.to_input(torch.from_numpy(pixels)[None].to(self.device))
                maps = self.backbone.forward_maps(inputs, self._maps)
            regions = [torch.from_numpy(scaling.to_input(boxes)).to(self.device)]
            columns = []
            for one in (maps[name].float() for name in self._maps):
                # Not 1 / stride: the map's width is rounded up if the stride does not divide the image's width.
                ratio = one.shape[3] / pixels.shape[1]
                cells = roi_align(one, regions, (self.config.grid, self.config.grid), ratio, 2, aligned=True)
                columns.append(cells.flatten(1))
            columns.append(one.mean(dim=(2, 3)).expand(len(boxes), -1))
            return np.asarray(torch.cat(columns, dim=1).cpu().numpy())


def used_maps(backbone: Backbone) -> list[str]:
    """The names of the feature maps that features of images come from: the last two, or all if there are fewer."""
    return list(backbone.feature_maps)[-2:]


def map_stride(backbone: Backbone) -> int:
    """The largest stride of these maps in pixels; 1 without maps."""
    return max((backbone.feature_maps[name].stride for name in used_maps(backbone)), default=1)


def step_of(stride: int) -> int:
    """The smallest multiple of `stride` from STEP: sides of scaled images are multiples of it."""
    return -(-STEP // stride) * stride


def shown_size(image_size: tuple[int, int], side: int, stride: int) -> tuple[int, int]:
    """(height, width) of the scaled image: shorter side about `side`, at most MAX_LONG, and in whole cells of `stride`.

    Both are multiples of `step_of(stride)`. They give few shapes: for a new shape, setting up a network takes longer
    than running it.
    """
    scale, step = side / min(image_size), step_of(stride)
    most = max(MAX_LONG // step, 1)
    height, width = (min(max(round(length * scale / step), 1), most) * step for length in image_size)
    return height, width


def network_digest(backbone: Backbone) -> str:
    """A digest of the names and values of a backbone's weights and buffers. It identifies the features' network."""
    state = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(backbone.state_dict().items()):
        if not name.startswith("classifier."):
            state.update(f"{name} {tuple(tensor.shape)} {tensor.dtype};".encode())
            state.update(tensor.detach().cpu().numpy().tobytes())
    return state.hexdigest()
