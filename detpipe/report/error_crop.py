"""A part of an image around a box, with boxes: the picture of an error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from detpipe.boxes import clip
from detpipe.report.drawing import Colour, draw_boxes, scaled
from detpipe.structures import Image

SIDE = 240
"""Longest side in pixels."""
CONTEXT = 0.6
"""Margin around a box, as a share of its longer side."""


@dataclass(frozen=True)
class Frame:
    """A box x1 y1 x2 y2 in pixels of the image, drawn in a colour. dashed: for annotated objects."""

    box: Sequence[float]
    colour: Colour
    dashed: bool = False


def error_crop(image: Image, focus: Sequence[float], frames: Sequence[Frame]) -> Image:
    """The surroundings of a box, with frames; the first is drawn last, on top. The longest side has SIDE pixels.

    focus: x1 y1 x2 y2 in pixels. Of a box beyond the image's edge, the nearest pixels are shown.
    """
    x1, y1, x2, y2 = focus
    margin = max(16.0, CONTEXT * max(x2 - x1, y2 - y1))
    around = np.array([[x1 - margin, y1 - margin, x2 + margin, y2 + margin]], dtype=np.float32)
    left, top, right, bottom = clip(around, (image.shape[0], image.shape[1]))[0].round().astype(int).tolist()
    left, top = min(left, image.shape[1] - 1), min(top, image.shape[0] - 1)
    part = image[top : top + max(1, bottom - top), left : left + max(1, right - left)]
    scale = SIDE / max(part.shape[:2])
    origin = np.array([left, top, left, top], dtype=np.float32)
    drawn = scaled(part, scale)
    for frame in reversed(frames):
        box = (np.array([frame.box], dtype=np.float32) - origin) * np.float32(scale)
        drawn = draw_boxes(drawn, box, colours=[frame.colour], dashed=frame.dashed)
    return drawn
