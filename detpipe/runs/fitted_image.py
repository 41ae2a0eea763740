"""An image for a graph of a fixed size: the input of the graph, and its detections on the original image."""

from __future__ import annotations

import numpy as np

from detpipe import boxes as geometry
from detpipe.proposals.onnx_models.input_image import fit_image
from detpipe.proposals.onnx_models.presets import Fit
from detpipe.resize import Interpolation
from detpipe.structures import Detections, Float32Array, Image


class FittedImage:
    """An image (H, W, 3) in the top left corner of one of `size` (height, width); the rest has the level `fill`."""

    def __init__(self, image: Image, size: tuple[int, int], fill: int) -> None:
        # By area, as the detector itself shrinks images.
        self._input = fit_image(image, size, Fit.top_left, fill, Interpolation.area)
        self._image_size = (image.shape[0], image.shape[1])

    def given(self, boxes: Float32Array) -> tuple[Image, Float32Array]:
        """The image of the fixed size, and boxes (R, 4) of the image in it."""
        scale = np.tile(self._input.scale, 2)
        return self._input.pixels, (boxes * scale).astype(np.float32)

    def found(self, detections: Detections) -> Detections:
        """Detections in pixels of the image, clipped to it, without those beside it."""
        moved = geometry.clip(self._input.to_image(detections.boxes.astype(np.float64)), self._image_size)
        inside = geometry.area(moved) > 0
        return Detections(moved[inside], detections.scores[inside], detections.labels[inside])
