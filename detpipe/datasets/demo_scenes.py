"""The scenes of the demo data set: objects cut out of photographs, in random poses on other photographs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFilter

from detpipe.datasets.demo_outlines import COIN_PHOTO, COINS, OUTLINES
from detpipe.datasets.source import Split
from detpipe.structures import BoolArray, GroundTruth, Image

_TRAIN_PART = 0.55
"""Share of each background's longer side that is used for train; test uses the rest."""


def part_of(image: Image, part: Split) -> Image:
    """The split's part of a background, cut across the longer side."""
    axis = 1 if image.shape[1] > image.shape[0] else 0
    border = round(_TRAIN_PART * image.shape[axis])
    sides = np.split(image, [border], axis=axis)
    return sides[0] if part is Split.train else sides[1]


@dataclass(frozen=True)
class CutOut:
    """An object as a tight RGBA picture with a transparent background, and its class name."""

    name: str
    picture: PIL.Image.Image


def cut_outs(read: Callable[[str], Image], part: Split) -> list[CutOut]:
    """All objects of a split. Every third coin is used for test only. read: returns the photograph of a name."""
    found = []
    for outline in OUTLINES:
        points = [tuple(map(int, point.split(","))) for point in outline.points.split()]
        photo = read(outline.photo)
        mask = PIL.Image.new("L", photo.shape[1::-1])
        PIL.ImageDraw.Draw(mask).polygon(points, fill=255)
        found.append(CutOut(outline.name, _cut(photo, mask)))
    coins = read(COIN_PHOTO)
    for number, (x, y, half_width, half_height) in enumerate(COINS):
        if (number % 3 == 2) == (part is Split.test):
            mask = PIL.Image.new("L", coins.shape[1::-1])
            corners = (x - half_width, y - half_height, x + half_width, y + half_height)
            PIL.ImageDraw.Draw(mask).ellipse(corners, fill=255)
            found.append(CutOut("coin", _cut(coins, mask)))
    return found


def _cut(photo: Image, mask: PIL.Image.Image) -> PIL.Image.Image:
    picture = PIL.Image.fromarray(photo)
    picture.putalpha(mask)
    picture = picture.crop(mask.getbbox())
    # Remove the outermost pixel, which is half background.
    picture.putalpha(picture.getchannel("A").filter(PIL.ImageFilter.MinFilter(3)))
    return picture.crop(picture.getchannel("A").getbbox())


class Painter:
    """Paints scenes of one split."""

    def __init__(self, cut_outs: Sequence[CutOut], backgrounds: Sequence[Image]) -> None:
        self.classes = tuple(sorted({one.name for one in cut_outs}))
        self._labels = {name: label for label, name in enumerate(self.classes, start=1)}
        self._by_class = {name: [one for one in cut_outs if one.name == name] for name in self.classes}
        self._backgrounds = backgrounds

    def paint(self, random: np.random.Generator) -> tuple[Image, GroundTruth]:
        """One scene: a background, sometimes with a distractor patch of another background, and one to five objects.

        The boxes are tight around the visible part of each object, which is at least 60 % of it.
        """
        size = (int(random.integers(240, 301)), int(random.integers(320, 401)))
        canvas = _light(self._background(random, size), random)
        if random.random() < 0.5:
            canvas = _blend(canvas, self._patch(random, size))
        pasted: list[_Pasted] = []
        for name in self._pick_classes(random):
            choices = self._by_class[name]
            picture = choices[int(random.integers(len(choices)))].picture
            layer = _place(_pose(picture, random, size[0]), random, pasted, size)
            if layer is None:
                continue
            covered = layer[..., 3] > 127
            pasted = [replace(other, visible=other.visible & ~covered) for other in pasted]
            pasted.append(_Pasted(self._labels[name], covered, int(covered.sum())))
            canvas = _blend(canvas, layer)
        boxes = [_tight_box(one.visible) for one in pasted]
        return _add_noise(canvas, random), GroundTruth.from_boxes(boxes, [one.label for one in pasted])

    def _pick_classes(self, random: np.random.Generator) -> list[str]:
        count = int(random.choice([1, 2, 3, 4, 5], p=[0.2, 0.3, 0.25, 0.15, 0.1]))
        names = [self.classes[index] for index in random.permutation(len(self.classes))[:count]]
        # Several coins appear together.
        return names + ["coin"] * int(random.integers(0, 3)) if "coin" in names else names

    def _background(self, random: np.random.Generator, size: tuple[int, int]) -> Image:
        source = self._backgrounds[int(random.integers(len(self._backgrounds)))]
        height, width = source.shape[:2]
        scale = min(height / size[0], width / size[1]) * random.uniform(0.6, 1.0)
        crop_height, crop_width = int(size[0] * scale), int(size[1] * scale)
        top = int(random.integers(0, height - crop_height, endpoint=True))
        left = int(random.integers(0, width - crop_width, endpoint=True))
        crop = PIL.Image.fromarray(source[top : top + crop_height, left : left + crop_width])
        image = np.asarray(crop.resize(size[::-1], PIL.Image.Resampling.BICUBIC))
        return image[:, ::-1] if random.random() < 0.5 else image

    def _patch(self, random: np.random.Generator, size: tuple[int, int]) -> Image:
        """An RGBA layer with an ellipse of background: a distractor that has edges but is not an object."""
        height, width = size
        x, y = random.uniform(0, width), random.uniform(0, height)
        half_width, half_height = random.uniform(15, 60), random.uniform(15, 60)
        mask = PIL.Image.new("L", (width, height))
        PIL.ImageDraw.Draw(mask).ellipse((x - half_width, y - half_height, x + half_width, y + half_height), fill=255)
        alpha = np.asarray(mask.filter(PIL.ImageFilter.BoxBlur(1)))
        return np.dstack([_light(self._background(random, size), random), alpha])


def _light(image: Image, random: np.random.Generator) -> Image:
    """Randomly change brightness, contrast and colour of the light."""
    gain = random.uniform(0.75, 1.2) * random.uniform(0.92, 1.08, size=3)
    contrast = random.uniform(0.8, 1.15)
    mean = float(image.mean())
    return np.clip(np.rint(((image - mean) * contrast + mean) * gain), 0, 255).astype(np.uint8)


def _pose(picture: PIL.Image.Image, random: np.random.Generator, canvas_height: int) -> Image:
    """The cut-out with random scale, flip, rotation and light: (H, W, 4) uint8 with edges blurred by one pixel."""
    longest = canvas_height * math.exp(random.uniform(math.log(0.22), math.log(0.8)))
    is_small = max(picture.size) < 100  # a coin: strong enlargement would blur it
    scale = min(longest, 1.6 * max(picture.size)) / max(picture.size)
    size = (max(8, round(picture.width * scale)), max(8, round(picture.height * scale)))
    picture = picture.resize(size, PIL.Image.Resampling.BICUBIC)
    if random.random() < 0.5:
        picture = picture.transpose(PIL.Image.Transpose.FLIP_LEFT_RIGHT)
    angle = random.uniform(-180, 180) if is_small else random.uniform(-15, 15)
    picture = picture.rotate(angle, PIL.Image.Resampling.BICUBIC, expand=True)
    pixels = np.asarray(picture)
    lit = _light(pixels[..., :3], random)
    alpha = np.asarray(picture.getchannel("A").filter(PIL.ImageFilter.BoxBlur(0.5)))
    return np.dstack([lit, alpha])


@dataclass(frozen=True)
class _Pasted:
    """An object on the canvas. visible: mask of its visible pixels (H, W). n_pixels: pixels when it was pasted."""

    label: int
    visible: BoolArray
    n_pixels: int


def _place(posed: Image, random: np.random.Generator, pasted: Sequence[_Pasted], size: tuple[int, int]) -> Image | None:
    """An RGBA layer of the canvas size (H, W, 4) with the object at a random position.

    At least 85 % of the object lies in the image, and at least 60 % of each object below stays visible. None if 20
    tries find no such position.
    """
    height, width = posed.shape[:2]
    whole = int((posed[..., 3] > 127).sum())
    for _ in range(20):
        left = int(random.integers(-width // 6, max(1, size[1] - width + width // 6)))
        top = int(random.integers(-height // 6, max(1, size[0] - height + height // 6)))
        layer = np.zeros((*size, 4), np.uint8)
        y, x = max(0, top), max(0, left)
        inside = posed[y - top : size[0] - top, x - left : size[1] - left]
        layer[y : y + inside.shape[0], x : x + inside.shape[1]] = inside
        covered = layer[..., 3] > 127
        if covered.sum() < 0.85 * whole:
            continue
        if all((one.visible & ~covered).sum() >= 0.6 * one.n_pixels for one in pasted):
            return layer
    return None


def _blend(canvas: Image, layer: Image) -> Image:
    """The layer (H, W, 4) over the canvas, in integer arithmetic, so that the result is the same on every machine."""
    bounds = PIL.Image.fromarray(layer[..., 3]).getbbox()
    if bounds is None:
        return canvas
    left, top, right, bottom = bounds
    above = layer[top:bottom, left:right].astype(np.int32)
    below = canvas[top:bottom, left:right].astype(np.int32)
    mixed = below * (255 - above[..., 3:]) + above[..., :3] * above[..., 3:]
    blended = canvas.copy()
    blended[top:bottom, left:right] = (mixed + 127) // 255
    return blended


def _tight_box(mask: BoolArray) -> tuple[int, int, int, int]:
    bounds = PIL.Image.fromarray(mask).getbbox()
    assert bounds is not None  # `_place` keeps 60 % of each object visible
    return bounds


def _add_noise(image: Image, random: np.random.Generator) -> Image:
    strength = int(random.integers(0, 7))
    noise = random.integers(-strength, strength, size=image.shape, endpoint=True, dtype=np.int16)
    noisy: Image = np.clip(image + noise, 0, 255).astype(np.uint8)
    return noisy
