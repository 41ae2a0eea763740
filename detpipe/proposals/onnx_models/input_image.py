"""An image as the input of a model, and boxes of the input as boxes of the image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from detpipe.proposals.onnx_models.presets import Fit
from detpipe.resize import Interpolation, resize
from detpipe.structures import Float32Array, Image


@dataclass(frozen=True, eq=False)
class InputImage:
    """An image in the size of an input.

    pixels: (h, w, 3) uint8 RGB. scale: input pixels per image pixel, (of x, of y). offset: (x, y) of the image's
    corner in the input.
    """

    pixels: Image
    scale: tuple[float, float]
    offset: tuple[int, int]

    def to_image(self, boxes: npt.NDArray[np.float64]) -> Float32Array:
        """Boxes (N, 4), x1 y1 x2 y2 in pixels of the input, as float32 boxes in pixels of the image, not clipped."""
        moved = (boxes - np.tile(self.offset, 2)) / np.tile(self.scale, 2)
        limit = float(np.finfo(np.float32).max)
        return np.asarray(np.clip(moved, -limit, limit), dtype=np.float32)


def fit_image(
    image: Image,
    size: tuple[int, int] | None,
    fit: Fit,
    fill: int | tuple[int, int, int],
    interpolation: Interpolation = Interpolation.bilinear,
    *,
    antialias: bool = False,
) -> InputImage:
    """Bring an image to the size (height, width) of an input; None, or `Fit.original`, leaves it as it is.

    With `Fit.shorter_side`, the size only limits the sides. fill: the level beside the image, or one for each of RGB.
    interpolation, antialias: as of `resize`; default, as `cv2.resize`, with which most projects read and train. An
    image with an extreme aspect ratio keeps at least one pixel. The scales follow from the rounded sizes, so that
    `InputImage.to_image` is exact.
    """
    height, width = image.shape[:2]
    if size is None or fit is Fit.original or size == (height, width):
        return InputImage(image, (1.0, 1.0), (0, 0))
    inside = size
    if fit is Fit.shorter_side:
        scale = min(min(size) / min(height, width), max(size) / max(height, width))
        # Rounded down, as DETR does. 1e-6: 480 * (800 / 480) must not become 799.
        size = inside = (max(int(height * scale + 1e-6), 1), max(int(width * scale + 1e-6), 1))
    elif fit is not Fit.stretch:
        scale = min(size[0] / height, size[1] / width)
        inside = (max(round(height * scale), 1), max(round(width * scale), 1))
    pixels = resize(image, inside, interpolation, antialias=antialias)
    left, top = 0, 0
    if inside != size:
        if fit is Fit.letterbox:
            top, left = (size[0] - inside[0]) // 2, (size[1] - inside[1]) // 2
        filled = np.full((*size, 3), fill, dtype=np.uint8)
        filled[top : top + inside[0], left : left + inside[1]] = pixels
        pixels = filled
    return InputImage(pixels, (inside[1] / width, inside[0] / height), (left, top))
