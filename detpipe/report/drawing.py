"""Drawing of boxes on images: detections solid, ground truth dashed."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import PIL.Image
from PIL import ImageDraw

from detpipe.boxes import clip
from detpipe.report.fonts import runs, shown_name
from detpipe.resize import Interpolation, resize
from detpipe.storage.encoded_image import JPEG_SIDE
from detpipe.structures import Detections, Float32Array, GroundTruth, Image

Colour = tuple[int, int, int]
"""Red, green, blue in 0..255."""

RED, GREEN = (226, 61, 61), (38, 166, 91)
_PALETTE = (
    (230, 70, 70), (47, 158, 90), (66, 110, 230), (240, 140, 30), (150, 70, 200),
    (20, 165, 185), (225, 80, 170), (150, 110, 60), (125, 140, 20), (90, 105, 125),
)  # fmt: skip
_GOLDEN = (math.sqrt(5) - 1) / 2


def class_colour(label: int) -> Colour:
    """The colour of label 1..K in all reports: a palette of ten, then hues spaced by the golden ratio."""
    if label <= len(_PALETTE):
        return _PALETTE[label - 1]
    red, green, blue = colorsys.hsv_to_rgb(label * _GOLDEN % 1, 0.55 + 0.35 * (label % 3) / 2, 0.85)
    return int(red * 255), int(green * 255), int(blue * 255)


def draw_boxes(
    image: Image,
    boxes: Float32Array,
    captions: Sequence[str] = (),
    colours: Sequence[Colour] = (),
    *,
    dashed: bool = False,
    thin: bool = False,
) -> Image:
    """A copy of the image with a frame around each box. Line width and font size are relative to the image size.

    boxes: (N, 4) in pixels of this image, the most important first: it is drawn last, on top. Boxes are clipped to the
    image. captions: one per box, or empty for none; "" draws no caption. Captions stay in the image and do not overlap:
    without a free place next to its box or in it, a caption is left out, the least important first. colours: one per
    box, or empty for red. dashed: for ground truth. thin: half the line width, for many boxes. N = 0 gives an unchanged
    copy. Raises ValueError if the numbers differ.
    """
    for what, given in (("captions", captions), ("colours", colours)):
        if given and len(given) != len(boxes):
            raise ValueError(f"draw_boxes: expected {len(boxes)} {what}, one per box, or none, got {len(given)}")
    picture = PIL.Image.fromarray(image)
    canvas = ImageDraw.Draw(picture, "RGBA")
    height, width = image.shape[:2]
    line = max(1, round((height + width) / (600 if thin else 300)))
    size = max(11, round((height + width) / 52))
    frames = clip(boxes, (height, width)).round().astype(int).tolist()
    colours = colours or [RED] * len(boxes)
    for frame, colour in reversed(list(zip(frames, colours, strict=True))):
        _frame(canvas, frame, colour, line, dashed)
    taken: list[Plate] = []
    for frame, colour, caption in zip(frames, colours, captions or [""] * len(boxes), strict=True):
        _caption(canvas, frame, _one_line(caption), colour, size, (height, width), taken)
    return np.array(picture)


def draw_detections(image: Image, detections: Detections, classes: Sequence[str], *, min_score: float = 0.0) -> Image:
    """A copy of the image with the detections with at least min_score, with their class colours, names and scores."""
    shown = detections.scores >= min_score
    labels = detections.labels[shown].tolist()
    scores = detections.scores[shown].tolist()
    captions = [f"{shown_name(classes, label)} {score:.2f}" for label, score in zip(labels, scores, strict=True)]
    return draw_boxes(image, detections.boxes[shown], captions, [class_colour(label) for label in labels])


def draw_ground_truth(image: Image, ground_truth: GroundTruth, classes: Sequence[str], *, names: bool = True) -> Image:
    """A copy of the image with the objects as dashed boxes in their class colours. names: whether to write names."""
    labels = ground_truth.labels.tolist()
    captions = [shown_name(classes, label) for label in labels] if names else []
    return draw_boxes(image, ground_truth.boxes, captions, [class_colour(label) for label in labels], dashed=True)


def contact_sheet(images: Sequence[Image], columns: int, cell: tuple[int, int]) -> Image:
    """The images in a grid on grey, each resized to fit a cell of (height, width).

    Raises ValueError without images, and if columns or a side of the cell is below 1.
    """
    height, width = cell
    if not images or columns < 1 or min(cell) < 1:
        raise ValueError(
            f"contact_sheet: expected at least one image, column and pixel, got {len(images)}, {columns} and {cell}"
        )
    sheet = np.full((height * -(-len(images) // columns), width * columns, 3), 40, dtype=np.uint8)
    for index, image in enumerate(images):
        scale = min(height / image.shape[0], width / image.shape[1])
        small = scaled(image, scale)[:height, :width]
        top = index // columns * height + (height - small.shape[0]) // 2
        left = index % columns * width + (width - small.shape[1]) // 2
        sheet[top : top + small.shape[0], left : left + small.shape[1]] = small
    return sheet


def captioned(image: Image, text: str, colour: Colour, side: int) -> Image:
    """The image, resized to fit a square of `side` pixels, with the text above it on a coloured background."""
    gap, plate = 3, 18
    cell = np.full((side + plate + 2 * gap, side + 2 * gap, 3), 40, dtype=np.uint8)
    cell[plate + gap : plate + gap + side, gap : gap + side] = contact_sheet([image], 1, (side, side))
    picture = PIL.Image.fromarray(cell)
    frame = [gap, plate + gap, gap + side, plate + gap + side]
    size = (cell.shape[0], cell.shape[1] - gap)
    _caption(ImageDraw.Draw(picture, "RGBA"), frame, _one_line(text), colour, 12, size, [])
    return np.array(picture)


def scaled(image: Image, scale: float) -> Image:
    """The image resized by a factor, at least 1 pixel high and wide."""
    size = (max(1, round(image.shape[0] * scale)), max(1, round(image.shape[1] * scale)))
    return resize(image, size, Interpolation.area if scale < 1 else Interpolation.bicubic)


def to_jpeg(image: Image, quality: int = 92) -> bytes:
    """The bytes of a JPEG file of the image, scaled down to the limit on its sides. quality: 0 to 100.

    Raises ValueError for an image without pixels.
    """
    if not image.size:
        raise ValueError(f"expected an image with pixels, got {image.shape}")
    longest = max(image.shape[:2])
    if longest > JPEG_SIDE:
        image = scaled(image, JPEG_SIDE / longest)
    return cv2.imencode(".jpg", image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def image_to_png(image: Image) -> bytes:
    """The bytes of a PNG file of the image (lossless). Raises ValueError for an image without pixels."""
    if not image.size:
        raise ValueError(f"expected an image with pixels, got {image.shape}")
    return cv2.imencode(".png", image[:, :, ::-1])[1].tobytes()


def _one_line(text: str) -> str:
    """The text without control characters and lone surrogates (in some file names), which FreeType can't draw."""
    return "".join(c if c.isprintable() else " " for c in text.encode("utf-8", "replace").decode("utf-8")).strip()


def _width(text: str, size: int) -> float:
    """The width of the text in pixels."""
    return sum(font.getlength(part) for part, font in runs(text, size))


def _fit(text: str, size: int, width: int) -> str:
    """The text, shortened with an ellipsis to fit the width, or "" if not even one letter fits."""
    if _width(text, size) <= width:
        return text
    text = text[:width]  # each letter is at least a pixel wide
    while text and _width(text + "…", size) > width:
        text = text[:-1]
    return text.rstrip() + "…" if text else ""


def _frame(canvas: ImageDraw.ImageDraw, frame: list[int], colour: Colour, line: int, dashed: bool) -> None:
    """A line along the inside of the frame, with a thin dark edge so that it is visible on any background."""
    left, top, right, bottom = frame
    dash = line * 5 if dashed else max(right - left, bottom - top, 1)
    step = line * 9 if dashed else dash
    edges = [(x, y, min(x + dash, right), y + line) for y in (top, bottom - line) for x in range(left, right, step)]
    edges += [(x, y, x + line, min(y + dash, bottom)) for x in (left, right - line) for y in range(top, bottom, step)]
    for grow, fill in ((1, (0, 0, 0, 90)), (0, (*colour, 255))):
        for x1, y1, x2, y2 in edges:
            # PIL's rectangles include the last pixel.
            corners = (x1 - grow, y1 - grow, max(x2 - 1, x1) + grow, max(y2 - 1, y1) + grow)
            canvas.rectangle(corners, fill=fill)


@dataclass(frozen=True)
class Plate:
    """The background of a caption in pixels; right and bottom are not included."""

    left: int
    top: int
    right: int
    bottom: int

    def meets(self, other: Plate) -> bool:
        """Whether they share a pixel."""
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )


def _places(frame: list[int], width: int, height: int, image_size: tuple[int, int]) -> Iterator[Plate]:
    """Places for a caption of this size that are in the image: above the frame, at its top, below it, at its bottom.

    Each first at the left edge of the frame, then at its right edge.
    """
    x1, y1, x2, y2 = frame
    rows = [y1 - height, y1, y2, y2 - height]
    if y1 < height:  # no room above, so the upper edge of the image is nearer than below the frame
        rows.insert(1, 0)
    for top in rows:
        for edge in (x1, x2 - width):
            left = max(0, min(edge, image_size[1] - width))
            if 0 <= top <= image_size[0] - height and left + width <= image_size[1]:
                yield Plate(left, top, left + width, top + height)


def _caption(
    canvas: ImageDraw.ImageDraw,
    frame: list[int],
    text: str,
    colour: Colour,
    size: int,
    image_size: tuple[int, int],
    taken: list[Plate],
) -> None:
    """The text on a coloured background at the first place near the frame that is in the image and free.

    taken: the places of earlier captions; this one's is added. Without a free place nothing is drawn.
    """
    width = image_size[1]
    pad = max(2, size // 5)
    text = _fit(text, size, max(0, width - 2 * pad))
    if not text:
        return
    parts = runs(text, size)
    ascent, descent = (max(part_font.getmetrics()[i] for _, part_font in parts) for i in (0, 1))
    plate_width, plate_height = int(_width(text, size)) + 2 * pad, ascent + descent + pad // 2
    plate = next(
        (one for one in _places(frame, plate_width, plate_height, image_size) if not any(map(one.meets, taken))), None
    )
    if plate is None:
        return
    taken.append(plate)
    left, top = plate.left, plate.top
    canvas.rectangle((left, top, plate.right - 1, plate.bottom - 1), fill=(*colour, 225))
    dark = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] < 150
    fill = (255, 255, 255, 255) if dark else (15, 15, 15, 255)
    x = float(left + pad)
    for part, part_font in parts:
        canvas.text((x, top + ascent - part_font.getmetrics()[0]), part, fill=fill, font=part_font)
        x += part_font.getlength(part)
