"""Selective search: determinism, order, presets, small and flat images."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
from omegaconf import OmegaConf

from detpipe.boxes import iou
from detpipe.datasets.image_file import read_image
from detpipe.proposals import selective_search as module
from detpipe.proposals.selective_search import (
    MissingXimgprocError,
    SelectiveSearch,
    SelectiveSearchOrder,
    SelectiveSearchPreset,
    require_ximgproc,
)
from detpipe.structures import Image, Proposals


def drawn(height: int = 96, width: int = 128, seed: int = 0) -> Image:
    """Rectangles and a disc on a ground, with a little noise."""
    image = np.full((height, width, 3), (60, 120, 200), np.uint8)
    cv2.rectangle(image, (10, 12), (50, 60), (230, 40, 30), -1)
    cv2.rectangle(image, (20, 30), (35, 50), (20, 220, 40), -1)
    cv2.circle(image, (90, 50), 25, (240, 230, 60), -1)
    noise = np.random.default_rng(seed).integers(0, 12, image.shape, dtype=np.uint8)
    return image + noise


def mosaic(seed: int = 0) -> Image:
    """Tiles of many colours: many regions."""
    tiles = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(tiles, (240, 180), interpolation=cv2.INTER_NEAREST), np.uint8)


def same(a: Proposals, b: Proposals) -> bool:
    return a.boxes.tobytes() == b.boxes.tobytes() and a.scores.tobytes() == b.scores.tobytes()


@pytest.mark.parametrize("preset", list(SelectiveSearchPreset))
def test_every_preset_finds_the_drawn_things(preset: SelectiveSearchPreset):
    found = SelectiveSearch(preset=preset, max_proposals=None)(drawn())
    things = np.array([[10, 12, 51, 61], [65, 25, 116, 76]], np.float32)
    assert (iou(things, found.boxes).max(axis=1) > 0.8).all()
    assert (np.diff(found.scores) < 0).all()
    assert len(np.unique(found.boxes, axis=0)) == len(found)
    assert (found.boxes >= 0).all()
    assert (found.boxes <= (128, 96, 128, 96)).all()


@pytest.mark.parametrize("order", ["opencv", "paper"])
def test_the_same_whatever_was_called_before(order: str):
    search = SelectiveSearch(order=order)
    first = search(mosaic())
    search(mosaic(seed=1))
    ctypes.CDLL(None).srand(123)
    ctypes.CDLL(None).rand()
    assert len(first) > 50
    assert same(first, search(mosaic()))


@pytest.mark.parametrize("order", ["opencv", "paper"])
def test_seed_changes_the_order_not_the_boxes(order: str):
    first, other = (SelectiveSearch(order=order, seed=seed, max_proposals=None)(mosaic()) for seed in (1, 2))
    assert not same(first, other)
    assert {tuple(b) for b in first.boxes.tolist()} == {tuple(b) for b in other.boxes.tolist()}


def test_the_same_in_threads_and_with_opencv_threads():
    before = cv2.getNumThreads()
    search = SelectiveSearch()
    images = [mosaic(seed=seed) for seed in range(4)]
    try:
        cv2.setNumThreads(2)
        alone = [search(image) for image in images]
        cv2.setNumThreads(0)
        together: dict[int, Proposals] = {}
        threads = [threading.Thread(target=lambda i=i: together.update({i: search(images[i])})) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        cv2.setNumThreads(before)
    assert all(same(alone[i], together[i]) for i in range(4))


def test_the_same_in_another_process(tmp_path: Path):
    np.save(tmp_path / "image.npy", drawn())
    code = (
        "import sys, numpy as np, cv2; cv2.setNumThreads(0)\n"
        "from detpipe.proposals.selective_search import SelectiveSearch\n"
        "sys.stdout.buffer.write(SelectiveSearch()(np.load(sys.argv[1])).boxes.tobytes())"
    )
    arguments = [sys.executable, "-c", code, str(tmp_path / "image.npy")]
    there = subprocess.run(arguments, capture_output=True, check=True, env={**os.environ, "PYTHONHASHSEED": "5"})
    assert there.stdout == SelectiveSearch()(drawn()).boxes.tobytes()


def test_opencv_order_is_opencvs_own():
    image = drawn()
    search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
    search.setBaseImage(np.ascontiguousarray(image[:, :, ::-1]))
    search.switchToSelectiveSearchFast()
    ctypes.CDLL(None).srand(ctypes.c_uint(9))
    rects = np.asarray(search.process(), dtype=np.float32)
    wanted = np.concatenate([rects[:, :2], rects[:, :2] + rects[:, 2:]], axis=1)
    settings = {"preset": "opencv_fast", "max_side": None, "min_size": 0, "max_proposals": None}
    found = SelectiveSearch(seed=9, **settings)(image)
    assert found.boxes.tolist() == wanted.tolist()


def test_the_paper_puts_large_boxes_first_by_trend():
    small, large = (SelectiveSearch(order=order)(mosaic()) for order in ("opencv", "paper"))
    mean_side = [np.sqrt((p.boxes[:40, 2:] - p.boxes[:40, :2]).prod(axis=1)).mean() for p in (small, large)]
    assert mean_side[1] > mean_side[0]


def test_order_of_the_preset():
    assert SelectiveSearch(preset="ijcv_fast")._order is SelectiveSearchOrder.paper
    assert SelectiveSearch(preset="opencv_quality")._order is SelectiveSearchOrder.opencv
    assert SelectiveSearch(preset="ijcv_fast", order="opencv")._order is SelectiveSearchOrder.opencv


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (1, 50), (50, 1), (2, 2), (3, 40), (64, 64)])
@pytest.mark.parametrize("preset", ["opencv_fast", "ijcv_quality"])
def test_tiny_or_flat_images_give_themselves(size: tuple[int, int], preset: str):
    height, width = size
    found = SelectiveSearch(preset=preset)(np.full((height, width, 3), 77, np.uint8))
    assert found.boxes.tolist() == [[0, 0, width, height]]
    assert found.scores.tolist() == [1]


def test_min_size_and_max_proposals():
    found = SelectiveSearch(min_size=30, max_proposals=3)(drawn())
    assert len(found) == 3
    assert ((found.boxes[:, 2:] - found.boxes[:, :2]) >= 30).all()
    nothing = SelectiveSearch(min_size=1000)(drawn())
    assert nothing.boxes.tolist() == [[0, 0, 128, 96]]


def test_max_side_scales_back():
    image = cv2.resize(drawn(), (512, 384), interpolation=cv2.INTER_CUBIC)
    found = SelectiveSearch(max_side=128)(image)
    assert iou(np.array([[40, 48, 204, 244]], np.float32), found.boxes).max() > 0.8
    assert (found.boxes <= (512, 384, 512, 384)).all()
    thin = SelectiveSearch(max_side=2)(np.zeros((1, 300, 3), np.uint8))
    assert thin.boxes.tolist() == [[0, 0, 300, 1]]


def test_one_colour_order_matters():
    image = drawn()
    assert not same(SelectiveSearch()(image), SelectiveSearch()(np.ascontiguousarray(image[:, :, ::-1])))


def test_views_work_like_copies():
    image = drawn()
    view = image[::-1, ::-1]
    assert same(SelectiveSearch()(view), SelectiveSearch()(view.copy()))


def test_wrong_settings_are_named():
    with pytest.raises(ValueError, match="opencv_fast, opencv_quality"):
        SelectiveSearch(preset="fast")
    with pytest.raises(ValueError, match="order"):
        SelectiveSearch(order="big")
    with pytest.raises(ValueError, match="min_size"):
        SelectiveSearch(min_size=-1)
    with pytest.raises(ValueError, match="max_side"):
        SelectiveSearch(max_side=0)


def test_preset_by_name_in_a_configuration():
    config = OmegaConf.merge(OmegaConf.structured(SelectiveSearch), {"preset": "ijcv_fast", "order": "opencv"})
    assert OmegaConf.to_object(config) == SelectiveSearch(preset="ijcv_fast", order="opencv")


def test_missing_ximgproc_names_the_mend(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delattr(cv2, "ximgproc")
    for call in (require_ximgproc, SelectiveSearch().check, lambda: SelectiveSearch()(drawn())):
        with pytest.raises(MissingXimgprocError, match="pip install opencv-contrib-python"):
            call()


def test_without_srand_the_order_is_the_papers(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    monkeypatch.setattr(module, "_rand_can_be_seeded", lambda: False)
    search = SelectiveSearch(preset="opencv_fast")
    search.check()
    assert "order=paper" in caplog.text
    monkeypatch.setattr(module, "_seed_rand", lambda seed: None)
    first = search(drawn())
    assert same(first, search(drawn()))
    assert same(first, SelectiveSearch(preset="opencv_fast", order="paper")(drawn()))


def test_real_photograph(shared_data: Path):
    image = read_image(shared_data / "proposals" / "fast_rcnn_demo_proposals" / "000004.jpg")
    search = SelectiveSearch(max_side=200)
    found = search(image)
    assert len(found) > 200
    assert same(found, search(image))
