"""Batches of a few images with many regions each (Fast R-CNN, Girshick 2015, section 2.3): regions of one image share
its one pass through the network.

N: images of a batch. R: its regions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from detpipe.classify.crops.database import verify_image
from detpipe.classify.labeling import Regions, SamplingConfig, sample_regions
from detpipe.datasets.image_file import read_image
from detpipe.network.batch_order import image_generator, plain_order
from detpipe.network.scaled_image import Scaling
from detpipe.structures import Float32Array, GroundTruth, Image, Int64Array


@dataclass(frozen=True, eq=False)
class ProposedImage:
    """A training image: its file, the digest that its proposals were made on, the proposals (P, 4) and the objects."""

    path: Path
    digest: bytes
    image_size: tuple[int, int]
    proposals: Float32Array
    truth: GroundTruth


@dataclass(frozen=True, eq=False)
class RegionBatch:
    """Images and labelled regions.

    images: (N, H, W, 3) uint8 RGB, smaller ones padded at right and bottom. regions: (R, 5) float32, image of the
    batch and box in pixels of `images`. labels: (R,) int64, 0 background. deltas: (R, 4) float32, 0 for background.
    """

    images: npt.NDArray[np.uint8]
    regions: Float32Array
    labels: Int64Array
    deltas: Float32Array


@dataclass(frozen=True, kw_only=True)
class ImageViews:
    """How images are shown in training: at one of `scales` (pixels of the shorter side), half of them mirrored.

    max_side: pixels of the longer side at most. fill: RGB of what pads.
    """

    scales: tuple[int, ...]
    max_side: int
    flip: bool
    fill: tuple[int, int, int]


class HierarchicalSampling:
    """Batch number i, a pure function of (seed, i): images in passes, from each a share of the regions.

    images_per_batch and batch_size (regions) of the whole batch; `part` are the places of the images that this process
    makes. An image with too few regions of a kind gives fewer. Raises ValueError for no images.
    """

    def __init__(
        self,
        images: Sequence[ProposedImage],
        sampling: SamplingConfig,
        views: ImageViews,
        *,
        images_per_batch: int,
        batch_size: int,
        seed: int,
        part: slice = slice(None),
    ) -> None:
        self._images = images
        self._sampling = replace(sampling, regions_per_image=max(batch_size // images_per_batch, 1))
        self._views = views
        self._order = plain_order(len(images), batch_size=images_per_batch, seed=seed)
        self._seed = seed
        self._part = part

    def __call__(self, number: int) -> RegionBatch:
        """Raises ChangedImageError where a file is not the one that was proposed on, BrokenImageError likewise."""
        shown, sampled = [], []
        for turn, place in list(enumerate(self._order(number)))[self._part]:
            image = self._images[place]
            generator = image_generator(self._seed, number, turn)
            views = self._views
            shorter = views.scales[generator.integers(len(views.scales))]
            mirrored = bool(views.flip and generator.random() < 0.5)
            scaling = Scaling.to_side(image.image_size, shorter, views.max_side, mirrored=mirrored)
            regions = sample_regions(image.proposals, image.truth, image.image_size, self._sampling, generator)
            shown.append(seen(image, scaling))
            sampled.append(moved(regions, scaling))
        return joined(shown, sampled, self._views.fill)


def seen(image: ProposedImage, scaling: Scaling) -> Image:
    """The image's pixels as the network sees them."""
    verify_image(image.path, image.digest)
    return scaling.pixels(read_image(image.path))


def moved(regions: Regions, scaling: Scaling) -> Regions:
    """Regions of an image on the input. Deltas are in sides of the box: mirroring turns dx, scaling nothing."""
    deltas = regions.deltas.copy()
    if scaling.mirrored:
        deltas[:, 0] *= -1
    return replace(regions, boxes=scaling.to_input(regions.boxes), deltas=deltas)


def joined(images: Sequence[Image], regions: Sequence[Regions], fill: tuple[int, int, int]) -> RegionBatch:
    """One batch of N images and their regions; N of at least 1."""
    height, width = (max(image.shape[side] for image in images) for side in (0, 1))
    pixels = np.empty((len(images), height, width, 3), dtype=np.uint8)
    pixels[:] = fill
    for number, image in enumerate(images):
        pixels[number, : image.shape[0], : image.shape[1]] = image
    boxes = [
        np.concatenate([np.full((len(one), 1), number, dtype=np.float32), one.boxes], axis=1)
        for number, one in enumerate(regions)
    ]
    return RegionBatch(
        pixels,
        np.concatenate(boxes),
        np.concatenate([one.labels for one in regions]),
        np.concatenate([one.deltas for one in regions]),
    )
