"""What was found as a whole COCO data set: by hand, read back by our own reader and by pycocotools."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from pycocotools.coco import COCO

from detpipe.datasets.coco import read_coco_file
from detpipe.datasets.coco_dataset import write_coco_dataset
from detpipe.structures import Dataset, Detections, ImageId, ImageRecord
from tests import drawn


def dataset(root: Path, ids: tuple[ImageId, ...], category_ids: tuple[int, ...] = (7, 3)) -> Dataset:
    """Two images, one of them in a subfolder."""
    records = []
    for image_id, name in zip(ids, ("one.jpg", "more/two.jpg"), strict=True):
        drawn.write_jpeg(root / name, drawn.draw(len(records))[0])
        records.append(ImageRecord(image_id, root / name, (120, 160)))
    return Dataset("pictures", ("disc", "square"), category_ids, tuple(records), None)


FOUND = Detections(
    np.array([[1, 2, 11, 22], [5, 5, 9, 6]], dtype=np.float32),
    np.array([0.75, 0.25], dtype=np.float32),
    np.array([2, 1], dtype=np.int64),
)


def test_images_categories_and_annotations(tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    root = write_coco_dataset(path, dataset(tmp_path / "images", ("a", "b")), {"b": FOUND})
    assert root == tmp_path / "images"
    content = json.loads(path.read_text())
    assert content["images"] == [
        {"id": 1, "file_name": "one.jpg", "height": 120, "width": 160},
        {"id": 2, "file_name": "more/two.jpg", "height": 120, "width": 160},
    ]
    assert content["categories"] == [{"id": 7, "name": "disc"}, {"id": 3, "name": "square"}]
    assert content["annotations"][0] == {
        "id": 1,
        "image_id": 2,
        "category_id": 3,
        "bbox": [1.0, 2.0, 10.0, 20.0],
        "area": 200.0,
        "iscrowd": 0,
        "segmentation": [],
        "score": 0.75,
    }
    assert str(tmp_path) not in path.read_text()


def test_readers_of_coco_read_it(tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    root = write_coco_dataset(path, dataset(tmp_path / "images", (12, 5)), {5: FOUND})
    (one, two) = read_coco_file(path, root).entries
    assert (one.image_id, len(one.objects), one.fault) == (12, 0, None)
    assert [item.box for item in two.objects] == [(1, 2, 11, 22), (5, 5, 9, 6)]
    assert two.image == root / "more/two.jpg"
    coco = COCO(path)
    assert coco.getImgIds() == [12, 5]
    assert coco.loadCats(coco.loadAnns(coco.getAnnIds(5))[0]["category_id"])[0]["name"] == "square"


def test_the_floor_and_ids_that_tools_refuse(tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    write_coco_dataset(path, dataset(tmp_path / "images", (0, 4), (0, 1)), {0: FOUND}, min_score=0.5)
    content = json.loads(path.read_text())
    assert [image["id"] for image in content["images"]] == [1, 2]
    assert [category["id"] for category in content["categories"]] == [1, 2]
    assert [one["score"] for one in content["annotations"]] == [0.75]


def test_nothing_found_and_no_images(tmp_path: Path) -> None:
    empty = Dataset("none", ("disc",), (1,), (), None)
    write_coco_dataset(tmp_path / "found.json", empty, {})
    content = json.loads((tmp_path / "found.json").read_text())
    assert (content["images"], content["annotations"]) == ([], [])
