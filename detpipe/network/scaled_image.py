"""Resizing and mirroring of an image for a network, and of its boxes in both directions.

R: number of boxes; boxes are (R, 4), in pixels. image_size is (height, width).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from detpipe.backbone.input_spec import ChannelOrder, InputSpec
from detpipe.resize import resize
from detpipe.structures import Float32Array, Image


@dataclass(frozen=True)
class Scaling:
    """The mapping from an image to the network's input. The edges of the image map to the edges of the input.

    image_size, input_size: (height, width). mirrored: flipped left to right.
    """

    image_size: tuple[int, int]
    input_size: tuple[int, int]
    mirrored: bool = False

    @classmethod
    def to_side(cls, image_size: tuple[int, int], shorter: int, longest: int, *, mirrored: bool = False) -> Scaling:
        """Scale the shorter side to `shorter` pixels, or less if the longer side would exceed `longest` pixels."""
        height, width = image_size
        factor = min(shorter / min(height, width), longest / max(height, width))
        return cls(image_size, (max(round(height * factor), 1), max(round(width * factor), 1)), mirrored)

    @property
    def factors(self) -> Float32Array:
        """(4,) float32: the factors of x1, y1, x2, y2. Sides are rounded to whole pixels, so x and y differ a bit."""
        y, x = (new / old for new, old in zip(self.input_size, self.image_size, strict=True))
        return np.array([x, y, x, y], dtype=np.float32)

    def pixels(self, image: Image) -> Image:
        """Resize an image, (H, W, 3) -> (H', W', 3): area averaging along a side that shrinks, bilinear if it grows.

        Raises ValueError for an image of another size.
        """
        if image.shape[:2] != self.image_size:
            raise ValueError(
                f"expected an image of {self.image_size}, got {image.shape[:2]}: its boxes belong to another image"
            )
        scaled = resize(image, self.input_size)
        return np.ascontiguousarray(scaled[:, ::-1]) if self.mirrored else scaled

    def to_input(self, boxes: Float32Array) -> Float32Array:
        """Boxes on the image -> boxes on the input. (R, 4) -> (R, 4); R = 0 gives (0, 4)."""
        scaled = boxes * self.factors
        return self._mirror(scaled) if self.mirrored else scaled

    def to_image(self, boxes: Float32Array) -> Float32Array:
        """The inverse of `to_input`."""
        return (self._mirror(boxes) if self.mirrored else boxes) / self.factors

    def _mirror(self, boxes: Float32Array) -> Float32Array:
        width = np.float32(self.input_size[1])
        return np.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], axis=1)


def mean_colour(spec: InputSpec) -> tuple[int, int, int]:
    """The RGB colour that becomes 0 after normalisation. It is used for padding."""
    red, green, blue = spec.mean if spec.channel_order is ChannelOrder.RGB else spec.mean[::-1]
    return round(red), round(green), round(blue)


def padded(pixels: Image, multiple: int, colour: tuple[int, int, int]) -> Image:
    """Pad the right and bottom with a colour to multiples of a length: (H, W, 3) -> (1, H', W', 3)."""
    height, width = (-(-side // multiple) * multiple for side in pixels.shape[:2])
    if (height, width) == pixels.shape[:2]:
        return pixels[None]
    canvas = np.empty((1, height, width, 3), dtype=np.uint8)
    canvas[:] = colour
    canvas[0, : pixels.shape[0], : pixels.shape[1]] = pixels
    return canvas
