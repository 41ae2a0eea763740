"""Selective search: golden boxes, the same everywhere; presets, orders, and images of every kind."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
import pytest
from omegaconf import OmegaConf

from detpipe.boxes import iou
from detpipe.datasets.image_file import read_image
from detpipe.proposals.selective_search import search as module
from detpipe.proposals.selective_search.opencv import MissingXimgprocError, OpenCvMode, opencv_boxes
from detpipe.proposals.selective_search.search import (
    SelectiveSearch,
    SelectiveSearchOrder,
    SelectiveSearchPreset,
    grow,
    recipe_of,
)
from detpipe.randomness import generator_for_pixels
from detpipe.structures import Image, Proposals
from tests.proposals.pictures import THINGS, mosaic, noise, scene, shades
from tests.proposals.selective_search.golden import GOLDEN, OWN, digests

ROOT = Path(__file__).resolve().parents[3]
THEIRS = [SelectiveSearchPreset.cv2_fast, SelectiveSearchPreset.cv2_quality]


def same(a: Proposals, b: Proposals) -> bool:
    return a.boxes.tobytes() == b.boxes.tobytes() and a.scores.tobytes() == b.scores.tobytes()


def as_set(found: Proposals) -> set[tuple[float, ...]]:
    return {tuple(box) for box in found.boxes.tolist()}


def check_proposals(found: Proposals, height: int, width: int, min_size: int = 0) -> None:
    assert len(found) > 0
    assert (np.diff(found.scores) < 0).all()
    assert (found.boxes >= 0).all()
    assert (found.boxes <= (width, height, width, height)).all()
    assert (found.boxes[:, 2:] > found.boxes[:, :2]).all()
    assert ((found.boxes[:, 2:] - found.boxes[:, :2]).min(axis=1) >= min_size).all()
    assert len(as_set(found)) == len(found)


# --- Golden boxes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", OWN)
def test_golden_boxes(preset: SelectiveSearchPreset):
    assert digests(preset) == GOLDEN[preset.value]


def test_golden_boxes_in_four_threads_at_once():
    presets = [SelectiveSearchPreset.turbo, SelectiveSearchPreset.ijcv_fast] * 2
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(digests, presets)) == [GOLDEN[preset.value] for preset in presets]


def test_golden_boxes_in_a_spawned_process():
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as processes:
        assert processes.submit(digests, SelectiveSearchPreset.turbo).result() == GOLDEN["turbo"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings", [{"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}, {"NUMBA_OPT": "0"}], ids=["generic", "plain"]
)
def test_golden_boxes_of_another_machine_code(settings: dict[str, str], tmp_path: Path):
    """For a processor without vectors, and without optimisation: it is compiled anew, which takes a minute."""
    code = (
        "from tests.proposals.selective_search.golden import GOLDEN, OWN, digests\n"
        "assert {one.value: digests(one) for one in OWN} == GOLDEN"
    )
    environment = {**os.environ, **settings, "NUMBA_CACHE_DIR": str(tmp_path)}
    ended = subprocess.run([sys.executable, "-c", code], env=environment, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


OUT_OF_BOUNDS = """
from tests.proposals.selective_search.golden import OWN
from tests.proposals.pictures import noise, shades
from detpipe.proposals.selective_search.search import SelectiveSearch
import numpy as np
sizes = [(1, 1), (1, 2), (2, 1), (1, 33), (33, 1), (2, 2), (2, 40), (40, 2), (3, 3), (17, 23), (3, 300), (90, 80)]
for preset in OWN:
    for size in sizes:
        for image in (noise(*size), shades(*size), np.full((*size, 3), 9, np.uint8), noise(*size) // 128 * 255):
            for max_side in (None, 7):
                for order in ("objectness", "paper"):
                    SelectiveSearch(preset=preset, order=order, max_side=max_side, min_size=1)(image)
"""


@pytest.mark.slow
def test_no_index_is_out_of_bounds(tmp_path: Path):
    environment = {**os.environ, "NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path)}
    arguments = [sys.executable, "-c", OUT_OF_BOUNDS]
    ended = subprocess.run(arguments, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


# --- Presets and orders -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", list(SelectiveSearchPreset))
def test_every_preset_finds_the_drawn_things(preset: SelectiveSearchPreset):
    found = SelectiveSearch(preset=preset)(scene())
    assert (iou(THINGS, found.boxes).max(axis=1) > 0.8).all()
    check_proposals(found, 96, 128, min_size=10)


@pytest.mark.parametrize("preset", OWN)
def test_hierarchies_are_as_many_as_documented(preset: SelectiveSearchPreset):
    wanted = {
        "turbo": 12,
        "turbo_quality": 40,
        "ijcv_fast": 8,
        "ijcv_quality": 80,
        "opencv_fast": 12,
        "opencv_quality": 100,
        "opencv_single": 1,
    }[preset.value]
    recipe = recipe_of(preset)
    assert len(recipe.spaces) * len(recipe.ks) * len(recipe.similarities) == wanted
    assert len(grow(scene(24, 32), recipe)) == wanted
    assert recipe.max_side == (288 if preset.value.startswith("turbo") else 640)


@pytest.mark.parametrize("preset", THEIRS)
def test_opencvs_code_has_no_recipe(preset: SelectiveSearchPreset):
    with pytest.raises(ValueError, match=f"recipe_of: expected a preset of our own code, got {preset.value}"):
        recipe_of(preset)


def test_objectness_is_the_default_and_knows_no_seed():
    image = mosaic()
    found = SelectiveSearch()(image)
    assert same(found, SelectiveSearch(order="objectness", seed=5)(image))
    assert not same(found, SelectiveSearch(order="paper")(image))


def test_near_duplicates_come_last():
    found = SelectiveSearch(max_proposals=None, min_size=1)(shades())
    overlaps = np.triu(iou(found.boxes, found.boxes), 1)
    # Each box is the first of its kind, until one is not; from then on none is.
    repeats = (overlaps > 0.8).any(axis=0)
    assert repeats.any()
    assert not repeats[: np.argmax(repeats)].any()
    assert repeats[np.argmax(repeats) :].all()


@pytest.mark.parametrize("preset", ["turbo", "ijcv_fast", "cv2_fast"])
def test_the_papers_order_is_the_seeds(preset: str):
    image = mosaic(5, 6)
    first, again, other = (
        SelectiveSearch(preset=preset, order="paper", seed=seed, max_proposals=None)(image) for seed in (1, 1, 2)
    )
    assert same(first, again)
    assert not same(first, other)
    assert as_set(first) == as_set(other)
    if preset != "cv2_fast":
        assert as_set(first) == as_set(SelectiveSearch(preset=preset, max_proposals=None)(image))


@pytest.mark.parametrize("preset", ["turbo", "cv2_fast"])
def test_the_papers_order_draws_apart_for_each_image(preset: str, monkeypatch: pytest.MonkeyPatch):
    """The first image twice, then another: the same random numbers twice, then others."""
    drawn = []

    def remember(seed: int, image: Image) -> np.random.Generator:
        drawn.append(generator_for_pixels(seed, image).random())
        return generator_for_pixels(seed, image)

    monkeypatch.setattr(module, "generator_for_pixels", remember)
    for image in (mosaic(5, 6), mosaic(5, 6), scene()):
        SelectiveSearch(preset=preset, order="paper")(image)
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize("preset", ["turbo", "cv2_fast"])
def test_the_paper_puts_large_boxes_first_by_trend(preset: str):
    found = SelectiveSearch(preset=preset, order="paper", max_proposals=None)(mosaic())
    sides = np.sqrt((found.boxes[:, 2:] - found.boxes[:, :2]).prod(axis=1))
    half = len(sides) // 2
    assert sides[:half].mean() > 1.3 * sides[half:].mean()


def test_cv2_gives_opencvs_boxes_in_opencvs_order():
    image = scene()
    wanted = opencv_boxes(image, OpenCvMode.fast, 9)
    for order in (None, "opencv"):
        found = SelectiveSearch(preset="cv2_fast", order=order, seed=9, min_size=0, max_proposals=None)(image)
        assert found.boxes.tolist() == wanted.tolist()


def test_without_srand_the_order_of_cv2_is_the_papers(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    image = scene()
    wanted = SelectiveSearch(preset="cv2_fast", order="paper")(image)
    monkeypatch.setattr(module, "rand_can_be_seeded", lambda: False)
    search = SelectiveSearch(preset="cv2_fast")
    search.check()
    assert "order=paper" in caplog.text
    assert same(search(image), wanted)


def test_opencvs_parameters_find_about_what_opencv_finds():
    for image in (scene(), mosaic(5, 6)):
        ours, theirs = (
            SelectiveSearch(preset=preset, max_proposals=None)(image) for preset in ("opencv_fast", "cv2_fast")
        )
        assert iou(theirs.boxes, ours.boxes).max(axis=1).mean() > 0.75


def test_our_own_needs_no_ximgproc(monkeypatch: pytest.MonkeyPatch):
    image = scene(24, 32)
    monkeypatch.delattr(cv2, "ximgproc")
    for preset in OWN:
        search = SelectiveSearch(preset=preset)
        search.check()
        assert len(search(image)) > 0
    for preset in THEIRS:
        for call in (SelectiveSearch(preset=preset).check, lambda one=preset: SelectiveSearch(preset=one)(image)):
            with pytest.raises(MissingXimgprocError, match="pip install opencv-contrib-python"):
                call()


# --- Settings ---------------------------------------------------------------------------------------------------------


def test_min_size_and_max_proposals():
    image = scene()
    everything = SelectiveSearch(min_size=30, max_proposals=None)(image)
    check_proposals(everything, 96, 128, min_size=30)
    best = SelectiveSearch(min_size=30, max_proposals=3)(image)
    assert best.boxes.tolist() == everything.boxes[:3].tolist()
    assert best.scores.tolist() == everything.scores[:3].tolist()
    for preset in ("turbo", "cv2_fast"):
        nothing = SelectiveSearch(preset=preset, min_size=1000)(image)
        assert nothing.boxes.tolist() == [[0, 0, 128, 96]]
        assert nothing.scores.tolist() == [1]


def test_min_size_counts_in_pixels_of_the_image():
    image = mosaic(5, 6, 40)
    found = SelectiveSearch(min_size=50, max_side=60, max_proposals=None)(image)
    check_proposals(found, 200, 240, min_size=50)
    # A tile has 10 pixels of the working image, and 40 of the image.
    assert len(SelectiveSearch(min_size=40, max_side=60, max_proposals=None)(image)) > len(found)


@pytest.mark.parametrize("preset", ["turbo", "cv2_fast"])
def test_max_side_scales_back(preset: str):
    image = scene().repeat(4, axis=0).repeat(4, axis=1)
    found = SelectiveSearch(preset=preset, max_side=128)(image)
    assert (iou(4 * THINGS, found.boxes).max(axis=1) > 0.8).all()
    check_proposals(found, 384, 512)
    # The image shrunk four times is the scene.
    of_scene = SelectiveSearch(preset=preset, min_size=3)(scene())
    assert found.boxes.tolist() == (4 * of_scene.boxes).tolist()


def test_wrong_settings_are_named():
    with pytest.raises(ValueError, match=r"preset: expected turbo, turbo_quality, .*cv2_quality, got 'fast'"):
        SelectiveSearch(preset="fast")
    with pytest.raises(ValueError, match="order: expected objectness, paper, opencv, got 'big'"):
        SelectiveSearch(order="big")
    with pytest.raises(ValueError, match="min_size"):
        SelectiveSearch(min_size=-1)
    with pytest.raises(ValueError, match="max_side"):
        SelectiveSearch(max_side=0)
    with pytest.raises(ValueError, match="max_proposals"):
        SelectiveSearch(max_proposals=0)


def test_an_order_that_the_preset_lacks_is_named():
    for preset in OWN:
        with pytest.raises(ValueError, match=f"order: {preset.value} .*order opencv"):
            SelectiveSearch(preset=preset, order="opencv")
    for preset in THEIRS:
        with pytest.raises(ValueError, match=f"order: {preset.value} .*order objectness"):
            SelectiveSearch(preset=preset, order="objectness")


def test_preset_by_name_in_a_configuration():
    config = OmegaConf.merge(OmegaConf.structured(SelectiveSearch), {"preset": "ijcv_fast", "order": "paper"})
    assert OmegaConf.to_object(config) == SelectiveSearch(preset="ijcv_fast", order=SelectiveSearchOrder.paper)


# --- Images -----------------------------------------------------------------------------------------------------------

TINY = [(1, 1), (1, 2), (2, 1), (1, 50), (50, 1), (2, 2), (3, 40), (7, 7)]


@pytest.mark.parametrize("size", TINY)
@pytest.mark.parametrize("preset", list(SelectiveSearchPreset))
def test_tiny_and_flat_images_give_themselves(size: tuple[int, int], preset: SelectiveSearchPreset):
    height, width = size
    found = SelectiveSearch(preset=preset)(np.full((height, width, 3), 77, np.uint8))
    assert found.boxes.tolist() == [[0, 0, width, height]]
    assert found.scores.tolist() == [1]


@pytest.mark.parametrize("size", [*TINY, (3, 5000), (5000, 3), (1, 999)])
@pytest.mark.parametrize("preset", [SelectiveSearchPreset.turbo, SelectiveSearchPreset.opencv_single])
def test_thin_images_full_of_noise(size: tuple[int, int], preset: SelectiveSearchPreset):
    found = SelectiveSearch(preset=preset, min_size=0, max_proposals=None)(noise(*size))
    check_proposals(found, *size)
    assert (0, 0, size[1], size[0]) in as_set(found)


def test_flat_images_give_themselves():
    assert SelectiveSearch()(np.zeros((300, 400, 3), np.uint8)).boxes.tolist() == [[0, 0, 400, 300]]


def test_a_photograph_of_12_megapixels_reaches_its_far_corner():
    # Tiles that differ in all four corners, so that the whole and its right and lower parts are regions.
    image = mosaic(6, 8, 500)
    assert image.shape == (3000, 4000, 3)
    found = SelectiveSearch(max_proposals=None)(image)
    check_proposals(found, 3000, 4000, min_size=10)
    assert (0, 0, 4000, 3000) in as_set(found)
    last_tile = np.array([[3500, 2500, 4000, 3000]], np.float32)
    assert iou(last_tile, found.boxes).max() > 0.9


def grey_image() -> Image:
    return np.ascontiguousarray(scene()[:, :, 0])


@pytest.mark.parametrize(
    ("given", "like"),
    [
        (grey_image(), np.dstack([grey_image()] * 3)),
        (grey_image()[:, :, None], np.dstack([grey_image()] * 3)),
        (np.dstack([scene(), grey_image()]), scene()),
        (scene().astype(np.uint16) * 256 + 99, scene()),
        (scene()[::-1, ::-1], scene()[::-1, ::-1].copy()),
        (scene()[::2, 1::3], scene()[::2, 1::3].copy()),
        (np.asfortranarray(scene()), scene()),
    ],
    ids=["grey", "one_channel", "alpha", "sixteen_bits", "turned", "part", "fortran"],
)
@pytest.mark.parametrize("preset", ["turbo", "cv2_fast"])
def test_other_arrays_are_like_the_image_that_they_show(given: np.ndarray, like: Image, preset: str):
    assert same(SelectiveSearch(preset=preset)(given), SelectiveSearch(preset=preset)(like))


def test_read_only_images_are_taken_and_none_is_changed():
    image = scene()
    before = image.tobytes()
    image.flags.writeable = False
    found = SelectiveSearch()(image)
    assert image.tobytes() == before
    assert same(found, SelectiveSearch()(scene()))


@pytest.mark.parametrize(
    "wrong", [np.zeros((4, 4, 3), np.float32), np.zeros((4, 4, 3), bool), np.zeros((0, 4, 3), np.uint8)]
)
@pytest.mark.parametrize("preset", ["turbo", "cv2_fast"])
def test_other_arrays_are_refused(wrong: np.ndarray, preset: str):
    with pytest.raises(ValueError, match=r"^image: expected"):
        SelectiveSearch(preset=preset)(wrong)


def test_the_order_of_the_channels_matters():
    image = scene()
    assert not same(SelectiveSearch()(image), SelectiveSearch()(np.ascontiguousarray(image[:, :, ::-1])))


def test_real_photograph(shared_data: Path):
    image = read_image(shared_data / "proposals" / "fast_rcnn_demo_proposals" / "000004.jpg")
    found = SelectiveSearch()(image)
    assert len(found) > 300
    check_proposals(found, *image.shape[:2], min_size=10)
    assert same(found, SelectiveSearch()(image))


@pytest.mark.parametrize(
    ("name", "value"),
    [("max_proposals", "x"), ("max_proposals", 1.5), ("seed", None), ("max_side", "large"), ("preset", "fastest")],
)
def test_a_wrong_argument_is_named(name: str, value: object) -> None:
    with pytest.raises((TypeError, ValueError), match=f"^{name}: expected"):
        SelectiveSearch(**{name: value})
