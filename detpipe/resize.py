"""Resizing of images with a choice of interpolation and antialiasing.

Two other files resize in their own way, because their results are fixed to the byte: selective search shrinks images in
integers (`proposals/selective_search/working_size.py`), and crops of regions are affine warps of halved images
(`classify/crops/crop.py`).
"""

from __future__ import annotations

from enum import StrEnum

import cv2
import numpy as np
import numpy.typing as npt
import PIL.Image


class Interpolation(StrEnum):
    """The interpolation method."""

    nearest = "nearest"
    bilinear = "bilinear"
    bicubic = "bicubic"
    area = "area"
    """Mean of the covered area along a side that shrinks, bilinear along a side that grows."""
    lanczos = "lanczos"


_OPENCV = {
    Interpolation.nearest: cv2.INTER_NEAREST,
    Interpolation.bilinear: cv2.INTER_LINEAR,
    Interpolation.bicubic: cv2.INTER_CUBIC,
    Interpolation.lanczos: cv2.INTER_LANCZOS4,
}
_PILLOW = {
    Interpolation.bilinear: PIL.Image.Resampling.BILINEAR,
    Interpolation.bicubic: PIL.Image.Resampling.BICUBIC,
    Interpolation.lanczos: PIL.Image.Resampling.LANCZOS,
}


def resize(
    image: npt.NDArray[np.uint8],
    size: tuple[int, int],
    interpolation: Interpolation = Interpolation.area,
    *,
    antialias: bool = True,
) -> npt.NDArray[np.uint8]:
    """Resize an image, (H, W, 3) or (H, W) uint8, to `size` (height, width). The result is a copy.

    `size` may have another aspect ratio. antialias: for bilinear, bicubic and lanczos, widen the kernel along a side
    that shrinks, so that no pixel is skipped. Pillow does this, and the networks of torchvision and timm were trained
    with it. False samples points, as `cv2.resize` and Caffe do.
    Raises ValueError for an image without pixels and for a size below 1.
    """
    if min(*image.shape[:2], *size) < 1:
        raise ValueError(
            f"resize: expected an image with pixels and a size of at least 1, got {image.shape} and {size}"
        )
    if image.shape[:2] == size:
        return image.copy()
    if interpolation is Interpolation.area:
        return _area(image, size)
    if antialias and interpolation in _PILLOW:
        return np.array(PIL.Image.fromarray(image).resize(size[::-1], _PILLOW[interpolation]))
    return np.asarray(cv2.resize(image, size[::-1], interpolation=_OPENCV[interpolation]), dtype=np.uint8)


def _area(image: npt.NDArray[np.uint8], size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    # If one side grows, OpenCV's INTER_AREA samples points along the other. So shrinking sides are resized first.
    height, width = (min(old, new) for old, new in zip(image.shape[:2], size, strict=True))
    if (height, width) != image.shape[:2]:
        image = np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), dtype=np.uint8)
    if (height, width) != size:
        image = np.asarray(cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR), dtype=np.uint8)
    return image
