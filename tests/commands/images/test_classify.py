"""`detect source=` with a classifier of whole images, and `detpipe.Classifier`: the class of each photo."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import detpipe
from detpipe.classify.classifier_folder import ClassifierError
from detpipe.classify.images.database import ImagesReader
from detpipe.classify.images.train import all_logits
from detpipe.runs.image_classifier import Classification, Classifier
from tests.command_line import detpipe as command
from tests.commands.images.test_images import QUIET, TRAIN, draw, make_db

CLASSES = ("blue", "red", "green")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """images/: photos. db: of them, resized to 40 x 40. run: a classifier that was trained on it. Read only."""
    folder = tmp_path_factory.mktemp("classify")
    draw(folder / "images", 8, 0, CLASSES[:2])
    outcome = make_db(folder / "images", folder / "db", "resize=40x40", "shuffle=false")
    assert outcome.status == 0, outcome.err
    outcome = command("train-cls", f"db.train={folder / 'db'}", *QUIET, *TRAIN, f"run_dir={folder / 'run'}")
    assert outcome.status == 0, outcome.err
    return folder


def test_a_photo_gets_the_probabilities_of_its_stored_image(place: Path) -> None:
    classifier = Classifier.from_run(place / "run", device="cpu")
    photos = sorted((place / "images").rglob("*.png"))
    found = classifier.predict_batch([str(path) for path in photos])
    with ImagesReader(place / "db") as reader:
        logits = all_logits(classifier.network, reader, classifier.spec.view, torch.device("cpu"), bf16=False)
    expected = torch.from_numpy(logits).softmax(dim=1).numpy()
    np.testing.assert_allclose(np.stack([one.probabilities for one in found]), expected, atol=1e-6)
    alone = classifier(photos[0])
    assert alone.name == found[0].name
    np.testing.assert_allclose(classifier(cv2.imread(str(photos[0]))[:, :, ::-1]).probabilities, alone.probabilities)
    assert classifier.predict_batch([]) == []
    assert classifier.classes == ("blue", "red")


def test_the_best_classes_by_hand() -> None:
    found = Classification(np.array([0.2, 0.5, 0.3], dtype=np.float32), CLASSES)
    assert (found.name, round(found.score, 3)) == ("red", 0.5)
    assert [one.name for one in found.top(2)] == ["red", "green"]
    assert repr(found) == "Classification(red 0.50, green 0.30, blue 0.20)"
    even = Classification(np.array([0.5, 0.5], dtype=np.float32), CLASSES[:2])
    assert even.name == "blue"


def test_a_folder_gets_a_table_and_a_page(place: Path, tmp_path: Path) -> None:
    run = shutil.copytree(place / "run", tmp_path / "run")
    photos = shutil.copytree(place / "images", tmp_path / "photos")
    (photos / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno")
    outcome = command("detect", f"source={photos}", f"run_dir={run}", "device=cpu")
    assert outcome.status == 0, outcome.err
    out = run / "sources/photos"
    rows = list(csv.DictReader((out / "classes.csv").read_text().splitlines()))
    assert [row["file"] for row in rows] == sorted(row["file"] for row in rows)
    assert len(rows) == 8
    assert all(float(row["probability"]) >= float(row["probability_2"]) for row in rows)
    stored = json.loads((out / "classes.json").read_text())
    assert stored[0]["file"] == rows[0]["file"]
    assert next(iter(stored[0]["classes"])) == rows[0]["class"]
    page = (out / "classes.html").read_text()
    assert "broken.png" in page
    assert "broken.png" in outcome.err
    assert page.count("<img ") == 8
    before = (out / "classes.json").stat().st_mtime_ns
    assert command("detect", f"source={photos}", f"run_dir={run}", "device=cpu").status == 0
    assert (out / "classes.json").stat().st_mtime_ns == before
    (photos / "blue/0.png").unlink()
    assert command("detect", f"source={photos}", f"run_dir={run}", "device=cpu").status == 0
    assert len(json.loads((out / "classes.json").read_text())) == 7


def test_grey_databases_make_photos_grey(tmp_path: Path) -> None:
    draw(tmp_path / "images", 4, 0, CLASSES[:2])
    assert make_db(tmp_path / "images", tmp_path / "db", "grey=true", "shuffle=false").status == 0
    outcome = command("train-cls", f"db.train={tmp_path / 'db'}", *QUIET, *TRAIN, f"run_dir={tmp_path / 'run'}")
    assert outcome.status == 0, outcome.err
    classifier = Classifier.from_run(tmp_path / "run", device="cpu")
    assert classifier.spec.grey
    pixels = classifier.input_of(tmp_path / "images/blue/0.png")
    assert (pixels[:, :, 0] == pixels[:, :, 2]).all()
    array = cv2.imread(str(tmp_path / "images/blue/0.png"))[:, :, ::-1]
    assert np.abs(classifier.input_of(array).astype(int) - pixels).max() <= 1


def test_settings_and_folders_of_a_detector_are_refused(place: Path, tmp_path: Path) -> None:
    for setting in ("coco=true", "detect.nms_iou=0.4"):
        outcome = command("detect", f"source={place / 'images'}", f"run_dir={place / 'run'}", setting)
        assert outcome.status != 0
        assert "classifier of whole images" in outcome.err
    with pytest.raises(ClassifierError, match=r"detpipe\.Classifier"):
        detpipe.Detector.from_run(place / "run")
    with pytest.raises(ClassifierError):
        Classifier.from_run(tmp_path)
    with pytest.raises(ValueError, match="device"):
        Classifier.from_run(place / "run", device="tpu")


def test_a_photo_smaller_than_the_crop_is_named(place: Path) -> None:
    classifier = Classifier.from_run(place / "run", device="cpu")
    small = Classifier(classifier.network, classifier.spec, classifier.device, classifier.options)
    object.__setattr__(small.spec, "resize", "none")
    with pytest.raises(ValueError, match=r"view\.share"):
        small(np.zeros((8, 8, 3), dtype=np.uint8))
