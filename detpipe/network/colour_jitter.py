"""Brightness, contrast and saturation changed at random, as torchvision's ColorJitter does.

Each of the three is linear in the pixels, so all are one 3 x 4 matrix, and one pass over the pixels.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from detpipe.structures import Image

LUMA = np.array([0.299, 0.587, 0.114])
"""Brightness of red, green and blue: ITU-R BT.601."""


def jitter_colour(image: Image, brightness: float, contrast: float, saturation: float) -> npt.NDArray[np.uint8]:
    """An RGB image (H, W, 3) uint8 with each factor applied, in this order; 1, 1, 1 changes nothing.

    brightness multiplies all pixels, contrast their distance from the image's mean brightness, saturation that from
    their own. Values are cut off at 0 and 255 once, at the end. No pixels give none.
    """
    if not image.size:
        return image
    grey = np.tile(LUMA, (3, 1))
    mean = float(LUMA @ cv2.mean(image)[:3]) * brightness
    desaturated = saturation * np.eye(3) + (1 - saturation) * grey
    matrix = brightness * contrast * desaturated
    # A pixel of one grey value in all channels keeps it under `desaturated`, so the mean passes as it is.
    offset = np.full((3, 1), (1 - contrast) * mean)
    return np.asarray(cv2.transform(image, np.hstack([matrix, offset])), dtype=np.uint8)


def jitter_factor(drawn: float, strength: float) -> float:
    """From a number of [0, 1) a factor of [1 - strength, 1 + strength)."""
    return 1 + strength * (2 * drawn - 1)
