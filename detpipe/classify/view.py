"""What of a stored image a network sees: a square cut out of it, as Caffe's crop_size and mirror do."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from detpipe.structures import Image


@dataclass(kw_only=True)
class ViewConfig:
    """How a stored image becomes the network's input."""

    share: float | None = None
    """null cuts the input's size out of the stored pixels, as Caffe's crop_size; a number from 0 to 1 cuts this share
    of the shorter side and brings it to the input's size: for images that were stored at their own size."""
    random_crop: bool = True
    """In training, cut at a random place; false cuts the middle, as tests always do."""

    def __post_init__(self) -> None:
        if self.share is not None and not 0 < self.share <= 1:
            raise ValueError(f"view.share: wanted a share above 0 up to 1, or null, got {self.share}")


def cut_view(
    image: Image, size: tuple[int, int], share: float | None, generator: np.random.Generator | None
) -> npt.NDArray[np.uint8]:
    """The part of an image that the network sees: (H, W, 3) -> (*size, 3).

    size: (height, width) of the input. generator: draws the place; None takes the middle, where an odd pixel stays
    right and below. With a share, pixels are averaged where the cut shrinks. Raises ValueError for an image smaller
    than its cut.
    """
    height, width = _cut_size(image, size, share)
    room = (image.shape[0] - height, image.shape[1] - width)
    if min(room) < 0:
        raise ValueError(
            f"wanted images of at least {height} x {width} pixels to cut the input out, got {image.shape[0]} x "
            f"{image.shape[1]}; make the database larger, give backbone.input_size, or view.share=1 to enlarge"
        )
    if generator is None:
        top, left = room[0] // 2, room[1] // 2
    else:
        top, left = int(generator.integers(room[0] + 1)), int(generator.integers(room[1] + 1))
    cut = image[top : top + height, left : left + width]
    if (height, width) == size:
        return cut
    how = cv2.INTER_AREA if height > size[0] else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(cut, size[::-1], interpolation=how), dtype=np.uint8)


def _cut_size(image: Image, size: tuple[int, int], share: float | None) -> tuple[int, int]:
    """(height, width) of the cut: of the input's shape, as large as fits, times the share."""
    if share is None:
        return size
    scale = min(image.shape[0] / size[0], image.shape[1] / size[1]) * share
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
