from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from detpipe.datasets.coco import CocoSource
from detpipe.datasets.source import Recognised


def coco(path: Path, *names: str, **more: Any) -> Path:
    """A COCO file of images with these names."""
    images = [{"id": number, "file_name": name, "height": 2, "width": 2} for number, name in enumerate(names)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"images": images, "annotations": [], "categories": [], **more}))
    return path


def image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def found(root: Path) -> dict[str, str]:
    """The settings, with paths below the root."""
    one = CocoSource.recognise(root)
    assert one is not None
    return {name: Path(str(value)).relative_to(root).as_posix() for name, value in one.settings.items()}


def test_coco_itself(tmp_path: Path) -> None:
    for split in ("train", "val"):
        coco(tmp_path / f"annotations/instances_{split}2017.json", "1.jpg")
        coco(tmp_path / f"annotations/captions_{split}2017.json", "1.jpg")
        image(tmp_path / f"{split}2017/1.jpg")
    assert found(tmp_path) == {
        "train_json": "annotations/instances_train2017.json",
        "train_images": "train2017",
        "test_json": "annotations/instances_val2017.json",  # nothing else is there to test on
        "test_images": "val2017",
    }


def test_roboflow(tmp_path: Path) -> None:
    for split in ("train", "valid", "test"):
        coco(tmp_path / split / "_annotations.coco.json", "1.jpg")
        image(tmp_path / split / "1.jpg")
    assert found(tmp_path) == {
        "train_json": "train/_annotations.coco.json",
        "train_images": "train",
        "val_json": "valid/_annotations.coco.json",
        "val_images": "valid",
        "test_json": "test/_annotations.coco.json",
        "test_images": "test",
    }


@pytest.mark.parametrize("name", ["instances.json", "annotations/instances_default.json", "result.json"])
@pytest.mark.parametrize("folder", ["images", "data", "."])
def test_one_file_is_for_training(tmp_path: Path, name: str, folder: str) -> None:
    coco(tmp_path / name, "a/1.jpg", "a/2.jpg")
    image(tmp_path / folder / "a/2.jpg")
    assert found(tmp_path) == {"train_json": name, "train_images": folder}


def test_a_file_with_the_path_of_its_images(tmp_path: Path) -> None:
    coco(tmp_path / "labels.json", "images/1.jpg")
    image(tmp_path / "images/1.jpg")
    assert found(tmp_path)["train_images"] == "."


def test_a_file_itself(tmp_path: Path) -> None:
    path = coco(tmp_path / "instances_val2014.json", "1.jpg")
    image(tmp_path / "val2014/1.jpg")
    one = CocoSource.recognise(path)
    assert one == Recognised(
        {"test_json": str(path), "test_images": str(tmp_path / "val2014")},
        "COCO: instances_val2014.json (test, images in val2014)",
    )


def test_keys_at_the_end_of_a_large_file(tmp_path: Path) -> None:
    path = tmp_path / "all.json"
    path.write_text('{"info": "' + "x" * (3 << 20) + '", "images": [], "categories": []}')
    assert found(tmp_path) == {"train_json": "all.json", "train_images": "."}


def test_two_files_of_one_split_are_refused(tmp_path: Path) -> None:
    coco(tmp_path / "instances_train2014.json")
    coco(tmp_path / "instances_train2017.json")
    with pytest.raises(ValueError, match=r"2 that may be the train file .*dataset=coco dataset\.train_json="):
        CocoSource.recognise(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '[{"image_id": 1, "bbox": [0, 0, 1, 1], "score": 1, "category_id": 1}]',
        '{"shapes": [], "imagePath": "1.jpg"}',
        '{"images": [{"file": "1.jpg", "detections": []}], "detection_categories": {"1": "animal"}}',
    ],
)
def test_other_json_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "one.json").write_text(text)
    assert CocoSource.recognise(tmp_path) is None
    assert CocoSource.recognise(tmp_path / "one.json") is None


def test_a_damaged_file_with_coco_s_name_is_one(tmp_path: Path) -> None:
    (tmp_path / "instances_train.json").touch()
    assert found(tmp_path) == {"train_json": "instances_train.json", "train_images": "."}


@pytest.mark.parametrize("name", ["../" * 30 + "etc/passwd", "a" * 5000, "\0", "\\u00zz", "a\\b.jpg"])
def test_hostile_names_of_images(tmp_path: Path, name: str) -> None:
    coco(tmp_path / "instances.json", name)
    assert found(tmp_path)["train_json"] == "instances.json"


def test_an_empty_folder(tmp_path: Path) -> None:
    assert CocoSource.recognise(tmp_path) is None
