"""Selective search (Uijlings et al., IJCV 2013) over OpenCV's ximgproc, made deterministic."""

from __future__ import annotations

import ctypes
import functools
import logging
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeVar

import cv2
import numpy as np

from detpipe.boxes import area
from detpipe.proposals.proposer import Proposer, check_image, generator_for, ranked, scores_of_order
from detpipe.structures import Dataset, Float32Array, Image, Int64Array, Proposals

logger = logging.getLogger(__name__)

EnumType = TypeVar("EnumType", bound=Enum)

_LOCK = threading.Lock()
"""C's rand() has one state for the whole process: seeding and drawing must not mix with another thread's."""
_SIGMA = 0.8  # of the blur before the segmentation (IJCV, section 5.1)


class SelectiveSearchPreset(Enum):
    """Which hierarchies are grown: colour spaces x thresholds k x similarities.

    C, T, S, F: similarity of colour, texture, size, fill (IJCV, section 3.2). OpenCV's segments have 100 pixels or
    more, the paper's k or more (as in the authors' code, which R-CNN calls).
    """

    opencv_fast = "opencv_fast"
    """OpenCV's own: HSV, Lab; k = 150, 300, 450; CTSF, TSF. 12 hierarchies."""
    opencv_quality = "opencv_quality"
    """OpenCV's own: HSV, Lab, grey, H, RG + grey; k = 150, 300, ... 750; CTSF, TSF, F, S. 100 hierarchies."""
    opencv_single = "opencv_single"
    """OpenCV's own: HSV; k = 200; CTSF. One hierarchy."""
    ijcv_fast = "ijcv_fast"
    """The paper's: HSV, Lab; k = 50, 100; CTSF, TSF. 8 hierarchies."""
    ijcv_quality = "ijcv_quality"
    """The paper's: HSV, Lab, rgI, H, I; k = 50, 100, 150, 300; CTSF, TSF, F, S. 80 hierarchies."""


class SelectiveSearchOrder(Enum):
    """Which proposals come first. Either order is random within its trend, as in the paper (section 4)."""

    opencv = "opencv"
    """OpenCV's: random number x level in the hierarchy, so small regions tend to come first ("inverted from the
    paper", says its source)."""
    paper = "paper"
    """The paper's: random number x position from the top of the hierarchy, so large regions tend to come first.
    OpenCV doesn't tell the positions: the rank by area stands in for them. Far better recall with few proposals."""


@dataclass(kw_only=True)
class SelectiveSearch(Proposer):
    """Boxes of the regions that a bottom-up grouping of segments passes through.

    Scores only tell the order. An image in which no region is large enough (a tiny or flat one) gives itself as its
    one proposal. Works in RGB uint8 images of any size.
    """

    preset: SelectiveSearchPreset = SelectiveSearchPreset.ijcv_fast
    """Speed against number of boxes. The paper's k of 50 and 100 find small things that OpenCV's 150 joins up."""
    order: SelectiveSearchOrder | None = None
    """Which come first; null is the preset's own: OpenCV's for opencv_*, the paper's for ijcv_*."""
    min_size: int = 10
    """Smallest width and height of a box, pixels of the given image. R-CNN used 20 in images 500 wide."""
    max_side: int | None = 400
    """Work on the image shrunk to this longer side, and scale the boxes back: a quarter of the time at 640x480
    (benchmarks/proposals.py). Null: as it is. The method's parameters are in pixels."""

    def __post_init__(self) -> None:
        super().__post_init__()
        # Strings are what a person writes in Python.
        self.preset = _member(SelectiveSearchPreset, self.preset, "preset")
        self.order = None if self.order is None else _member(SelectiveSearchOrder, self.order, "order")
        if self.min_size < 0:
            raise ValueError(f"min_size: wanted pixels from 0, got {self.min_size}")
        if self.max_side is not None and self.max_side < 1:
            raise ValueError(f"max_side: wanted pixels from 1 or null, got {self.max_side}")

    def check(self, datasets: Sequence[Dataset] = ()) -> None:  # noqa: ARG002
        """Raise MissingXimgprocError where this OpenCV has no selective search."""
        require_ximgproc()
        if self._order is SelectiveSearchOrder.opencv and not _rand_can_be_seeded():
            logger.warning(
                "C's srand() doesn't reach OpenCV's rand() on this platform (%s): boxes come in order=paper, "
                "which is seeded here, so that results can be repeated",
                sys.platform,
            )

    def __call__(self, image: Image) -> Proposals:
        """The proposals of an RGB image: the same for the same image, seed and settings, in any thread or process.

        Raises ValueError for another shape or dtype, MissingXimgprocError where OpenCV lacks the method.
        """
        check_image(image)
        require_ximgproc()
        height, width = image.shape[:2]
        boxes = self._search(_shrink(image, self.max_side))
        large = ((boxes[:, 2:] - boxes[:, :2]) >= self.min_size).all(axis=1)
        boxes = boxes[large]
        if not len(boxes):
            boxes = np.array([[0, 0, width, height]], dtype=np.float32)
        if self._order is SelectiveSearchOrder.paper or not _rand_can_be_seeded():
            boxes = boxes[_paper_order(boxes, self.seed)]
        return ranked(boxes, scores_of_order(len(boxes)), (height, width), self.max_proposals)

    @property
    def _order(self) -> SelectiveSearchOrder:
        if self.order is not None:
            return self.order
        of_the_paper = self.preset in (SelectiveSearchPreset.ijcv_fast, SelectiveSearchPreset.ijcv_quality)
        return SelectiveSearchOrder.paper if of_the_paper else SelectiveSearchOrder.opencv

    def _search(self, shrunk: tuple[Image, Float32Array]) -> Float32Array:
        """Boxes (N, 4) float32 in OpenCV's order, in pixels of the image before it was shrunk."""
        image, scale = shrunk
        search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
        _SET_UP[self.preset](search, np.ascontiguousarray(image[:, :, ::-1]))
        with _LOCK:
            _seed_rand(self.seed)
            corner_size = np.asarray(search.process(), dtype=np.float32).reshape(-1, 4)
        return np.concatenate([corner_size[:, :2], corner_size[:, :2] + corner_size[:, 2:]], axis=1) * scale


class MissingXimgprocError(ImportError):
    """This OpenCV was built, or installed over, without its extra modules."""


def require_ximgproc() -> None:
    """Raise MissingXimgprocError, with the mend, unless cv2.ximgproc is there with selective search."""
    ximgproc = getattr(cv2, "ximgproc", None)
    segmentation = getattr(ximgproc, "segmentation", None)
    if not hasattr(segmentation, "createSelectiveSearchSegmentation"):
        raise MissingXimgprocError(
            f"wanted OpenCV with cv2.ximgproc, got {cv2.__version__} without it: another OpenCV wheel lies over "
            "opencv-contrib-python. Mend: pip uninstall -y opencv-python opencv-python-headless "
            "opencv-contrib-python opencv-contrib-python-headless && pip install opencv-contrib-python"
        )


def _member(enum: type[EnumType], value: EnumType | str, field: str) -> EnumType:
    names = [member.value for member in enum]
    if not isinstance(value, enum) and value not in names:
        raise ValueError(f"{field}: wanted one of {', '.join(names)}, got {value!r}")
    return enum(value)


def _shrink(image: Image, max_side: int | None) -> tuple[Image, Float32Array]:
    """The image with no side over max_side, and what its boxes x1 y1 x2 y2 must be multiplied with: (4,) float32."""
    height, width = image.shape[:2]
    if max_side is None or max(height, width) <= max_side:
        return image, np.ones(4, dtype=np.float32)
    ratio = max_side / max(height, width)
    new_width, new_height = max(round(width * ratio), 1), max(round(height * ratio), 1)
    small = cv2.resize(image, (new_width, new_height), interpolation=cv2.INTER_AREA)
    scale = np.array([width / new_width, height / new_height] * 2, dtype=np.float32)
    return np.asarray(small, dtype=np.uint8), scale


def _paper_order(boxes: Float32Array, seed: int) -> Int64Array:
    """Random number x rank by area, the largest first. (N, 4) -> (N,) int64; the order given doesn't matter."""
    # From the largest box down; ties by the coordinates, so that OpenCV's random order is forgotten.
    by_area = np.lexsort((*boxes.T, -area(boxes)))
    priority = generator_for(seed, "selective search").random(len(boxes)) * np.arange(1, len(boxes) + 1)
    return by_area[np.argsort(priority, kind="stable")].astype(np.int64)


# OpenCV's own presets, and the paper's built from OpenCV's parts.


def _opencv_fast(search: Any, bgr: Image) -> None:
    search.setBaseImage(bgr)
    search.switchToSelectiveSearchFast(150, 150, _SIGMA)


def _opencv_quality(search: Any, bgr: Image) -> None:
    search.setBaseImage(bgr)
    search.switchToSelectiveSearchQuality(150, 150, _SIGMA)


def _opencv_single(search: Any, bgr: Image) -> None:
    search.setBaseImage(bgr)
    search.switchToSingleStrategy(200, _SIGMA)


def _ijcv_fast(search: Any, bgr: Image) -> None:
    """IJCV, table 5, "Fast"."""
    _add(search, [_hsv(bgr), _lab(bgr)], ks=(50, 100), similarities=("CTSF", "TSF"))


def _ijcv_quality(search: Any, bgr: Image) -> None:
    """IJCV, table 5, "Quality"."""
    hsv = _hsv(bgr)
    grey = np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY), dtype=np.uint8)
    spaces = [hsv, _lab(bgr), _normalised_rg_intensity(bgr, grey), np.ascontiguousarray(hsv[:, :, 0]), grey]
    _add(search, spaces, ks=(50, 100, 150, 300), similarities=("CTSF", "TSF", "F", "S"))


_SET_UP: dict[SelectiveSearchPreset, Callable[[Any, Image], None]] = {
    SelectiveSearchPreset.opencv_fast: _opencv_fast,
    SelectiveSearchPreset.opencv_quality: _opencv_quality,
    SelectiveSearchPreset.opencv_single: _opencv_single,
    SelectiveSearchPreset.ijcv_fast: _ijcv_fast,
    SelectiveSearchPreset.ijcv_quality: _ijcv_quality,
}


def _add(search: Any, spaces: list[Image], *, ks: tuple[int, ...], similarities: tuple[str, ...]) -> None:
    segmentation = cv2.ximgproc.segmentation
    for space in spaces:
        search.addImage(space)
    for k in ks:
        search.addGraphSegmentation(segmentation.createGraphSegmentation(_SIGMA, float(k), k))
    for letters in similarities:
        search.addStrategy(_similarity(letters))


def _similarity(letters: str) -> Any:
    """The mean of the similarities named by their letters."""
    segmentation = cv2.ximgproc.segmentation
    makers = {
        "C": segmentation.createSelectiveSearchSegmentationStrategyColor,
        "T": segmentation.createSelectiveSearchSegmentationStrategyTexture,
        "S": segmentation.createSelectiveSearchSegmentationStrategySize,
        "F": segmentation.createSelectiveSearchSegmentationStrategyFill,
    }
    mean = segmentation.createSelectiveSearchSegmentationStrategyMultiple()
    for letter in letters:
        mean.addStrategy(makers[letter](), 1.0 / len(letters))
    return mean


def _hsv(bgr: Image) -> Image:
    # FULL: hue over 0..255 like the other channels, as in the paper (section 3.1), not OpenCV's 0..179.
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2HSV_FULL), dtype=np.uint8)


def _lab(bgr: Image) -> Image:
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2Lab), dtype=np.uint8)


def _normalised_rg_intensity(bgr: Image, grey: Image) -> Image:
    """rgI: red and green as shares of the sum of the channels, and the intensity. Black gives 0, 0, 0."""
    total = np.maximum(bgr.sum(axis=2, dtype=np.float32), 1)
    red, green = bgr[:, :, 2] / total, bgr[:, :, 1] / total
    return np.stack([np.rint(red * 255), np.rint(green * 255), grey], axis=2).astype(np.uint8)


# OpenCV draws from C's rand(); cv2.setRNGSeed has no effect on it.


def _seed_rand(seed: int) -> None:
    srand = _find_srand()
    if srand is not None:
        srand(ctypes.c_uint(seed & 0xFFFFFFFF))


@functools.cache
def _find_srand() -> Callable[[ctypes.c_uint], object] | None:
    """C's srand of this process; None where there is none to be found."""
    try:
        # Windows has one C library by name; elsewhere it is among the symbols of the running program.
        library = ctypes.CDLL("ucrtbase" if sys.platform == "win32" else None)
        srand: Callable[[ctypes.c_uint], object] = library.srand
    except (OSError, AttributeError):
        return None
    return srand


@functools.cache
def _rand_can_be_seeded() -> bool:
    """Whether srand repeats OpenCV's order; not where OpenCV has a C library of its own inside (some Windows wheels).

    Tried on a small drawn image: twice with the same seed, in between once with another.
    """
    if _find_srand() is None:
        return False
    pattern = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    image = cv2.resize(pattern, (96, 96), interpolation=cv2.INTER_NEAREST)

    def order(seed: int) -> bytes:
        search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
        _opencv_single(search, np.asarray(image, dtype=np.uint8))
        with _LOCK:
            _seed_rand(seed)
            return np.asarray(search.process()).tobytes()

    first, other, again = order(1), order(2), order(1)
    return first == again and first != other
