"""Selective search as OpenCV's ximgproc has it, made repeatable: the reference for our own, and a choice beside it."""

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
"""C's rand() has one state for the whole process: seeding and drawing must not mix with another thread's."""
_K, _STEP, _SIGMA = 150, 150, 0.8
"""OpenCV's own defaults."""


class OpenCvMode(Enum):
    """OpenCV's two strategies."""

    fast = "fast"
    """HSV, Lab; k = 150, 300, 450; CTSF, TSF. 12 hierarchies."""
    quality = "quality"
    """HSV, Lab, grey, H, RG + grey; k = 150, 300, ... 750; CTSF, TSF, F, S. 100 hierarchies."""


def opencv_boxes(image: Image, mode: OpenCvMode, seed: int) -> Float32Array:
    """Boxes (N, 4) float32 of an RGB image (H, W, 3) uint8 in OpenCV's order, small ones first by trend.

    The order is random; it repeats with the seed where `rand_can_be_seeded`. A tiny or flat image may give none.
    """
    search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
    search.setBaseImage(np.ascontiguousarray(image[:, :, ::-1]))
    if mode is OpenCvMode.fast:
        search.switchToSelectiveSearchFast(_K, _STEP, _SIGMA)
    else:
        search.switchToSelectiveSearchQuality(_K, _STEP, _SIGMA)
    return _process(search, seed)


class MissingXimgprocError(ImportError):
    """This OpenCV was built, or installed over, without its extra modules."""


def require_ximgproc() -> None:
    """Raise MissingXimgprocError, with the mend, unless cv2.ximgproc is there with selective search."""
    ximgproc = getattr(cv2, "ximgproc", None)
    segmentation = getattr(ximgproc, "segmentation", None)
    if not hasattr(segmentation, "createSelectiveSearchSegmentation"):
        raise MissingXimgprocError(
            f"expected OpenCV with cv2.ximgproc, got {cv2.__version__} without it: another OpenCV wheel lies over "
            "opencv-contrib-python. Mend: pip uninstall -y opencv-python opencv-python-headless "
            "opencv-contrib-python opencv-contrib-python-headless && pip install opencv-contrib-python"
        )


@functools.cache
def rand_can_be_seeded() -> bool:
    """Whether srand repeats OpenCV's order; not where OpenCV has a C library of its own inside (some Windows wheels).

    Tried on a small drawn image: twice with the same seed, in between once with another.
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
    """C's srand of this process; None where there is none to be found."""
    try:
        # Windows has one C library by name; elsewhere it is among the symbols of the running program.
        library = ctypes.CDLL("ucrtbase" if sys.platform == "win32" else None)
        srand: Callable[[ctypes.c_uint], object] = library.srand
    except (OSError, AttributeError):
        return None
    return srand
