"""An image brought to the size that a network sees it at, mirrored or not, and boxes there and back.

R: boxes, (R, 4), pixels. image_size is (height, width).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from detpipe.backbone.input_spec import ChannelOrder, InputSpec
from detpipe.resize import resize
from detpipe.structures import Float32Array, Image


@dataclass(frozen=True)
class Scaling:
    """From an image to the input that is made of it: both edges of the image are both edges of the input.

    image_size, input_size: (height, width). mirrored: left to right.
    """

    image_size: tuple[int, int]
    input_size: tuple[int, int]
    mirrored: bool = False

    @classmethod
    def to_side(cls, image_size: tuple[int, int], shorter: int, longest: int, *, mirrored: bool = False) -> Scaling:
        """The shorter side becomes `shorter` pixels, unless the longer one were more than `longest` then."""
        height, width = image_size
        factor = min(shorter / min(height, width), longest / max(height, width))
        return cls(image_size, (max(round(height * factor), 1), max(round(width * factor), 1)), mirrored)

    @property
    def factors(self) -> Float32Array:
        """(4,): by what x1 y1 x2 y2 are multiplied. Sides are whole pixels, so x and y may differ a little."""
        y, x = (new / old for new, old in zip(self.input_size, self.image_size, strict=True))
        return np.array([x, y, x, y], dtype=np.float32)

    def pixels(self, image: Image) -> Image:
        """(H, W, 3) -> (H', W', 3), averaged along a side that shrinks, bilinear along one that grows.

        Raises ValueError for an image of another size.
        """
        if image.shape[:2] != self.image_size:
            raise ValueError(
                f"expected an image of {self.image_size}, got {image.shape[:2]}: its boxes are of another one"
            )
        scaled = resize(image, self.input_size)
        return np.ascontiguousarray(scaled[:, ::-1]) if self.mirrored else scaled

    def to_input(self, boxes: Float32Array) -> Float32Array:
        """Boxes on the image -> the same on the input. (R, 4) -> (R, 4); R = 0 gives (0, 4)."""
        scaled = boxes * self.factors
        return self._mirror(scaled) if self.mirrored else scaled

    def to_image(self, boxes: Float32Array) -> Float32Array:
        """The inverse of `to_input`."""
        return (self._mirror(boxes) if self.mirrored else boxes) / self.factors

    def _mirror(self, boxes: Float32Array) -> Float32Array:
        width = np.float32(self.input_size[1])
        return np.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], axis=1)


def mean_colour(spec: InputSpec) -> tuple[int, int, int]:
    """RGB of what is 0 to a network: what pads its input."""
    red, green, blue = spec.mean if spec.channel_order is ChannelOrder.RGB else spec.mean[::-1]
    return round(red), round(green), round(blue)
