"""Batches of whole images with their objects: number i is a pure function of (seed, i)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from detpipe.datasets.image_file import read_image
from detpipe.network.batch_order import image_generator, plain_order
from detpipe.network.box_views import BoxViews
from detpipe.structures import Float32Array, GroundTruth, Image


@dataclass(frozen=True, eq=False)
class AnnotatedImage:
    """A training image: its file and its objects.

    worth: (n,) float32, where objects are of unequal worth: of the object with the label k it is worth[k - 1].
    """

    path: Path
    truth: GroundTruth
    weight: Float32Array | None = None

    def weights_of(self, seen: GroundTruth) -> Float32Array:
        """Of the objects that a view shows, (G,); 1 of each where all are equal."""
        return np.ones(len(seen), dtype=np.float32) if self.weight is None else self.weight[seen.labels - 1]


@dataclass(frozen=True, eq=False)
class AnnotatedBatch:
    """N images with their objects.

    images: (N, H, W, 3) uint8 RGB, smaller ones padded at right and bottom. sizes: of each the (height, width) that is
    image. truths: the objects of each, in pixels of `images`. worths: what they are worth, (G,) float32 each. number:
    which batch it is. turns: the place of each image in the whole batch, of which this process may have a part. For
    what else is drawn for an image, see `image_generator`.
    """

    images: npt.NDArray[np.uint8]
    sizes: tuple[tuple[int, int], ...]
    truths: tuple[GroundTruth, ...]
    weights: tuple[Float32Array, ...]
    number: int
    turns: tuple[int, ...]


class AnnotatedBatches:
    """Batch number i: images in passes, each drawn anew from (seed, i, its turn).

    multiple: sides are padded to multiples of this, with `fill`. part: the places of the images that this process
    makes. Raises ValueError for no images.
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
        shown, weights, turns = [], [], []
        for turn, place in list(enumerate(self._order(number)))[self._part]:
            one = self._images[place]
            generator = image_generator(self._seed, number, turn)
            pixels, seen = self._views.draw(read_image(one.path), one.truth, generator)
            shown.append((pixels, seen))
            weights.append(one.weights_of(seen))
            turns.append(turn)
        images, sizes = padded([pixels for pixels, _ in shown], self._multiple, self._fill)
        return AnnotatedBatch(images, sizes, tuple(seen for _, seen in shown), tuple(weights), number, tuple(turns))


def padded(
    images: Sequence[Image], multiple: int, fill: tuple[int, int, int]
) -> tuple[npt.NDArray[np.uint8], tuple[tuple[int, int], ...]]:
    """Images as one array (N, H, W, 3), and the (height, width) of each; N of at least 1."""
    sizes = tuple((image.shape[0], image.shape[1]) for image in images)
    height, width = (-(-max(size[side] for size in sizes) // multiple) * multiple for side in (0, 1))
    pixels = np.empty((len(images), height, width, 3), dtype=np.uint8)
    pixels[:] = fill
    for row, image in enumerate(images):
        pixels[row, : image.shape[0], : image.shape[1]] = image
    return pixels, sizes
