"""yolo: the layouts of Ultralytics, Roboflow, Darknet and labelImg, gaps, and faults that are one sentence each."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
import pytest

from detpipe.datasets.check import check_source
from detpipe.datasets.entry import RawObject
from detpipe.datasets.exif_boxes import ExifBoxes
from detpipe.datasets.source import Split, TooManyBadError
from detpipe.datasets.yolo import YoloSource
from detpipe.datasets.yolo_layout import find_layout

LINE = "0 0.5 0.5 0.25 0.5\n"
"""In an image 20 high and 40 wide: x 15 to 25, y 5 to 15."""
CAT = RawObject("cat", (15.0, 5.0, 25.0, 15.0), written=(15.0, 5.0, 10.0, 10.0))


def image(path: Path) -> Path:
    """An image, 20 high and 40 wide, like no other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = int.from_bytes(str(path).encode()[-6:], "big")
    cv2.imwrite(str(path), np.random.default_rng(seed).integers(0, 255, (20, 40, 3), dtype=np.uint8))
    return path


def text(path: Path, content: str = LINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def read(root: Path, **settings: Any) -> dict[str, dict[Any, tuple[RawObject, ...]]]:
    """The objects of each image of each split. Every image must be usable."""
    source = YoloSource(root=str(root), max_bad=0, **settings)
    splits = {split: source.load(split) for split in Split if source.has(split)}
    return {
        split.value: {one.image_id: one.objects for one in source.entries(split)}
        for split, dataset in splits.items()
        if len(dataset)
    }


def pair(root: Path, images: str, labels: str, name: str, content: str = LINE) -> None:
    image(root / images / f"{name}.jpg")
    text(root / labels / f"{name}.txt", content)


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{chr(ord(name) - 1)}'] * 9)}]\n" for name in "bcdefghijk"
)
YAML = "train: images/train\nval: images/val\ntest: images/test\nnames: [cat, dog]\n"
THREE = {"train": {"a": (CAT,)}, "val": {"b": (CAT,)}, "test": {"c": (CAT,)}}


@pytest.mark.parametrize(
    "yaml",
    [
        YAML,
        YAML.replace("[cat, dog]", "{0: cat, 1: dog}").replace("train: images/train", "train: [images/train]"),
        YAML.replace("names: [cat, dog]", "names:\n  1: dog\n  '0': cat\npath: .\nnc: 2\ndate: 2024-01-01"),
        "path: /nobody/has/this\n" + YAML,
        YAML.replace(": images", ": ../images"),
        YAML.replace(": images", ": /content/my_set/images"),
        YAML.replace(": images/", ": images\\"),
        YAML.replace("val:", "validation:"),
    ],
)
def test_the_forms_of_a_yaml_file(tmp_path: Path, yaml: str) -> None:
    for split, name in (("train", "a"), ("val", "b"), ("test", "c")):
        pair(tmp_path, f"images/{split}", f"labels/{split}", name)
    file = text(tmp_path / "data.yaml", yaml)
    assert read(file) == read(tmp_path) == THREE
    assert YoloSource(root=str(file)).known_classes() == ["cat", "dog"]


@pytest.mark.parametrize("path", ["coco8", "../datasets/coco8", "/content/datasets/coco8", "D:\\datasets\\coco8"])
def test_the_path_of_a_yaml_file_beside_the_folder(tmp_path: Path, path: str) -> None:
    for split, name in (("train", "a"), ("val", "b"), ("test", "c")):
        pair(tmp_path / "coco8", f"images/{split}", f"labels/{split}", name)
    text(tmp_path / "coco8.yaml", f"path: {path} # dataset root dir\n{YAML}download: https://example.org/coco8.zip\n")
    assert read(tmp_path / "coco8.yaml") == read(tmp_path) == THREE


def test_what_a_yaml_file_would_download_is_said_to_be_missing(tmp_path: Path) -> None:
    text(tmp_path / "coco8.yaml", f"path: coco8\n{YAML}download: |\n  print('a: b')\n")
    with pytest.raises(FileNotFoundError, match=r"images/train.*download is not run.*get the data set"):
        YoloSource(root=str(tmp_path / "coco8.yaml")).has(Split.train)


def test_a_folder_around_the_data_set(tmp_path: Path) -> None:
    root = tmp_path / "My Project.v1" / "My Project"
    for split, name in (("train", "a"), ("val", "b"), ("test", "c")):
        pair(root, f"images/{split}", f"labels/{split}", name)
    text(root / "data.yaml", YAML)
    image(tmp_path / "__MACOSX" / "._a.jpg")
    text(tmp_path / "README.txt", "words")
    text(tmp_path / "My Project.v1" / "export.zip", "PK")
    assert read(tmp_path) == THREE
    assert YoloSource.recognise(tmp_path) is not None
    text(tmp_path / "other.yaml", "names: [cow]\n")
    assert find_layout(tmp_path).names == ["cow"]


def test_roboflow_has_images_and_labels_per_split_and_no_test_folder(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for split, name in (("train", "a"), ("valid", "b")):
        pair(tmp_path, f"{split}/images", f"{split}/labels", name)
    text(tmp_path / "README.roboflow.txt", "words")
    text(
        tmp_path / "data.yaml",
        "train: ../train/images\nval: ../valid/images\ntest: ../test/images\nnc: 1\nnames: ['cat']\n"
        "roboflow:\n  workspace: me\n",
    )
    with caplog.at_level(logging.INFO):
        assert read(tmp_path) == {"train": {"a": (CAT,)}, "test": {"b": (CAT,)}}
    assert "no such path ../test/images" in caplog.text
    assert "test is the split of validation images" in caplog.text


def test_lists_of_images(tmp_path: Path) -> None:
    for name in "abc":
        pair(tmp_path, "images", "labels", name)
    text(tmp_path / "train.txt", "./images/a.jpg\n")
    text(tmp_path / "val.txt", "images/b.jpg\nimages/b.jpg\n")
    text(tmp_path / "test.txt", "/home/somebody/set/images/c.jpg\n")
    text(tmp_path / "coco.yaml", "train: [train.txt]\nval: val.txt\ntest: test.txt\nnames: [cat]\n")
    assert read(tmp_path) == THREE
    (tmp_path / "coco.yaml").unlink()
    text(tmp_path / "classes.txt", "cat\ndog\n\n")
    assert read(tmp_path) == THREE


def test_an_empty_list_is_an_empty_split(tmp_path: Path) -> None:
    pair(tmp_path, "images", "labels", "a")
    text(tmp_path / "train.txt", "images/a.jpg\n")
    text(tmp_path / "val.txt", "")
    text(tmp_path / "data.yaml", "train: train.txt\nval: val.txt\nnames: [cat]\n")
    source = YoloSource(root=str(tmp_path))
    with pytest.raises(ValueError, match="empty split"):
        source.load(Split.test)


def test_darknet_and_cvat_have_a_data_file(tmp_path: Path) -> None:
    pair(tmp_path, "obj_train_data", "obj_train_data", "a")
    text(tmp_path / "obj.names", "cat\ndog\n")
    text(tmp_path / "train.txt", "data/obj_train_data/a.jpg\n")
    text(tmp_path / "obj.data", "classes = 2\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n")
    for root in (tmp_path, tmp_path / "obj.data"):
        assert read(root, test_share=0.0) == {"train": {"a": (CAT,)}}


@pytest.mark.parametrize(
    ("images", "labels", "names"),
    [
        ("images", "labels", "classes.txt"),
        ("Images", "Labels", "Labels/classes.txt"),
        ("", "", "classes.txt"),
        ("", "labels", "obj.names"),
        ("photos", "photos", "photos/_darknet.labels"),
        ("a/images/b", "a/labels/b", "classes.txt"),
        ("VOC2007/JPEGImages", "VOC2007/labels", "classes.txt"),
    ],
)
def test_a_folder_without_a_yaml_file_is_divided_by_hash(tmp_path: Path, images: str, labels: str, names: str) -> None:
    for name in "abcdef":
        pair(tmp_path, images, labels, name)
    text(tmp_path / names, "cat\ndog\n")
    found = read(tmp_path)
    assert set(found) == {"train", "test"}
    assert found["train"] | found["test"] == dict.fromkeys("abcdef", (CAT,))
    source = YoloSource(root=str(tmp_path))
    split = source.automatic_split()
    assert split is not None
    assert len(split.test) == len(found["test"])
    assert read(tmp_path, test_share=0.0).keys() == {"train"}


@pytest.mark.parametrize(("top", "below"), [("{}", "images"), ("images/{}", "")])
def test_folders_named_after_splits_need_no_yaml_file(tmp_path: Path, top: str, below: str) -> None:
    for split, name in (("train", "a"), ("valid", "b"), ("test", "c")):
        place = f"{top.format(split)}/{below}".rstrip("/")
        pair(tmp_path, place, place.replace("images", "labels"), name)
    text(tmp_path / "classes.txt", "cat\n")
    assert read(tmp_path) == THREE


def test_without_names_classes_are_numbers(tmp_path: Path) -> None:
    pair(tmp_path, "", "", "a", "10 .5 .5 .1 .1\n9 .5 .5 .1 .1\n")
    assert YoloSource(root=str(tmp_path)).known_classes() == ["9", "10"]
    text(tmp_path / "data.yaml", "nc: 11\n")
    assert YoloSource(root=str(tmp_path)).known_classes() == [str(number) for number in range(11)]


def test_images_without_objects(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pair(tmp_path, "images", "labels", "a")
    pair(tmp_path, "images", "labels", "empty", "")
    image(tmp_path / "images" / "missing.jpg")
    text(tmp_path / "classes.txt", "cat\n")
    with caplog.at_level(logging.INFO):
        assert read(tmp_path, test_share=0.0) == {"train": {"a": (CAT,), "empty": (), "missing": ()}}
    assert "1 of 3 images have no label file" in caplog.text
    assert not [one for one in caplog.records if one.levelno >= logging.WARNING]


def test_if_all_label_files_are_missing_it_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    image(tmp_path / "images" / "a.jpg")
    source = YoloSource(root=str(tmp_path), test_share=0.0)
    with caplog.at_level(logging.WARNING):
        assert source.load(Split.train).ground_truth is None
    assert "none of the 1 images has a label file" in caplog.text
    assert str(tmp_path / "labels" / "a.txt") in caplog.text


def test_images_of_one_name_have_longer_ids(tmp_path: Path) -> None:
    for split in ("train", "test"):
        pair(tmp_path, f"{split}/images", f"{split}/labels", "1")
    text(tmp_path / "classes.txt", "cat\n")
    assert read(tmp_path) == {"train": {"train/images/1": (CAT,)}, "test": {"test/images/1": (CAT,)}}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("1 .5 .5 .1 .1\n", "line 1: class"),
        ("0 nan .5 .1 .1\n", "finite"),
        ("0 9 9 9 9\n", "pixels"),
        (b"\xff\xfe\x00\xd8", ""),
    ],
)
def test_a_wrong_label_file_is_a_bad_image(tmp_path: Path, content: str | bytes, said: str) -> None:
    for name in "ab":
        pair(tmp_path, "images", "labels", name)
    label = tmp_path / "labels" / "b.txt"
    label.write_bytes(content.encode() if isinstance(content, str) else content)
    text(tmp_path / "classes.txt", "cat\n")
    source = YoloSource(root=str(tmp_path), test_share=0.0, max_bad=0.5)
    (bad,) = source.load(Split.train).bad
    assert bad.path == str(label)
    assert said in bad.reason
    assert check_source(source).counts["broken_annotation"] == 1
    with pytest.raises(TooManyBadError):
        YoloSource(root=str(tmp_path), test_share=0.0).load(Split.train)


@pytest.mark.parametrize(
    ("yaml", "said"),
    [
        ("", "empty file"),
        ("just text", "train, val and names"),
        ("names: [cat\0]", "cannot be read"),
        ("train: [1\n", "mistake in line"),
        ("train: 3\nnames: [cat]\n", "train: expected a folder"),
        ("train: nowhere\nnames: [cat]\n", "no such path nowhere"),
        ("train: images\nnames: [yes, cat]\n", "in quotes"),
        ("train: images\nnames: {a: cat}\n", "names: expected numbers"),
        ("train: images\nnames: {999999999: cat}\n", "names: expected different numbers"),
        ("train: images\nnc: 999999999\n", "nc: expected"),
        ("train: images\npath: [a]\nnames: [cat]\n", "path: expected a folder"),
        ("train: ../other\nnames: [cat]\n", "dataset.outside=true"),
        ("train: images\nnames: missing.txt\n", "names: expected a file"),
        (BOMB, "aliases"),
        ("!!python/object/apply:os.system ['true']", "mistake"),
    ],
)  # fmt: skip
def test_a_wrong_yaml_file_is_one_sentence(tmp_path: Path, yaml: str, said: str) -> None:
    root = tmp_path / "set"
    pair(root, "images", "labels", "a")
    image(tmp_path / "other" / "x.jpg")
    file = text(root / "data.yaml", yaml)
    with pytest.raises((ValueError, OSError)) as caught:
        YoloSource(root=str(root)).load(Split.train)
    assert said in str(caught.value)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_folders_outside_are_read_if_the_user_says_so(tmp_path: Path) -> None:
    pair(tmp_path / "other", "images", "labels", "a")
    text(tmp_path / "set" / "data.yaml", "path: ../other\ntrain: images\nnames: [cat]\n")
    assert read(tmp_path / "set", outside=True, test_share=0.0) == {"train": {"a": (CAT,)}}


def test_links_that_leave_the_folder(tmp_path: Path) -> None:
    root = tmp_path / "set"
    pair(root, "images", "labels", "a")
    image(root / "images" / "b.jpg")
    secret = text(tmp_path / "secret.txt")
    (root / "labels" / "b.txt").symlink_to(secret)
    text(root / "classes.txt", "cat\n")
    source = YoloSource(root=str(root), test_share=0.0, max_bad=1.0)
    (bad,) = source.load(Split.train).bad
    assert "dataset.outside=true" in bad.reason
    assert read(root, outside=True, test_share=0.0) == {"train": {"a": (CAT,), "b": (CAT,)}}
    # The folder of labels itself may be a link, as the folders of images may.
    (root / "labels" / "b.txt").unlink()
    (root / "labels").rename(tmp_path / "labels elsewhere")
    (root / "labels").symlink_to(tmp_path / "labels elsewhere")
    assert read(root, test_share=0.0) == {"train": {"a": (CAT,), "b": ()}}


def test_a_missing_folder_and_other_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"dataset\.root"):
        YoloSource(root=str(tmp_path / "none")).has(Split.train)
    with pytest.raises(ValueError, match=r"dataset\.root"):
        YoloSource(root=str(text(tmp_path / "a.xml"))).has(Split.train)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no images"):
        YoloSource(root=str(tmp_path / "empty")).has(Split.train)
    for name in ("one", "two"):
        text(tmp_path / "several" / f"{name}.yaml", YAML)
    with pytest.raises(ValueError, match=r"one\.yaml, two\.yaml"):
        YoloSource(root=str(tmp_path / "several")).has(Split.train)


def test_check_names_label_files_without_an_image(tmp_path: Path) -> None:
    pair(tmp_path, "images", "labels", "a")
    text(tmp_path / "labels" / "gone.txt")
    text(tmp_path / "labels" / "classes.txt", "cat\n")
    report = check_source(YoloSource(root=str(tmp_path), test_share=0.0))
    (orphan,) = [one for one in report.findings if one.kind == "orphan_annotation"]
    assert orphan.file.endswith("gone.txt")
    assert report.objects == {"train": {"cat": 1}}


def test_shares_are_of_the_rotated_image_unless_the_user_says_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    PIL.Image.fromarray(np.zeros((20, 40, 3), np.uint8)).save(path, exif=exif)  # shown 40 high and 20 wide
    text(tmp_path / "a.txt", "0 0.25 0.25 0.5 0.5\n")
    for boxes, wanted in ((ExifBoxes.auto, [0, 0, 10, 20]), (ExifBoxes.raw, [10, 0, 20, 20])):
        truth = YoloSource(root=str(tmp_path), test_share=0.0, exif_boxes=boxes).load(Split.train).ground_truth
        assert truth is not None
        assert truth["a"].boxes.tolist() == [wanted]
