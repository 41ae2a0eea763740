"""MegaDetector's JSON as we write it, which our reader reads back, and the CSV of animals."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detpipe.datasets.megadetector import read_megadetector
from detpipe.runs.individual_results import RollUp, write_individuals, write_megadetector
from detpipe.structures import Dataset, Detections, ImageId, ImageRecord, LeftOut
from tests.taxonomy.test_class_tree import CLASSES, TREE
from tests.taxonomy.test_individuals import detections

ROOT = Path("photos")
HEIGHT, WIDTH = 50, 100
RECORDS = tuple(ImageRecord(name, ROOT / f"{name}.jpg", (HEIGHT, WIDTH)) for name in ("a/1", "a/2"))
DATASET = Dataset("photos", CLASSES, (1, 2, 3, 4), RECORDS, None)
DEER, BOX = (20, 10, 70, 35), [0.2, 0.2, 0.5, 0.5]
RED, ROE, FOX = 1, 2, 3


def written(folder: Path, found: dict[ImageId, Detections], **more: Any) -> dict[str, Any]:
    path = folder / "md.json"
    write_megadetector(path, DATASET, ROOT, found, **{"typical": 0.5, "lowest": 0.01, **more})
    content: dict[str, Any] = json.loads(path.read_text())
    assert_valid(content)
    return content


def assert_valid(content: dict[str, Any]) -> None:
    """What the format's specification and its validator demand."""
    assert float(content["info"]["format_version"]) >= 1.3
    names = content["classification_categories"]
    assert all(int(key) >= 0 and name for key, name in names.items())
    assert set(content.get("classification_category_descriptions", names)) == set(names)
    for image in content["images"]:
        if image.get("failure") is not None:
            assert image["detections"] is None
            continue
        for one in image["detections"]:
            assert one["category"] in content["detection_categories"]
            assert isinstance(one["conf"], float)
            shares = [share for key, share in one["classifications"] if key in names]
            assert len(shares) == len(one["classifications"])
            assert shares == sorted(shares, reverse=True)


def test_an_animal_with_its_classes(tmp_path: Path) -> None:
    content = written(tmp_path, {"a/1": detections((DEER, 0.5, RED), (DEER, 0.25, ROE))})
    assert content["classification_categories"] == dict(zip("1234", CLASSES, strict=True))
    assert content["info"]["detector_metadata"]["typical_detection_threshold"] == 0.5
    assert content["images"] == [
        {
            "file": "a/1.jpg",
            "detections": [
                {"category": "1", "conf": 0.75, "bbox": BOX, "classifications": [["1", 0.666667], ["2", 0.333333]]}
            ],
        },
        {"file": "a/2.jpg", "detections": []},
    ]


def test_the_answer_comes_first_and_without_one_there_are_no_classes(tmp_path: Path) -> None:
    found = {
        "a/1": detections((DEER, 0.5, RED), (DEER, 0.25, ROE)),
        "a/2": detections((DEER, 0.5, FOX), (DEER, 0.5, 4)),
    }
    content = written(tmp_path, found, roll_up=RollUp(TREE, 0.7))
    names = content["classification_categories"]
    assert list(names.values()) == [*CLASSES, "deer", "canine", "mammal", "bird"]
    assert content["classification_category_descriptions"]["5"] == "mammal;deer"
    rows = [
        [(names[key], share) for key, share in image["detections"][0]["classifications"]] for image in content["images"]
    ]
    assert rows == [[("deer", 1.0), ("red deer", 0.666667), ("roe deer", 0.333333)], []]


def test_our_reader_reads_it(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    corners = generator.uniform(0, 25, (20, 4)) * [2, 1, 2, 1]
    rows = [((x, y, x + w, y + h), 1 - i / 40, 1 + i % 4) for i, (x, y, w, h) in enumerate(corners)]
    bad = [LeftOut(str(ROOT / "b.jpg"), "expected an image file, got an empty file")]
    written(tmp_path, {"a/1": detections(*rows)}, bad=bad)
    read = read_megadetector(tmp_path / "md.json")
    assert list(read) == ["a/1.jpg", "a/2.jpg", "b.jpg"]
    assert read["b.jpg"].failure == bad[0].reason
    pixels = [np.array(one.box) * [WIDTH, HEIGHT, WIDTH, HEIGHT] for one in read["a/1.jpg"].boxes]
    assert pixels
    originals = [np.array(box, np.float32) for box, _, _ in rows]
    assert all(min(np.abs(box - one).max() for one in originals) < 1e-3 for box in pixels)


def test_no_images(tmp_path: Path) -> None:
    path = tmp_path / "md.json"
    write_megadetector(path, Dataset("none", CLASSES, (1, 2, 3, 4), (), None), ROOT, {}, typical=0.5, lowest=0.01)
    assert read_megadetector(path) == {}


def test_the_table_of_animals(tmp_path: Path) -> None:
    found = {
        "a/1": detections((DEER, 0.375, RED), (DEER, 0.25, ROE)),
        "a/2": detections((DEER, 0.25, FOX), (DEER, 0.25, 4)),
    }
    write_individuals(tmp_path / "animals.csv", DATASET, ROOT, found, RollUp(TREE, 0.7), 0.6)
    rows = list(csv.DictReader((tmp_path / "animals.csv").read_text().splitlines()))
    assert [(row["answer"], row["level"], row["probability"], row["class"], row["shown"]) for row in rows] == [
        ("deer", "family", "1", "red deer", "1"),
        ("", "", "", "fox", "0"),
    ]
    assert [float(rows[0][side]) for side in ("confidence", "x1", "y1", "x2", "y2")] == [0.625, *DEER]
    write_individuals(tmp_path / "none.csv", DATASET, ROOT, {}, RollUp(TREE, 0.7), 0.6)
    assert len((tmp_path / "none.csv").read_text().splitlines()) == 1


@pytest.mark.parametrize("threshold", [0.34, 0.5, 0.7])
def test_the_answer_is_never_less_probable_than_a_class(tmp_path: Path, threshold: float) -> None:
    found = {"a/1": detections((DEER, 0.35, FOX), (DEER, 0.33, RED), (DEER, 0.32, ROE))}
    written(tmp_path, found, roll_up=RollUp(TREE, threshold))
