"""The Detector: several images at once, and a folder that was carried to another machine."""

from __future__ import annotations

import json
import shutil
import socket
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from detpipe import Detector
from detpipe.classify.classifier_folder import ClassifierError
from detpipe.datasets.image_file import read_image
from detpipe.proposals.selective_search.search import SelectiveSearch
from detpipe.runs.detector import as_pixels
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
    with pytest.raises(ValueError, match=r"expected an \(H, W, 3\) uint8 RGB image"):
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


@pytest.mark.parametrize("image", [None, [[0]], b"JPEG", 3])
def test_what_is_no_image_is_refused(image: object) -> None:
    with pytest.raises(ValueError, match=f"expected an image as a path, a PIL image or .* got {type(image).__name__}"):
        as_pixels(image)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(0, 5, 3), (5, 0, 3), (0, 0, 3), (5, 5), (5, 5, 4), (0,)])
def test_an_array_without_pixels_or_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"with H, W > 0, got \("):
        as_pixels(np.zeros(shape, np.uint8))


def test_a_picture_without_pixels_is_refused() -> None:
    with pytest.raises(ValueError, match=r"got \(5, 0, 3\) uint8"):
        as_pixels(PIL.Image.new("RGB", (0, 5)))


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
    with pytest.raises(ClassifierError, match=r"proposals\.json: expected a proposer's"):
        proposer_of_run(RunFolder(tmp_path))


def test_settings_of_another_version_are_named(tmp_path: Path) -> None:
    (tmp_path / "classifier").mkdir()
    described = {**SelectiveSearch().describe(), "depth": 3}
    (tmp_path / "classifier" / "proposals.json").write_text(json.dumps(described))
    with pytest.raises(ValueError, match="expected the settings of this version"):
        proposer_of_run(RunFolder(tmp_path))
