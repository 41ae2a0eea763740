"""Random brightness, contrast and saturation, as in torchvision's ColorJitter.

Each of the three is linear in the pixels. So they are combined into one 3 x 4 matrix and applied in one pass.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from detpipe.structures import Image

LUMA = np.array([0.299, 0.587, 0.114])
"""Weights of red, green and blue in the brightness (luma): ITU-R BT.601."""


def jitter_colour(image: Image, brightness: float, contrast: float, saturation: float) -> npt.NDArray[np.uint8]:
    """Apply the three factors, in this order, to an RGB image (H, W, 3) uint8. Factors of 1 change nothing.

    brightness scales all values. contrast scales the difference from the mean brightness of the image. saturation
    scales the difference from the pixel's own brightness. Values are clipped to 0..255 once, at the end. An empty
    image is returned as it is.
    """
    if not image.size:
        return image
    grey = np.tile(LUMA, (3, 1))
    mean = float(LUMA @ cv2.mean(image)[:3]) * brightness
    desaturated = saturation * np.eye(3) + (1 - saturation) * grey
    matrix = brightness * contrast * desaturated
    # `desaturated` does not change grey pixels, so the grey mean can be added after it.
    offset = np.full((3, 1), (1 - contrast) * mean)
    return np.asarray(cv2.transform(image, np.hstack([matrix, offset])), dtype=np.uint8)


def jitter_factor(drawn: float, strength: float) -> float:
    """Map a number in [0, 1) to a factor in [1 - strength, 1 + strength)."""
    return 1 + strength * (2 * drawn - 1)
