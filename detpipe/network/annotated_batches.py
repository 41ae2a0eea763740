"""Batches of whole images with their annotated objects: batch i is a pure function of (seed, i)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from detpipe.datasets.image_file import read_image
from detpipe.network.batch_order import image_generator, plain_order
from detpipe.network.box_views import BoxViews
from detpipe.structures import PLAIN_READING, Float32Array, GroundTruth, Image, ReadOptions


@dataclass(frozen=True, eq=False)
class AnnotatedImage:
    """A training image: its file and its objects.

    weight: (n,) float32, the loss weight of each object; the object with label k has weight[k - 1]. None: all have 1.
    options: how the file is read.
    """

    path: Path
    truth: GroundTruth
    weight: Float32Array | None = None
    options: ReadOptions = PLAIN_READING

    def weights_of(self, seen: GroundTruth) -> Float32Array:
        """The weights (G,) float32 of the objects in an augmented view."""
        return np.ones(len(seen), dtype=np.float32) if self.weight is None else self.weight[seen.labels - 1]


@dataclass(frozen=True, eq=False)
class AnnotatedBatch:
    """N images with their objects.

    images: (N, H, W, 3) uint8 RGB; smaller images are padded at the right and bottom.
    sizes: (height, width) of each image without the padding.
    truths: the objects of each image, in pixels of `images`.
    weights: the loss weights of the objects, (G,) float32 for each image.
    number: the index of the batch.
    positions: the position of each image in the whole batch, of which this process may hold only a part. It selects
    the random numbers of an image; see `image_generator`.
    """

    images: npt.NDArray[np.uint8]
    sizes: tuple[tuple[int, int], ...]
    truths: tuple[GroundTruth, ...]
    weights: tuple[Float32Array, ...]
    number: int
    positions: tuple[int, ...]


class AnnotatedBatches:
    """Returns batch i: images in shuffled passes, each augmented with random numbers from (seed, i, position).

    multiple: height and width are padded to a multiple of this, with the colour `fill`. part: the positions in the
    batch that this process makes. Raises ValueError if there are no images.
    """

    def __init__(
        self,
        images: Sequence[AnnotatedImage],
        views: BoxViews,
        *,
        batch_size: int,
        multiple: int,
        fill: tuple[int, int, int],
        seed: int,
        part: slice = slice(None),
    ) -> None:
        self._images, self._views = images, views
        self._order = plain_order(len(images), batch_size=batch_size, seed=seed)
        self._multiple, self._fill, self._seed, self._part = multiple, fill, seed, part

    def __call__(self, number: int) -> AnnotatedBatch:
        """Raises BrokenImageError for a file that can't be read."""
        shown, weights, positions = [], [], []
        for position, index in list(enumerate(self._order(number)))[self._part]:
            one = self._images[index]
            generator = image_generator(self._seed, number, position)
            pixels, seen = self._views.draw(read_image(one.path, one.options), one.truth, generator)
            shown.append((pixels, seen))
            weights.append(one.weights_of(seen))
            positions.append(position)
        images, sizes = padded([pixels for pixels, _ in shown], self._multiple, self._fill)
        truths = tuple(seen for _, seen in shown)
        return AnnotatedBatch(images, sizes, truths, tuple(weights), number, tuple(positions))


def padded(
    images: Sequence[Image], multiple: int, fill: tuple[int, int, int]
) -> tuple[npt.NDArray[np.uint8], tuple[tuple[int, int], ...]]:
    """Pad N >= 1 images to one array (N, H, W, 3). Returns it and the (height, width) of each image."""
    sizes = tuple((image.shape[0], image.shape[1]) for image in images)
    height, width = (-(-max(size[side] for size in sizes) // multiple) * multiple for side in (0, 1))
    pixels = np.empty((len(images), height, width, 3), dtype=np.uint8)
    pixels[:] = fill
    for row, image in enumerate(images):
        pixels[row, : image.shape[0], : image.shape[1]] = image
    return pixels, sizes
