"""A training image in another form each time, its objects moved with it: part, size, mirrored, colour.

The rule of cut objects: one of which at least half is to be seen is the object that is seen; of one of which less is
seen, what is seen is neither an object nor background (it becomes difficult); one that is not seen is gone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from detpipe import boxes as geometry
from detpipe.network.colour_jitter import jitter_colour, jitter_factor
from detpipe.network.scaled_image import Scaling
from detpipe.structures import GroundTruth, Image

SEEN_SHARE = 0.5
"""An object is still one where at least this share of it is to be seen."""

TRIES = 10
"""Parts of an image are drawn until one shows an object, but not for ever; then the whole is shown."""

ASPECT = 1.5
"""The sides of a part are those of the image, one stretched against the other by up to this."""


@dataclass(frozen=True, kw_only=True)
class BoxViews:
    """How images are shown.

    scales: pixels of the shorter side, one at random; max_side: of the longer one at most. square: bring all to a
    square of the last scale instead. crop_share: share of the images of which a part is shown, of at least crop_area
    of the whole. colour: by how much brightness, contrast and saturation vary.
    """

    scales: tuple[int, ...]
    max_side: int
    square: bool = False
    flip: bool = True
    crop_share: float = 0.0
    crop_area: float = 1.0
    colour: float = 0.0

    def draw(self, image: Image, truth: GroundTruth, generator: np.random.Generator) -> tuple[Image, GroundTruth]:
        """A view of an image (H, W, 3) and its objects in pixels of the view."""
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
        """The image as it is shown in testing: whole, at the last scale."""
        scaling = self.scaling((image.shape[0], image.shape[1]), self.scales[-1])
        return scaling.pixels(image), moved(truth, scaling)

    def scaling(self, image_size: tuple[int, int], shorter: int, *, mirrored: bool = False) -> Scaling:
        """How an image of this size is brought to the input."""
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
            seen = cut(truth, (left, top, left + columns, top + rows))
            if not len(truth) or not (seen.difficult | seen.crowd).all():
                return image[top : top + rows, left : left + columns], seen
        return image, truth


def cut(truth: GroundTruth, window: tuple[int, int, int, int]) -> GroundTruth:
    """The objects in a window (x1, y1, x2, y2) of their image, in its pixels, by the rule of cut objects."""
    left, top, right, bottom = window
    offset = np.array([left, top, left, top], dtype=np.float32)
    boxes = geometry.clip(truth.boxes - offset, (bottom - top, right - left))
    whole, seen = geometry.area(truth.boxes), geometry.area(boxes)
    share = np.divide(seen, whole, out=np.zeros_like(seen), where=whole > 0)
    difficult = truth.difficult | ((share < SEEN_SHARE) & ~truth.crowd)
    return GroundTruth(boxes, truth.labels, difficult, truth.crowd, truth.areas * share)[share > 0]


def moved(truth: GroundTruth, scaling: Scaling) -> GroundTruth:
    """The objects on the input that an image is brought to."""
    areas = truth.areas * np.float32(scaling.factors[0] * scaling.factors[1])
    return GroundTruth(scaling.to_input(truth.boxes), truth.labels, truth.difficult, truth.crowd, areas)
