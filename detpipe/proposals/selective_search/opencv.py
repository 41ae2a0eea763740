"""OpenCV's selective search (ximgproc), made repeatable. It is the reference for our own, and can be used itself."""

from __future__ import annotations

import ctypes
import functools
import sys
import threading
from collections.abc import Callable
from enum import Enum
from typing import Any

import cv2
import numpy as np

from detpipe.resize import Interpolation, resize
from detpipe.structures import Float32Array, Image

_LOCK = threading.Lock()
"""C's rand() has one state per process: no other thread may draw between seeding and drawing."""
_K, _STEP, _SIGMA = 150, 150, 0.8
"""OpenCV's defaults."""


class OpenCvMode(Enum):
    """OpenCV's two strategies."""

    fast = "fast"
    """HSV, Lab; k = 150, 300, 450; CTSF, TSF. 12 hierarchies."""
    quality = "quality"
    """HSV, Lab, grey, H, RG + grey; k = 150, 300, ... 750; CTSF, TSF, F, S. 100 hierarchies."""


def opencv_boxes(image: Image, mode: OpenCvMode, seed: int) -> Float32Array:
    """Boxes (N, 4) float32 of an RGB image (H, W, 3) uint8 in OpenCV's order, where small ones tend to be first.

    The order is random, and depends on the seed only if `rand_can_be_seeded`. A tiny or flat image may give no boxes.
    """
    search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
    search.setBaseImage(np.ascontiguousarray(image[:, :, ::-1]))
    if mode is OpenCvMode.fast:
        search.switchToSelectiveSearchFast(_K, _STEP, _SIGMA)
    else:
        search.switchToSelectiveSearchQuality(_K, _STEP, _SIGMA)
    return _process(search, seed)


class MissingXimgprocError(ImportError):
    """The installed OpenCV lacks its extra modules."""


def require_ximgproc() -> None:
    """Raise MissingXimgprocError, with the remedy, unless cv2.ximgproc has selective search."""
    ximgproc = getattr(cv2, "ximgproc", None)
    segmentation = getattr(ximgproc, "segmentation", None)
    if not hasattr(segmentation, "createSelectiveSearchSegmentation"):
        raise MissingXimgprocError(
            f"expected OpenCV with cv2.ximgproc, got {cv2.__version__} without it: another OpenCV wheel replaces "
            "opencv-contrib-python. Run: pip uninstall -y opencv-python opencv-python-headless "
            "opencv-contrib-python opencv-contrib-python-headless && pip install opencv-contrib-python"
        )


@functools.cache
def rand_can_be_seeded() -> bool:
    """Whether srand makes OpenCV's order repeatable. It doesn't if OpenCV contains its own C library (some Windows
    wheels).

    Tested on a small image: twice with the same seed, and once in between with another.
    """
    if _find_srand() is None:
        return False
    pattern = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    image = resize(pattern, (96, 96), Interpolation.nearest)

    def order(seed: int) -> bytes:
        search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
        search.setBaseImage(image)
        search.switchToSingleStrategy(200, _SIGMA)
        return _process(search, seed).tobytes()

    first, other, again = order(1), order(2), order(1)
    return first == again and first != other


def _process(search: Any, seed: int) -> Float32Array:
    with _LOCK:
        # OpenCV draws from C's rand(); cv2.setRNGSeed has no effect on it.
        srand = _find_srand()
        if srand is not None:
            srand(ctypes.c_uint(seed & 0xFFFFFFFF))
        corner_size = np.asarray(search.process(), dtype=np.float32).reshape(-1, 4)
    return np.concatenate([corner_size[:, :2], corner_size[:, :2] + corner_size[:, 2:]], axis=1)


@functools.cache
def _find_srand() -> Callable[[ctypes.c_uint], object] | None:
    """C's srand of this process; None if it can't be found."""
    try:
        # Windows has a named C library; elsewhere srand is a symbol of the running program.
        library = ctypes.CDLL("ucrtbase" if sys.platform == "win32" else None)
        srand: Callable[[ctypes.c_uint], object] = library.srand
    except (OSError, AttributeError):
        return None
    return srand
