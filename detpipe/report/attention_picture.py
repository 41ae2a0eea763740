"""The picture of attention: for each detection the regions that it attended to, by the strength of their lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import PIL.Image
from PIL import ImageDraw

from detpipe.boxes import clip
from detpipe.classify.object_trace import Box
from detpipe.report.drawing import RED, Colour, draw_boxes, scaled, shown_text
from detpipe.structures import Float32Array, Image

ATTENDED: Colour = (66, 160, 255)
SIDE = 640
"""The longer side of a panel in pixels."""
GAP, ROW, LETTERS = 12, 26, 15
"""Pixels between panels, height of a line of text, and size of its letters."""
GREY = 32
WIDEST = 8
"""Width of the line of the largest weight in pixels."""


@dataclass(frozen=True, kw_only=True)
class Attended:
    """A region that a detection attended to. weight: its share of the attention."""

    box: Box
    weight: float


@dataclass(frozen=True, kw_only=True)
class DetectionAttention:
    """A detection and the regions that it attended to, largest weight first. own: the weight of its own region."""

    name: str
    score: float
    box: Box
    own: float
    regions: tuple[Attended, ...]


def attention_picture(image: Image, found: Sequence[DetectionAttention]) -> Image:
    """A panel for each detection, in up to two columns. image: (H, W, 3). No detections give the image itself."""
    if not found:
        return image
    panels = [panel(image, one) for one in found]
    columns = min(2, len(panels))
    height, width = panels[0].shape[:2]
    rows = -(-len(panels) // columns)
    sheet = np.full((rows * (height + GAP) + GAP, columns * (width + GAP) + GAP, 3), GREY, dtype=np.uint8)
    for number, one in enumerate(panels):
        top, left = GAP + number // columns * (height + GAP), GAP + number % columns * (width + GAP)
        sheet[top : top + height, left : left + width] = one
    return sheet


def panel(image: Image, found: DetectionAttention) -> Image:
    """The image, SIDE pixels long, with a detection and a line from it to each region, below a line of text."""
    scale = SIDE / max(image.shape[:2])
    small = scaled(image, scale)
    size = (small.shape[0], small.shape[1])
    boxes = clip(np.array([one.box for one in found.regions], dtype=np.float32).reshape(-1, 4) * scale, size)
    own = clip(np.array([found.box], dtype=np.float32) * scale, size)
    largest = max((one.weight for one in found.regions), default=0.0)
    shares = [one.weight / largest if largest > 0 else 0.0 for one in found.regions]
    drawn = draw_boxes(with_lines(small, own[0], boxes, shares), own, [], [RED])
    sheet = np.full((size[0] + ROW, size[1], 3), GREY, dtype=np.uint8)
    sheet[ROW:] = drawn
    picture = PIL.Image.fromarray(sheet)
    rest = sum(one.weight for one in found.regions)
    text = f"{found.name} {found.score:.2f}: {found.own:.0%} to itself, {rest:.0%} to {len(found.regions)} others"
    shown_text(ImageDraw.Draw(picture), (8, 4), text, LETTERS, size[1] - 16)
    return np.array(picture)


def with_lines(image: Image, start: Float32Array, boxes: Float32Array, shares: Sequence[float]) -> Image:
    """A copy of the image with frames, and lines from `start` to them, by their centres; opacity and width by share."""
    picture = PIL.Image.fromarray(image).convert("RGBA")
    from_x, from_y = (float(start[side] + start[side + 2]) / 2 for side in (0, 1))
    for box, share in reversed(list(zip(boxes.tolist(), shares, strict=True))):
        layer = PIL.Image.new("RGBA", picture.size)
        canvas = ImageDraw.Draw(layer)
        colour, width = (*ATTENDED, 40 + round(200 * share)), 1 + round((WIDEST - 1) * share)
        canvas.rectangle(box, outline=colour, width=max(1, width // 2))
        canvas.line((from_x, from_y, (box[0] + box[2]) / 2, (box[1] + box[3]) / 2), fill=colour, width=width)
        picture = PIL.Image.alpha_composite(picture, layer)
    return np.array(picture.convert("RGB"))
