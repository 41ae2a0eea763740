"""Crop and augmentation of stored images (Caffe's crop_size and mirror, Inception crops).

All random numbers of a view are in its Draws, so the result does not depend on the process or thread that makes it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from detpipe.classify.images.database import Resize
from detpipe.classify.images.settings import ViewConfig
from detpipe.resize import Interpolation, resize
from detpipe.storage.datum import is_jpeg, stored_size, unpack_image
from detpipe.storage.messages_pb2 import Datum
from detpipe.structures import Image

SHAPES = (3 / 4, 4 / 3)
"""Range of width / height of crops with random_area: Szegedy et al., "Going deeper with convolutions", section 6."""
REDUCTIONS = (8, 4, 2)
"""Factors by which libjpeg can shrink an image during decoding, which is faster."""


class Draws(NamedTuple):
    """The random numbers of one view, each in [0, 1)."""

    top: float
    left: float
    area: float
    shape: float
    mirror: float
    brightness: float
    contrast: float
    saturation: float


def draw_views(generator: np.random.Generator, count: int) -> list[Draws]:
    """The random numbers of `count` views, drawn in one call, which is many times faster."""
    return [Draws(*row) for row in generator.random((count, len(Draws._fields))).tolist()]


class Cut(NamedTuple):
    """A crop: a rectangle in an image, in whole pixels."""

    top: int
    left: int
    height: int
    width: int

    def reduced(self, reduction: int, image_size: tuple[int, int]) -> Cut:
        """The same crop in an image shrunk by the factor `reduction`: at least one pixel, within the image.

        image_size: (height, width) of the shrunk image, rounded up.
        """
        if reduction == 1:
            return self
        height = min(max(1, round(self.height / reduction)), image_size[0])
        width = min(max(1, round(self.width / reduction)), image_size[1])
        top = min(round(self.top / reduction), image_size[0] - height)
        return Cut(top, min(round(self.left / reduction), image_size[1] - width), height, width)


def view_datum(
    datum: Datum,
    where: str,
    size: tuple[int, int],
    view: ViewConfig,
    draws: Draws | None,
    interpolation: Interpolation,
) -> npt.NDArray[np.uint8]:
    """The network's input from a record: (*size, 3) uint8 RGB. Large JPEGs are decoded at 1/2, 1/4 or 1/8 size.

    size: (height, width) of the input. draws: random numbers for training; None for testing, which uses the centre
    crop. interpolation: the network's own (InputSpec), used if the crop is resized.
    Raises CorruptDatumError, and ValueError for an image smaller than its crop.
    """
    image_size = stored_size(datum)
    if image_size is None:  # Caffe's encoded records do not store it
        image = unpack_image(datum, where)
        return take_cut(image, place_cut(image.shape[:2], size, view, draws), size, interpolation)
    cut = place_cut(image_size, size, view, draws)
    reduction = reduction_of(cut, size) if is_jpeg(datum) else 1
    image = unpack_image(datum, where, reduction=reduction)
    return take_cut(image, cut.reduced(reduction, image.shape[:2]), size, interpolation)


def view_photo(
    pixels: npt.NDArray[np.uint8],
    size: tuple[int, int],
    view: ViewConfig,
    resized: Resize,
    interpolation: Interpolation,
) -> npt.NDArray[np.uint8]:
    """The network's input from a photo (H, W, 3) RGB or (H, W) grey: (*size, 3) uint8 RGB, as of a stored image.

    resized: how `make-db` resized the images that the network was trained on. interpolation: the network's own.
    Raises ValueError for a photo smaller than its crop.
    """
    stored = resized(pixels)
    image = stored if stored.ndim == 3 else np.repeat(stored[:, :, None], 3, axis=2)
    cut = place_cut((image.shape[0], image.shape[1]), size, view, None)
    return take_cut(image, cut, size, interpolation)


def place_cut(image_size: tuple[int, int], size: tuple[int, int], view: ViewConfig, draws: Draws | None) -> Cut:
    """The crop of an image. Without draws it is the centre crop; an odd pixel remains at the right and bottom.

    image_size, size: (height, width). Raises ValueError for an image smaller than its crop.
    """
    if draws is not None and view.random_area is not None:
        height, width = _random_size(image_size, view.random_area, draws)
    else:
        height, width = _cut_size(image_size, size, view.share)
    room = (image_size[0] - height, image_size[1] - width)
    if min(room) < 0:
        raise ValueError(
            f"expected images of at least {height} x {width} pixels to crop the input, got {image_size[0]} x "
            f"{image_size[1]}; make the database larger, give backbone.input_size, or view.share=1 to enlarge"
        )
    if draws is None or not view.random_crop:
        return Cut(room[0] // 2, room[1] // 2, height, width)
    return Cut(int(draws.top * (room[0] + 1)), int(draws.left * (room[1] + 1)), height, width)


def reduction_of(cut: Cut, size: tuple[int, int]) -> int:
    """The largest factor of 8, 4 and 2 that leaves the crop at least as large as `size`; 1 if no factor does."""
    fits = (r for r in REDUCTIONS if cut.height >= r * size[0] and cut.width >= r * size[1])
    return next(fits, 1)


def take_cut(image: Image, cut: Cut, size: tuple[int, int], interpolation: Interpolation) -> npt.NDArray[np.uint8]:
    """Crop an image (H, W, 3) and resize to `size` with antialiasing. A crop of that size is not copied."""
    part = image[cut.top : cut.top + cut.height, cut.left : cut.left + cut.width]
    if part.shape[:2] == size:
        return part
    return resize(part, size, interpolation)


def _cut_size(image_size: tuple[int, int], size: tuple[int, int], share: float | None) -> tuple[int, int]:
    """(height, width) of the crop: the largest with the input's aspect ratio, times `share`; None gives `size`."""
    if share is None:
        return size
    scale = min(image_size[0] / size[0], image_size[1] / size[1]) * share
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _random_size(image_size: tuple[int, int], least: float, draws: Draws) -> tuple[int, int]:
    """(height, width) of a random crop: relative area uniform in [least, 1], aspect ratio log-uniform.

    A crop that exceeds the image is clipped. torchvision draws again instead; here each view uses a fixed number of
    random numbers.
    """
    height, width = image_size
    area = height * width * (least + (1 - least) * draws.area)
    shape = math.exp(math.log(SHAPES[0]) + math.log(SHAPES[1] / SHAPES[0]) * draws.shape)
    return (
        min(max(1, round(math.sqrt(area / shape))), height),
        min(max(1, round(math.sqrt(area * shape))), width),
    )
