"""Batches of a few images with many regions each (Fast R-CNN, Girshick 2015, section 2.3): the regions of
one image share one forward pass.

N: images in a batch. R: regions in a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from detpipe import boxes as geometry
from detpipe.classify.crops.database import verify_image
from detpipe.classify.fast_rcnn.denoising import STREAM, Queries, denoising_queries
from detpipe.classify.labeling import Regions, SamplingConfig, sample_regions
from detpipe.datasets.image_file import read_image
from detpipe.network.batch_order import image_generator, plain_order
from detpipe.network.box_views import SEEN_SHARE, cut, inside, learned
from detpipe.network.scaled_image import Scaling
from detpipe.structures import PLAIN_READING, Float32Array, GroundTruth, Image, Int64Array, ReadOptions
from detpipe.tiles import TilesConfig, Window, random_window


@dataclass(frozen=True, eq=False)
class ProposedImage:
    """A training image with its proposals (P, 4) and objects.

    digest: of the file that the proposals were made from. options: how the file is read. window: the part of the file's
    image that this is; None: all of it. The other fields belong to this part.
    """

    path: Path
    digest: bytes
    image_size: tuple[int, int]
    proposals: Float32Array
    truth: GroundTruth
    options: ReadOptions = PLAIN_READING
    window: Window | None = None

    def part(self, window: Window) -> ProposedImage:
        """A window of this image. Proposals that it cuts count as objects do; see `box_views`."""
        x1, y1, x2, y2 = window
        size = (y2 - y1, x2 - x1)
        boxes = geometry.clip(self.proposals - np.array([x1, y1, x1, y1], dtype=np.float32), size)
        seen = boxes[geometry.area(boxes) >= SEEN_SHARE * geometry.area(self.proposals)]
        return replace(self, image_size=size, proposals=seen, truth=cut(self.truth, window), window=window)


@dataclass(frozen=True, eq=False)
class RegionBatch:
    """Images and labelled regions.

    images: (N, H, W, 3) uint8 RGB; smaller images are padded at the right and bottom. regions: (R, 5) float32: index
    of the image in the batch, and box in pixels of `images`. labels: (R,) int64, 0 is background. deltas: (R, 4)
    float32, 0 for background. truths, sizes: the objects and the (height, width) of each image in pixels of `images`;
    empty where nothing is matched. queries: denoising queries, if any.
    """

    images: npt.NDArray[np.uint8]
    regions: Float32Array
    labels: Int64Array
    deltas: Float32Array
    truths: tuple[GroundTruth, ...] = ()
    sizes: tuple[tuple[int, int], ...] = ()
    queries: Queries | None = None


@dataclass(frozen=True, kw_only=True)
class ImageViews:
    """Scaling and mirroring of training images.

    scales: lengths of the shorter side in pixels; one is drawn for each image. max_side: limit for the longer side.
    flip: mirror an image with probability 0.5. fill: RGB colour of the padding. tiles: a random tile takes the place of
    each image.
    """

    scales: tuple[int, ...]
    max_side: int
    flip: bool
    fill: tuple[int, int, int]
    tiles: TilesConfig = field(default_factory=TilesConfig)


class HierarchicalSampling:
    """Batches of a few images with an equal number of regions from each. Batch i is a pure function of (seed, i).

    images_per_batch and batch_size (regions) count for the whole batch; `part` selects the images of this process.
    denoise: number of denoising copies of each object. Images are drawn in epochs. An image with too few foreground or
    background regions contributes fewer regions.
    Raises ValueError for no images.
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
        denoise: int = 0,
    ) -> None:
        self._images = images
        self._denoise = denoise
        self._sampling = replace(sampling, regions_per_image=max(batch_size // images_per_batch, 1))
        self._views = views
        self._order = plain_order(len(images), batch_size=images_per_batch, seed=seed)
        self._seed = seed
        self._part = part

    def __call__(self, number: int) -> RegionBatch:
        """Make batch `number`.

        Raises ChangedImageError if a file has changed since its proposals were made, and BrokenImageError if it cannot
        be read.
        """
        shown, sampled, truths, draws = [], [], [], []
        for position, index in list(enumerate(self._order(number)))[self._part]:
            image = self._images[index]
            generator = image_generator(self._seed, number, position)
            views = self._views
            if views.tiles.used:
                image = image.part(random_window(image.image_size, learned(image.truth), views.tiles, generator))
            shorter = views.scales[generator.integers(len(views.scales))]
            mirrored = bool(views.flip and generator.random() < 0.5)
            scaling = Scaling.to_side(image.image_size, shorter, views.max_side, mirrored=mirrored)
            regions = sample_regions(image.proposals, image.truth, image.image_size, self._sampling, generator)
            shown.append(read_scaled(image, scaling))
            sampled.append(moved(regions, scaling))
            truths.append(replace(image.truth, boxes=scaling.to_input(image.truth.boxes)))
            draws.append(image_generator(self._seed, number, position, stream=STREAM))
        sizes = tuple((one.shape[0], one.shape[1]) for one in shown)
        queries = denoising_queries(truths, sizes, self._denoise, self._sampling, draws) if self._denoise else None
        batch = joined(shown, sampled, self._views.fill)
        return replace(batch, truths=tuple(truths), sizes=sizes, queries=queries)


def read_scaled(image: ProposedImage, scaling: Scaling) -> Image:
    """Read the image and scale it to the network's input. Raises as `HierarchicalSampling` does."""
    verify_image(image.path, image.digest)
    pixels = read_image(image.path, image.options)
    return scaling.pixels(pixels if image.window is None else inside(pixels, image.window))


def moved(regions: Regions, scaling: Scaling) -> Regions:
    """Regions of an image in coordinates of the scaled input.

    Deltas are relative to the box, so scaling leaves them unchanged; mirroring changes the sign of dx.
    """
    deltas = regions.deltas.copy()
    if scaling.mirrored:
        deltas[:, 0] *= -1
    return replace(regions, boxes=scaling.to_input(regions.boxes), deltas=deltas)


def joined(images: Sequence[Image], regions: Sequence[Regions], fill: tuple[int, int, int]) -> RegionBatch:
    """Combine N images and their regions in one batch; N is at least 1."""
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
