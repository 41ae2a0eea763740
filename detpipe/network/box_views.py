"""Augmentation of images with boxes: random tile, crop, scale, flip and colour.

Objects that a tile or a crop cuts: an object with at least half of its area inside is clipped to the window. If less is
inside, the clipped box becomes difficult, so it counts as neither object nor background. An object outside is removed.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from detpipe import boxes as geometry
from detpipe.network.colour_jitter import jitter_colour, jitter_factor
from detpipe.network.scaled_image import Scaling
from detpipe.structures import Float32Array, GroundTruth, Image
from detpipe.tiles import TilesConfig, Window, fullest_window, random_window

SEEN_SHARE = 0.5
"""An object stays an object if at least this share of its area is inside the tile or crop."""

TRIES = 10
"""Number of attempts to draw a crop with an object in it. After these the whole image is used."""

ASPECT = 1.5
"""The aspect ratio of a crop differs from the image's by up to this factor."""


@dataclass(frozen=True, kw_only=True)
class BoxViews:
    """Draws augmented views of images.

    tiles: a random tile of each image takes its place. scales: the shorter side in pixels, one of them at random.
    max_side: the limit of the longer side in pixels. square: resize to a square of the last scale instead. flip: mirror
    half of the images. crop_share: the share of images that are cropped, to at least crop_area of their area. colour:
    the strength of `jitter_colour`, 0 for none.
    """

    scales: tuple[int, ...]
    max_side: int
    square: bool = False
    flip: bool = True
    crop_share: float = 0.0
    crop_area: float = 1.0
    colour: float = 0.0
    tiles: TilesConfig = field(default_factory=TilesConfig)

    def draw(self, image: Image, truth: GroundTruth, generator: np.random.Generator) -> tuple[Image, GroundTruth]:
        """An augmented view of an image (H, W, 3), and its objects in pixels of the view."""
        if self.tiles.used:
            window = random_window((image.shape[0], image.shape[1]), learned(truth), self.tiles, generator)
            image, truth = inside(image, window), cut(truth, window)
        if generator.random() < self.crop_share:
            image, truth = self._part(image, truth, generator)
        image_size = (image.shape[0], image.shape[1])
        shorter = self.scales[generator.integers(len(self.scales))]
        mirrored = bool(self.flip and generator.random() < 0.5)
        scaling = self.scaling(image_size, shorter, mirrored=mirrored)
        pixels = scaling.pixels(image)
        if self.colour:
            brightness, contrast, saturation = (jitter_factor(one, self.colour) for one in generator.random(3))
            pixels = jitter_colour(pixels, brightness, contrast, saturation)
        return pixels, moved(truth, scaling)

    def plain(self, image: Image, truth: GroundTruth) -> tuple[Image, GroundTruth]:
        """The view for validation: the whole image, or the tile with most objects, at the last scale."""
        if self.tiles.used:
            window = fullest_window((image.shape[0], image.shape[1]), learned(truth), self.tiles)
            image, truth = inside(image, window), cut(truth, window)
        scaling = self.scaling((image.shape[0], image.shape[1]), self.scales[-1])
        return scaling.pixels(image), moved(truth, scaling)

    def scaling(self, image_size: tuple[int, int], shorter: int, *, mirrored: bool = False) -> Scaling:
        """The scaling from an image of this size, (height, width), to the network's input."""
        if self.square:
            return Scaling(image_size, (self.scales[-1], self.scales[-1]), mirrored)
        return Scaling.to_side(image_size, shorter, self.max_side, mirrored=mirrored)

    def _part(self, image: Image, truth: GroundTruth, generator: np.random.Generator) -> tuple[Image, GroundTruth]:
        height, width = image.shape[:2]
        for _ in range(TRIES):
            area = generator.uniform(self.crop_area, 1)
            stretch = float(np.exp(generator.uniform(-np.log(ASPECT), np.log(ASPECT)) / 2))
            rows = min(max(round(height * np.sqrt(area) * stretch), 1), height)
            columns = min(max(round(width * np.sqrt(area) / stretch), 1), width)
            top = int(generator.integers(height - rows, endpoint=True))
            left = int(generator.integers(width - columns, endpoint=True))
            window = left, top, left + columns, top + rows
            seen = cut(truth, window)
            if not len(truth) or not (seen.difficult | seen.crowd).all():
                return inside(image, window), seen
        return image, truth


def inside(image: Image, window: Window) -> Image:
    """The pixels of a window of an image (H, W, 3): a view, not a copy."""
    x1, y1, x2, y2 = window
    return image[y1:y2, x1:x2]


def learned(truth: GroundTruth) -> Float32Array:
    """The boxes (G, 4) of the objects that are neither difficult nor crowds."""
    return truth.boxes[~(truth.difficult | truth.crowd)]


def cut(truth: GroundTruth, window: Window) -> GroundTruth:
    """The objects inside a window (x1, y1, x2, y2) of the image, in pixels of the window.

    The docstring of this module says what happens to objects that the window cuts.
    """
    left, top, right, bottom = window
    offset = np.array([left, top, left, top], dtype=np.float32)
    boxes = geometry.clip(truth.boxes - offset, (bottom - top, right - left))
    whole, seen = geometry.area(truth.boxes), geometry.area(boxes)
    share = np.divide(seen, whole, out=np.zeros_like(seen), where=whole > 0)
    difficult = truth.difficult | ((share < SEEN_SHARE) & ~truth.crowd)
    return GroundTruth(boxes, truth.labels, difficult, truth.crowd, truth.areas * share)[share > 0]


def moved(truth: GroundTruth, scaling: Scaling) -> GroundTruth:
    """The objects in pixels of the scaled image."""
    areas = truth.areas * np.float32(scaling.factors[0] * scaling.factors[1])
    return GroundTruth(scaling.to_input(truth.boxes), truth.labels, truth.difficult, truth.crowd, areas)
