"""The Detector: several images at once, and a folder that was carried to another machine."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from detpipe import Detector
from detpipe.classify.classifier_folder import ClassifierError
from detpipe.datasets.image_file import read_image
from detpipe.proposals.selective_search.search import SelectiveSearch
from detpipe.runs.image_predictor import as_boxes
from detpipe.runs.run_folder import RunFolder
from detpipe.runs.run_proposer import proposer_of_run
from detpipe.structures import Proposals
from tests import drawn


@pytest.fixture(params=["finished_run", "fast_run"])
def run(request: pytest.FixtureRequest) -> Path:
    """A finished run of each kind. Read only."""
    folder: Path = request.getfixturevalue(request.param)
    return folder


def test_a_batch_is_its_images_one_by_one(run: Path, voc_root: Path) -> None:
    detector = Detector.from_run(run, device="cpu")
    paths = [voc_root / "JPEGImages" / f"{name}.jpg" for name in drawn.TEST[:3]]
    found = detector.predict_batch([paths[0], read_image(paths[1]), str(paths[2])])
    assert len(found) == 3
    for path, one in zip(paths, found, strict=True):
        alone = detector.predict(path)
        assert len(one) == len(alone) > 0
        np.testing.assert_allclose(one.scores, alone.scores, atol=1e-3)


FORK = """
import faulthandler, os, sys
import numpy as np
import torch
from detpipe import Detector
from detpipe.datasets.image_file import read_image
from pathlib import Path

torch.set_num_threads(2)
detector = Detector.from_run(sys.argv[1], device="cpu")
images = [read_image(Path(path)) for path in sys.argv[2:]]
expected = detector.predict_batch(images)
child = os.fork()
if not child:
    status = 1
    try:
        faulthandler.dump_traceback_later(100, exit=True)
        for each in (detector, Detector.from_run(sys.argv[1], device="cpu")):
            found = [*each.predict_batch(images), each.predict(images[0])]
            for one, other in zip(found, [*expected, expected[0]], strict=True):
                np.testing.assert_allclose(one.scores, other.scores, atol=1e-3)
        status = 0
    finally:
        os._exit(status)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
"""Detects in a process and in its fork. The process is new: threads of earlier tests are no part of it."""


@pytest.mark.parametrize("run", [pytest.param("finished_run", marks=pytest.mark.slow), "fast_run"], indirect=True)
def test_a_forked_process_detects_the_same(run: Path, voc_root: Path) -> None:
    """OpenMP's threads are lost in a fork: the child waited for them forever, also to load another detector."""
    images = [str(voc_root / "JPEGImages" / f"{name}.jpg") for name in drawn.TEST[:2]]
    done = subprocess.run([sys.executable, "-c", FORK, str(run), *images], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_batch_with_proposals(run: Path, voc_root: Path) -> None:
    detector = Detector.from_run(run, device="cpu")
    image = read_image(voc_root / "JPEGImages" / "test_0.jpg")
    none = Proposals(np.zeros((0, 4), np.float32), np.zeros(0, np.float32))
    one = Proposals(np.array([[10, 10, 60, 60]], np.float32), np.ones(1, np.float32))
    counts = [len(found) for found in detector.predict_batch([image, image], [none, one])]
    assert counts[0] == 0
    assert 1 <= counts[1] <= 2  # one region, two classes
    assert detector.predict_batch([]) == []
    with pytest.raises(ValueError, match="expected one for each of 2 images, got 1"):
        detector.predict_batch([image, image], [one])
    with pytest.raises(ValueError, match=r"^image: expected .* got \(20, 20\) float64"):
        detector.predict_batch([image, np.zeros((20, 20))])  # type: ignore[list-item]


def test_an_opened_file_is_as_its_path(finished_run: Path, voc_root: Path, tmp_path: Path) -> None:
    exif = PIL.Image.Exif()
    exif[274] = 6
    with PIL.Image.open(voc_root / "JPEGImages" / "test_0.jpg") as picture:
        picture.save(tmp_path / "turned.png", exif=exif)
    detector = Detector.from_run(finished_run, device="cpu")
    by_path = detector.predict(tmp_path / "turned.png")
    with PIL.Image.open(tmp_path / "turned.png") as picture:
        opened = detector.predict(picture)
    assert len(by_path) > 0
    for name in ("boxes", "scores", "labels"):
        np.testing.assert_array_equal(getattr(opened, name), getattr(by_path, name))


def test_the_classifiers_folder_alone_is_a_detector(
    run: Path, voc_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Classes, input and proposals' settings come with it, and nothing asks for the network."""
    (tmp_path / "classifier").mkdir()
    for name in ("classifier.json", "weights.safetensors", "proposals.json", "detect.json"):
        shutil.copy(run / "classifier" / name, tmp_path / "classifier" / name)

    def no_network(*arguments: object, **more: object) -> None:
        raise AssertionError("asked for the network")

    monkeypatch.setattr(socket, "socket", no_network)
    here, there = Detector.from_run(run, device="cpu"), Detector.from_run(tmp_path, device="cpu")
    assert there.spec == here.spec
    assert there.spec.classes == drawn.CLASSES
    assert there.proposer == here.proposer
    assert isinstance(there.proposer, SelectiveSearch)
    assert there.proposer.max_proposals == 60
    image = read_image(voc_root / "JPEGImages" / "test_0.jpg")
    np.testing.assert_array_equal(there.predict(image).boxes, here.predict(image).boxes)


def test_a_folder_of_before_searches_selectively(run: Path, tmp_path: Path) -> None:
    drawn.copy(run / "classifier", tmp_path / "classifier")
    (tmp_path / "classifier" / "proposals.json").unlink()
    assert proposer_of_run(RunFolder(tmp_path)) == SelectiveSearch()


@pytest.mark.parametrize("text", ["{", "[1]", '{"seed": 0}'])
def test_a_broken_file_of_settings_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "classifier").mkdir()
    path = tmp_path / "classifier" / "proposals.json"
    path.write_text(text)
    with pytest.raises(ClassifierError, match=r"proposals\.json: expected a (JSON object|proposer's)"):
        proposer_of_run(RunFolder(tmp_path))


def test_settings_of_another_version_are_named(tmp_path: Path) -> None:
    (tmp_path / "classifier").mkdir()
    described = {**SelectiveSearch().describe(), "depth": 3}
    (tmp_path / "classifier" / "proposals.json").write_text(json.dumps(described))
    with pytest.raises(ValueError, match="expected the settings of this version"):
        proposer_of_run(RunFolder(tmp_path))


def box_array(*boxes: list[float]) -> np.ndarray:
    return np.array(boxes, dtype=np.float64).reshape(-1, 4)


def test_boxes_may_be_an_array_in_place_of_proposals(run: Path, voc_root: Path) -> None:
    detector = Detector.from_run(run, device="cpu")
    image = read_image(voc_root / "JPEGImages" / "test_0.jpg")
    boxes = box_array([10, 10, 60, 60], [5, 20, 80, 90])
    proposals = Proposals(boxes.astype(np.float32), np.array([1, 0.5], np.float32))
    wanted = detector.predict(image, proposals)
    assert len(wanted) > 0
    for given in (boxes, boxes.astype(np.float32), boxes.astype(int), boxes.tolist()):
        np.testing.assert_array_equal(detector.predict(image, given).boxes, wanted.boxes)
    for nothing in ([], np.zeros((0, 4))):
        assert len(detector.predict(image, nothing)) == 0
    outside = box_array([-1e6, -1e6, 1e6, 1e6], [1e9, 1e9, 2e9, 2e9], [3, 3, 3, 3])
    found = detector.predict(image, outside)
    assert np.isfinite(found.boxes).all()
    assert (found.boxes <= [*image.shape[1::-1]] * 2).all()


@pytest.mark.parametrize(
    ("boxes", "got"),
    [
        (np.zeros((2, 5)), r"got ndarray \(2, 5\) float64"),
        (np.zeros(4), r"got ndarray \(4,\) float64"),
        ([[0, 0, 1, np.nan]], "got NaN"),
        ([[0, 0, np.inf, 1]], "got NaN"),
        ([[0, 0, 1e300, 1]], "got NaN"),
        ([[0, 0, 1, 1], [5, 5, 2, 9]], r"x1 <= x2 .* got \[5.0, 5.0, 2.0, 9.0\] at 1"),
        ("boxes", "got str"),
        ([["a", "b", "c", "d"]], "got list"),
        ([[0, 0, 1], [1]], "got list"),
        (object(), "got object"),
        ({"boxes": 1}, "got dict"),
        (np.zeros((1, 4), complex), "complex128"),
        (3, r"got int \(\) int64"),
    ],
)
def test_what_is_no_boxes_names_the_argument(boxes: object, got: str) -> None:
    with pytest.raises(ValueError, match=rf"^proposals: expected Proposals or boxes \(N, 4\).*{got}"):
        as_boxes(boxes)  # type: ignore[arg-type]


def test_grey_and_transparent_images_are_detected_on_as_their_files_are(finished_run: Path, tmp_path: Path) -> None:
    detector = Detector.from_run(finished_run, device="cpu")
    grey = np.random.default_rng(0).integers(0, 256, (60, 80), dtype=np.uint8)
    alpha = np.dstack([grey, grey, grey, 255 - grey])
    PIL.Image.fromarray(grey).save(tmp_path / "grey.png")
    wanted = detector.predict(str(tmp_path / "grey.png"))
    for image in (grey, grey[:, :, None], alpha, PIL.Image.fromarray(grey), grey.astype(np.uint16) << 8):
        np.testing.assert_array_equal(detector.predict(image).boxes, wanted.boxes)


def test_one_image_is_no_list_of_images(finished_run: Path) -> None:
    detector = Detector.from_run(finished_run, device="cpu")
    image = np.zeros((20, 20, 3), np.uint8)
    for one in (image, PIL.Image.fromarray(image), "a.jpg", Path("a.jpg"), None, 3):
        with pytest.raises(ValueError, match=r"^images: expected a list of images, got one"):
            detector.predict_batch(one)  # type: ignore[arg-type]
    nothing = Proposals(np.zeros((0, 4), np.float32), np.zeros(0, np.float32))
    for wrong in (nothing, 3):
        with pytest.raises(ValueError, match=r"^proposals: expected a list, one for each image"):
            detector.predict_batch([image], wrong)  # type: ignore[arg-type]


def test_the_limit_on_pixels_of_a_detector(finished_run: Path, tmp_path: Path) -> None:
    PIL.Image.new("L", (20, 20)).save(tmp_path / "a.png")
    detector = Detector.from_run(finished_run, device="cpu", max_pixels=399)
    with pytest.raises(ValueError, match=r"a\.png: expected an image file of at most 399 pixels"):
        detector.predict(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("name", "value"), [("path", None), ("path", 3), ("device", "gpu"), ("precision", "fp8"), ("max_pixels", "many")]
)
def test_a_wrong_argument_of_from_run_is_named(name: str, value: object) -> None:
    arguments = {"path": "nowhere", name: value}
    with pytest.raises((TypeError, ValueError), match=f"^{name}: expected"):
        Detector.from_run(**arguments)  # type: ignore[arg-type]
