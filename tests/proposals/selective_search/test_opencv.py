"""OpenCV's own selective search: made repeatable, and missed with a mend."""

from __future__ import annotations

import ctypes

import cv2
import numpy as np
import pytest

from detpipe.proposals.selective_search import opencv as module
from detpipe.proposals.selective_search.opencv import (
    MissingXimgprocError,
    OpenCvMode,
    opencv_boxes,
    rand_can_be_seeded,
    require_ximgproc,
)
from tests.proposals.pictures import mosaic, scene


def test_its_boxes_are_opencvs_in_opencvs_order():
    image = scene()
    search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
    search.setBaseImage(np.ascontiguousarray(image[:, :, ::-1]))
    search.switchToSelectiveSearchFast()
    ctypes.CDLL(None).srand(ctypes.c_uint(9))
    corner_size = np.asarray(search.process(), dtype=np.float32)
    wanted = np.concatenate([corner_size[:, :2], corner_size[:, :2] + corner_size[:, 2:]], axis=1)
    assert opencv_boxes(image, OpenCvMode.fast, 9).tolist() == wanted.tolist()


def test_the_seed_alone_decides():
    assert rand_can_be_seeded()
    image = mosaic(4, 5)
    first, other = opencv_boxes(image, OpenCvMode.fast, 1), opencv_boxes(image, OpenCvMode.fast, 2)
    ctypes.CDLL(None).rand()
    assert first.tobytes() == opencv_boxes(image, OpenCvMode.fast, 1).tobytes()
    assert first.tobytes() != other.tobytes()
    assert sorted(first.tolist()) == sorted(other.tolist())


def test_quality_finds_more():
    image = scene()
    fast, quality = (len(opencv_boxes(image, mode, 0)) for mode in (OpenCvMode.fast, OpenCvMode.quality))
    assert quality > fast > 0


def test_of_a_flat_image_there_may_be_none():
    assert opencv_boxes(np.full((9, 9, 3), 7, np.uint8), OpenCvMode.fast, 0).shape[1:] == (4,)


def test_without_srand_it_can_not_be_seeded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "_find_srand", lambda: None)
    rand_can_be_seeded.cache_clear()
    try:
        assert not rand_can_be_seeded()
        assert len(opencv_boxes(scene(), OpenCvMode.fast, 0)) > 0
    finally:
        rand_can_be_seeded.cache_clear()


def test_missing_ximgproc_names_the_mend(monkeypatch: pytest.MonkeyPatch):
    require_ximgproc()
    monkeypatch.delattr(cv2, "ximgproc")
    with pytest.raises(MissingXimgprocError, match="pip install opencv-contrib-python"):
        require_ximgproc()
