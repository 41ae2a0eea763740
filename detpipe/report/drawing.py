"""Drawing of boxes on images: detections solid, ground truth dashed."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence

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

Place = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels."""

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
    dashed: bool | Sequence[bool] = False,
    thin: bool = False,
    taken: list[Place] | None = None,
) -> Image:
    """A copy of the image with a frame around each box. Line width and font size are relative to the image size.

    Captions are in the image and do not overlap; one that finds no free place at its box is left out.

    boxes: (N, 4) in pixels of this image, the most important first: it is drawn last, on top. Boxes are clipped to the
    image. captions: one per box, or empty for none; "" draws no caption. colours: one per box, or empty for red.
    dashed: for ground truth; of all, or one per box. thin: half the line width, for many boxes. taken: the places of
    captions that are in the image already; new ones are added. N = 0 gives an unchanged copy. Raises
    ValueError if the numbers differ.
    """
    dashes = [dashed] * len(boxes) if isinstance(dashed, bool) else dashed
    for what, given in (("captions", captions), ("colours", colours), ("dashes", dashes)):
        if given and len(given) != len(boxes):
            raise ValueError(f"draw_boxes: expected {len(boxes)} {what}, one per box, or none, got {len(given)}")
    picture = PIL.Image.fromarray(image)
    canvas = ImageDraw.Draw(picture, "RGBA")
    height, width = image.shape[:2]
    line = max(1, round((height + width) / (600 if thin else 300)))
    size = max(11, round((height + width) / 52))
    frames = clip(boxes, (height, width)).round().astype(int).tolist()
    colours = colours or [RED] * len(boxes)
    for frame, colour, is_dashed in reversed(list(zip(frames, colours, dashes, strict=True))):
        _frame(canvas, frame, colour, line, is_dashed)
    taken = [] if taken is None else taken
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


def shown_text(canvas: ImageDraw.ImageDraw, place: tuple[float, float], text: str, size: int, width: int) -> None:
    """Draw one line of light text, shortened to `width` pixels. place: its left upper corner. size: of the letters."""
    parts = runs(_fit(_one_line(text), size, width), size)
    ascent = max((font.getmetrics()[0] for _, font in parts), default=0)
    x = float(place[0])
    for part, part_font in parts:
        canvas.text((x, place[1] + ascent - part_font.getmetrics()[0]), part, fill=(240, 240, 240), font=part_font)
        x += part_font.getlength(part)


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


def _caption(
    canvas: ImageDraw.ImageDraw,
    frame: list[int],
    text: str,
    colour: Colour,
    size: int,
    image_size: tuple[int, int],
    taken: list[Place],
) -> None:
    """The text on a coloured background at the frame, if there is a free place, which is added to `taken`."""
    width = image_size[1]
    pad = max(2, size // 5)
    text = _fit(text, size, max(0, width - 2 * pad))
    if not text:
        return
    parts = runs(text, size)
    ascent, descent = (max(part_font.getmetrics()[i] for _, part_font in parts) for i in (0, 1))
    plate = int(_width(text, size)) + 2 * pad, ascent + descent + pad // 2
    place = next((one for one in _places(frame, plate, width) if _is_free(one, image_size, taken)), None)
    if place is None:
        return
    taken.append(place)
    left, top, right, bottom = place
    canvas.rectangle((left, top, right - 1, bottom - 1), fill=(*colour, 255))
    fill = (*readable_on(colour), 255)
    x = float(left + pad)
    for part, part_font in parts:
        canvas.text((x, top + ascent - part_font.getmetrics()[0]), part, fill=fill, font=part_font)
        x += part_font.getlength(part)


def _places(frame: list[int], plate: tuple[int, int], image_width: int) -> list[Place]:
    """Where a plate of (width, height) may be, the best first: above the frame, inside it, below it, beside it."""
    left, top, right, bottom = frame
    width, height = plate
    # Above, inside and below, a plate that would leave the image at a side is moved into it.
    aligned = [min(max(x, 0), image_width - width) for x in (left, right - width)]
    corners = [(x, y) for y in (top - height, top, bottom, bottom - height) for x in aligned]
    corners += [(x, y) for y in (top, bottom - height) for x in (right, left - width)]
    return [(x, y, x + width, y + height) for x, y in corners]


def _is_free(place: Place, image_size: tuple[int, int], taken: Sequence[Place]) -> bool:
    """Whether a place is in the image and overlaps no other."""
    left, top, right, bottom = place
    if left < 0 or top < 0 or right > image_size[1] or bottom > image_size[0]:
        return False
    return all(left >= other[2] or right <= other[0] or top >= other[3] or bottom <= other[1] for other in taken)


def readable_on(colour: Colour) -> Colour:
    """Black or white, whichever has more contrast on the colour: at least 4.5 to 1, as WCAG AA asks for."""
    white, black = (255, 255, 255), (0, 0, 0)
    return max(white, black, key=lambda text: contrast(text, colour))


def contrast(one: Colour, other: Colour) -> float:
    """The contrast ratio of two colours by WCAG 2.2, from 1 to 21."""
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: Colour) -> float:
    red, green, blue = (v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in (c / 255 for c in colour))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
