"""The picture of an explanation: for each error a cut-out of the image with its boxes, and a legend below it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import PIL.Image
from PIL import ImageDraw

from detpipe.boxes import clip
from detpipe.diagnosis.explanation import Explanation, Frame, Role
from detpipe.report.drawing import Colour, draw_boxes, scaled, shown_text
from detpipe.structures import Float32Array, Image

COLOURS: dict[Role, Colour] = {
    Role.object: (38, 166, 91),
    Role.proposal: (66, 110, 230),
    Role.moved: (240, 140, 30),
    Role.remover: (226, 61, 61),
    Role.voted: (20, 165, 185),
    Role.detection: (150, 70, 200),
}
CAPTIONS = {
    Role.object: "object",
    Role.proposal: "proposal",
    Role.moved: "after regression",
    Role.remover: "removed by",
    Role.voted: "after voting",
    Role.detection: "detection",
}
SIDE = 640
"""The longer side of a cut-out in pixels."""
ROW, LETTERS = 26, 15
"""The height of a line of the legend and of its letters."""
MOST = 12
"""Panels in a picture; more would be too many to look at."""
GREY = 32


def explanation_picture(image: Image, explanations: Sequence[Explanation]) -> Image:
    """The panels of the first MOST explanations that have boxes, one below the other in up to two columns.

    image: (H, W, 3). Without explanations, the image itself is returned.
    """
    panels = [panel(image, one) for one in explanations if one.frames][:MOST]
    if not panels:
        return image
    columns = 1 if len(panels) == 1 else 2
    rows = [panels[start : start + columns] for start in range(0, len(panels), columns)]
    gap = 12
    height = sum(max(len(one) for one in row) for row in rows) + gap * (len(rows) + 1)
    sheet = np.full((height, columns * SIDE + gap * (columns + 1), 3), GREY, dtype=np.uint8)
    top = gap
    for row in rows:
        for number, one in enumerate(row):
            left = gap + number * (SIDE + gap)
            sheet[top : top + one.shape[0], left : left + SIDE] = one
        top += max(len(one) for one in row) + gap
    return sheet


def panel(image: Image, explanation: Explanation) -> Image:
    """The part of the image around the boxes of an explanation, SIDE pixels wide, with title and legend."""
    boxes = np.array([frame.box for frame in explanation.frames], dtype=np.float32).reshape(-1, 4)
    height, width = image.shape[:2]
    x1, y1, x2, y2 = _window(clip(boxes, (height, width)), (height, width))
    scale = SIDE / max(x2 - x1, y2 - y1)
    part = scaled(np.ascontiguousarray(image[y1:y2, x1:x2]), scale)[:SIDE, :SIDE]
    placed = (boxes - np.array([x1, y1, x1, y1], dtype=np.float32)) * np.float32(scale)
    drawn = draw_boxes(
        part,
        placed,
        [CAPTIONS[frame.role] for frame in explanation.frames],
        [COLOURS[frame.role] for frame in explanation.frames],
        dashed=[frame.role is Role.object for frame in explanation.frames],
    )
    square = np.full((drawn.shape[0], SIDE, 3), GREY, dtype=np.uint8)
    left = (SIDE - drawn.shape[1]) // 2
    square[:, left : left + drawn.shape[1]] = drawn
    return np.concatenate([_legend([explanation.title], []), square, _legend([], explanation.frames)])


def _window(boxes: Float32Array, image_size: tuple[int, int]) -> tuple[int, int, int, int]:
    """x1 y1 x2 y2 of the part of the image (height, width) that has the boxes and their surroundings."""
    height, width = image_size
    x1, y1 = boxes[:, :2].min(axis=0)
    x2, y2 = boxes[:, 2:].max(axis=0)
    margin = 0.35 * max(x2 - x1, y2 - y1, 24)
    left, top = max(0, int(x1 - margin)), max(0, int(y1 - margin))
    right, bottom = min(width, int(np.ceil(x2 + margin))), min(height, int(np.ceil(y2 + margin)))
    return left, top, right, bottom  # the margin is wider than a pixel, and the boxes are within the image


def _legend(titles: Sequence[str], frames: Sequence[Frame]) -> Image:
    """Lines of text on dark grey, SIDE wide: titles, and a line with the colour of each frame. None gives no height."""
    rows = [*((text, None) for text in titles), *((frame.text, COLOURS[frame.role]) for frame in frames)]
    strip = PIL.Image.fromarray(np.full((ROW * len(rows), SIDE, 3), GREY, dtype=np.uint8))
    if not rows:
        return np.array(strip).reshape(0, SIDE, 3)
    canvas = ImageDraw.Draw(strip)
    for number, (text, colour) in enumerate(rows):
        top, left = number * ROW, 8
        if colour is not None:
            canvas.rectangle((left, top + 6, left + 13, top + 19), fill=colour)
            left += 22
        shown_text(canvas, (left, top + 3), text, LETTERS, SIDE - left - 8)
    return np.array(strip)
