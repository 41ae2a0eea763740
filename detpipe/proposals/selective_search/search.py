"""Selective search (Uijlings et al., IJCV 2013): the boxes of all regions of a bottom-up grouping.

An image is shrunk to a working size (working_size.py), converted to several colour spaces (colour_spaces.py) and
segmented at several scales (felzenszwalb.py). The segments are merged, the most similar first, by several similarity
measures (histograms.py, grouping.py). Each region on the way gives a box; objectness.py ranks them. All arithmetic is
exact (integers, or single IEEE operations), so the boxes are the same on every machine.
"""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from detpipe.boxes import area, clip
from detpipe.datasets.image_file import AnyImage, as_image
from detpipe.jit import explained
from detpipe.proposals.proposer import Proposer, ranked, scores_of_order
from detpipe.proposals.selective_search.candidates import Candidates, candidates
from detpipe.proposals.selective_search.colour_spaces import ColourSpace, convert
from detpipe.proposals.selective_search.felzenszwalb import build_graph, segment
from detpipe.proposals.selective_search.grouping import Hierarchy, find_segments, group
from detpipe.proposals.selective_search.histograms import pixel_codes, region_histograms
from detpipe.proposals.selective_search.near_duplicates import duplicates_last
from detpipe.proposals.selective_search.objectness import objectness
from detpipe.proposals.selective_search.opencv import OpenCvMode, opencv_boxes, rand_can_be_seeded, require_ximgproc
from detpipe.proposals.selective_search.working_size import enlarge, shrink, working_size
from detpipe.randomness import generator_for_pixels
from detpipe.structures import Dataset, Float32Array, Image, Int64Array, Proposals

logger = logging.getLogger(__name__)

EnumType = TypeVar("EnumType", bound=Enum)


class SelectiveSearchPreset(Enum):
    """The hierarchies to compute, and the code that does it. `recipe_of` has the parameters."""

    turbo = "turbo"
    """Our parameters for speed. 12 hierarchies at 288 pixels."""
    turbo_quality = "turbo_quality"
    """Our parameters for recall. 40 hierarchies at 288 pixels."""
    ijcv_fast = "ijcv_fast"
    """The paper's "fast" parameters (table 5). 8 hierarchies."""
    ijcv_quality = "ijcv_quality"
    """The paper's "quality" parameters. 80 hierarchies."""
    opencv_fast = "opencv_fast"
    """OpenCV's "fast" parameters in our code. 12 hierarchies."""
    opencv_quality = "opencv_quality"
    """OpenCV's "quality" parameters in our code. 100 hierarchies."""
    opencv_single = "opencv_single"
    """OpenCV's "single strategy" parameters in our code. One hierarchy."""
    cv2_fast = "cv2_fast"
    """OpenCV's own code with its "fast" parameters. Slow."""
    cv2_quality = "cv2_quality"
    """OpenCV's own code with its "quality" parameters. Very slow."""


class SelectiveSearchOrder(Enum):
    """The order of the proposals."""

    objectness = "objectness"
    """By a learned score (objectness.py), near-duplicates last. Not random."""
    paper = "paper"
    """The paper's order (section 4): random number x position from the top of the hierarchy, so that large regions tend
    to be first. OpenCV doesn't return positions, so its own code uses the rank by area instead."""
    opencv = "opencv"
    """OpenCV's order, for cv2_* only: random number x level in the hierarchy, so that small regions tend to be first
    ("inverted from the paper", says its source)."""


class Recipe(NamedTuple):
    """The parameters of a preset: each colour space with each k gives segments, each similarity a hierarchy of them.

    ks: pairs of k and the smallest size of a segment in pixels of the working image. sigma: of the blur before
    segmentation. similarities: letters for `grouping.group`. max_side: longer side of the working image in pixels.
    """

    spaces: tuple[ColourSpace, ...]
    ks: tuple[tuple[int, int], ...]
    sigma: float
    similarities: tuple[str, ...]
    max_side: int


_REFERENCE_SIDE = 640
"""Larger images than VOC's and COCO's are shrunk to this side, because the parameters are in pixels."""


def recipe_of(preset: SelectiveSearchPreset) -> Recipe:
    """The parameters of a preset of our own code. Raises ValueError for OpenCV's code."""
    hsv, lab, hue, grey = ColourSpace.hsv, ColourSpace.lab, ColourSpace.hue, ColourSpace.grey
    of_paper, of_opencv = (hsv, lab, ColourSpace.rgi, hue, grey), (ColourSpace.hsv_180, lab)
    fast, quality = ("CTSF", "TSF"), ("CTSF", "TSF", "F", "S")
    more = (grey, ColourSpace.hue_180, ColourSpace.rg_grey)
    side = _REFERENCE_SIDE
    match preset:
        # Chosen on VOC images for recall and time (benchmarks/selective_search.py).
        case SelectiveSearchPreset.turbo:
            return Recipe(of_paper[:3], ((125, 20),), 0.5, quality, 288)
        case SelectiveSearchPreset.turbo_quality:
            return Recipe(of_paper, ((100, 30), (300, 30)), 0.5, quality, 288)
        # IJCV, table 5 and section 5.1; segments of k pixels or more, as in the authors' code, which R-CNN uses.
        case SelectiveSearchPreset.ijcv_fast:
            return Recipe((hsv, lab), ((50, 50), (100, 100)), 0.8, fast, side)
        case SelectiveSearchPreset.ijcv_quality:
            return Recipe(of_paper, tuple((k, k) for k in (50, 100, 150, 300)), 0.8, quality, side)
        # OpenCV's selectivesearchsegmentation.cpp; segments of 100 pixels or more.
        case SelectiveSearchPreset.opencv_fast:
            return Recipe(of_opencv, tuple((k, 100) for k in (150, 300, 450)), 0.8, fast, side)
        case SelectiveSearchPreset.opencv_quality:
            return Recipe((*of_opencv, *more), tuple((k, 100) for k in range(150, 751, 150)), 0.8, quality, side)
        case SelectiveSearchPreset.opencv_single:
            return Recipe((ColourSpace.hsv_180,), ((200, 100),), 0.8, ("CTSF",), side)
    raise ValueError(f"recipe_of: expected a preset of our own code, got {preset.value}")


@dataclass(kw_only=True)
class SelectiveSearch(Proposer):
    """Boxes of all regions of a bottom-up grouping of segments.

    The scores express the order only. If no region is large enough (a tiny or flat image), the whole image is the only
    proposal. Memory: about 100 bytes per pixel of the working image (6 MB by default), at most 330 (many dots on a flat
    background), for any size of the image itself.
    """

    preset: SelectiveSearchPreset = SelectiveSearchPreset.turbo
    """Set of parameters, from fast with few boxes to slow with many."""
    order: SelectiveSearchOrder | None = None
    """Order of the boxes; null: objectness, or OpenCV's own order for cv2_*."""
    min_size: int = 10
    """Smallest width and height of a box, in pixels of the original image. R-CNN used 20 for images 500 pixels wide."""
    max_side: int | None = None
    """Shrink the image to this longer side for the search, and scale the boxes back; null: the preset's value, 288 for
    turbo*, 640 for the others. The preset's parameters are in pixels of this size."""

    def __post_init__(self) -> None:
        super().__post_init__()
        # In Python, users write strings.
        self.preset = _member(SelectiveSearchPreset, self.preset, "preset")
        self.order = None if self.order is None else _member(SelectiveSearchOrder, self.order, "order")
        if self.min_size < 0:
            raise ValueError(f"min_size: expected pixels from 0, got {self.min_size}")
        if self.max_side is not None and self.max_side < 1:
            raise ValueError(f"max_side: expected pixels from 1 or null, got {self.max_side}")
        foreign = SelectiveSearchOrder.objectness if self._mode else SelectiveSearchOrder.opencv
        if self.order is foreign:
            raise ValueError(
                f"order: {self.preset.value} can't be in the order {foreign.value}; choose another order or null"
            )

    def check(self, datasets: Sequence[Dataset] = ()) -> None:  # noqa: ARG002
        """Compile once; the workers then load the compiled code from disk.

        For cv2_* raise MissingXimgprocError if this OpenCV has no selective search.
        """
        if self._mode is None:
            warm_up()
            return
        require_ximgproc()
        if self.order is not SelectiveSearchOrder.paper and not rand_can_be_seeded():
            logger.warning(
                "OpenCV's random order can't be seeded on this platform (%s): using proposals.order=paper instead, so "
                "that results are repeatable",
                sys.platform,
            )

    def __call__(self, image: AnyImage) -> Proposals:
        """The proposals of an RGB image: the same for the same image, seed and settings, in any thread or process.

        image: (H, W, 3) uint8, or what else `as_image` converts. Raises its errors, and
        MissingXimgprocError for cv2_* if OpenCV lacks the method.
        """
        image = as_image(image)
        image_size = image.shape[:2]
        small = shrink(image, working_size(image_size, self.working_side))
        search = self._search_opencv if self._mode else self._search
        boxes = search(small, image_size)
        if not len(boxes):
            boxes = np.array([[0, 0, image_size[1], image_size[0]]], dtype=np.float32)
        if self._mode:  # rounding may move its boxes over the border
            return ranked(boxes, scores_of_order(len(boxes)), image_size, self.max_proposals)
        scores = scores_of_order(len(boxes))
        return Proposals(clip(boxes, image_size)[: self.max_proposals], scores[: self.max_proposals])

    @property
    def max_threads(self) -> int:
        """Compiled code releases the interpreter lock. With about four threads the Python code between is the limit."""
        return 1 if self._mode else 4

    @property
    def _mode(self) -> OpenCvMode | None:
        """OpenCV's strategy for cv2_*, else None."""
        modes = {SelectiveSearchPreset.cv2_fast: OpenCvMode.fast, SelectiveSearchPreset.cv2_quality: OpenCvMode.quality}
        return modes.get(self.preset)

    @property
    def working_side(self) -> int:
        """The longer side in pixels that a larger image is shrunk to: max_side, or the preset's."""
        return self.max_side or (_REFERENCE_SIDE if self._mode else recipe_of(self.preset).max_side)

    def _search(self, image: Image, image_size: tuple[int, int]) -> Float32Array:
        """Boxes (N, 4) float32 of the working image, best first, in pixels of the original image."""
        warm_up()
        recipe = recipe_of(self.preset)
        hierarchies = grow(image, recipe)
        found = candidates(hierarchies, len(recipe.similarities), convert(image, ColourSpace.grey))
        boxes = enlarge(found.boxes, image_size, image.shape[:2])
        large = np.flatnonzero(((boxes[:, 2:] - boxes[:, :2]) >= self.min_size).all(axis=1))
        if self.order is SelectiveSearchOrder.paper:
            priority = paper_priority(found, generator_for_pixels(self.seed, image))
            return boxes[large[np.argsort(priority[large], kind="stable")]]
        score = objectness(found.features)[large]
        # Boxes with equal scores keep the order of the hierarchies.
        return boxes[duplicates_last(found.boxes, large[np.argsort(-score, kind="stable")])]

    def _search_opencv(self, image: Image, image_size: tuple[int, int]) -> Float32Array:
        require_ximgproc()
        assert self._mode is not None
        boxes = enlarge(opencv_boxes(image, self._mode, self.seed), image_size, image.shape[:2])
        boxes = boxes[((boxes[:, 2:] - boxes[:, :2]) >= self.min_size).all(axis=1)]
        if self.order is SelectiveSearchOrder.paper or not rand_can_be_seeded():
            boxes = boxes[_order_by_area(boxes, generator_for_pixels(self.seed, image))]
        return boxes


def grow(image: Image, recipe: Recipe) -> list[Hierarchy]:
    """The hierarchies of a working image: for each colour space and k, one for each similarity."""
    hierarchies = []
    for space in recipe.spaces:
        planes = convert(image, space)
        codes, graph = pixel_codes(planes), build_graph(planes, recipe.sigma)
        for k, min_size in recipe.ks:
            labels, count = segment(graph, k, min_size)
            segments = find_segments(labels, count)
            colour, texture = region_histograms(codes, labels, segments.sizes)
            hierarchies += [group(segments, colour, texture, alike, labels.size) for alike in recipe.similarities]
    return hierarchies


def paper_priority(found: Candidates, generator: np.random.Generator) -> npt.NDArray[np.float64]:
    """Random number x position from the top (1 is the whole image); the minimum over a box's regions. -> (U,)."""
    random = generator.random(len(found.positions))
    priority = np.full(len(found.boxes), np.inf)
    np.minimum.at(priority, found.numbers, random * (found.positions + 1))
    return priority


@functools.cache
def warm_up() -> None:
    """Load or compile the code for `turbo`, once per process, with a log line if it takes long."""
    image = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    with explained("selective search"):
        recipe, small = recipe_of(SelectiveSearchPreset.turbo), shrink(image, (12, 12))
        found = candidates(grow(small, recipe), len(recipe.similarities), convert(small, ColourSpace.grey))
        duplicates_last(found.boxes, np.argsort(-objectness(found.features), kind="stable"))


def _member(enum: type[EnumType], value: EnumType | str, field: str) -> EnumType:
    names = [member.value for member in enum]
    if not isinstance(value, enum) and value not in names:
        raise ValueError(f"{field}: expected one of {', '.join(names)}, got {value!r}")
    return enum(value)


def _order_by_area(boxes: Float32Array, generator: np.random.Generator) -> Int64Array:
    """Random number x rank by area, the largest first. (N, 4) -> (N,) int64; independent of the input order."""
    # Ties by the coordinates, so that the result doesn't depend on OpenCV's random order.
    by_area = np.lexsort((*boxes.T, -area(boxes)))
    priority = generator.random(len(boxes)) * np.arange(1, len(boxes) + 1)
    return by_area[np.argsort(priority, kind="stable")].astype(np.int64)
