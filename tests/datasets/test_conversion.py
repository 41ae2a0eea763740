"""Each writer, its result read back: by the project's readers, and YOLO's text by hand."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from detpipe.datasets.auto import recognised_source
from detpipe.datasets.coco import CocoSource
from detpipe.datasets.coco_writer import extent, whole_ids
from detpipe.datasets.conversion import (
    WRITERS,
    Conversion,
    ConvertedImage,
    ConvertedSplit,
    NotCarried,
    read_conversion,
    writer,
)
from detpipe.datasets.corrected_copy import CopiedImages, place_image
from detpipe.datasets.entry import RawObject
from detpipe.datasets.source import DatasetSource, Split
from detpipe.datasets.voc import VocSource
from detpipe.datasets.voc_xml import box_of_corners, file_corners
from tests.datasets.conftest import VocFolder, voc_object

Box = tuple[float, float, float, float]
Found = Counter[tuple[str, str, tuple[float, ...]]]


def converted(source: DatasetSource, to: str, out: Path) -> NotCarried:
    """What was not carried over."""
    lost = NotCarried()
    for path, target in writer(to)(read_conversion(source, lost), out, lost):
        place_image(path, target, CopiedImages.copy)
    return lost


def truth(source: DatasetSource, split: Split) -> Found:
    """Image, class and float32 box of each object."""
    data = source.load(split)
    assert data.measured_truth is not None
    paths = {one.image_id: one.path.stem for one in data.records}
    return Counter(
        (paths[image_id], data.classes[label - 1], tuple(box))
        for image_id, one in data.measured_truth.items()
        for box, label in zip(one.boxes.tolist(), one.labels.tolist(), strict=True)
    )


def yolo_truth(root: Path, split: Split) -> Found:
    """Of a YOLO folder, by the definition of its text."""
    names = yaml.safe_load((root / "data.yaml").read_text())["names"]
    found: Found = Counter()
    for path in sorted((root / "images" / split.value).iterdir()):
        height, width = cv2.imread(str(path)).shape[:2]
        for line in (root / "labels" / split.value / f"{path.stem}.txt").read_text().splitlines():
            number, *shares = line.split()
            cx, cy, w, h = map(float, shares)
            corners = ((cx - w / 2) * width, (cy - h / 2) * height, (cx + w / 2) * width, (cy + h / 2) * height)
            box = np.array(corners, dtype=np.float32).tolist()
            found[path.stem, names[int(number)], tuple(box)] += 1
    return found


def conversion(*boxes: Box, size: tuple[int, int] = (20, 30)) -> Conversion:
    """One image with these boxes."""
    objects = tuple(RawObject("cat", box) for box in boxes)
    image = ConvertedImage("a", "a", Path("a.png"), size, objects)
    return Conversion("one", ("cat",), (ConvertedSplit(Split.train, (image,), True, (1,)),))


@pytest.mark.parametrize("name", ["raccoon", pytest.param("bccd", marks=pytest.mark.slow), "voc2012_100", "coco_val"])
def test_real_boxes_are_the_same_in_each_format(shared_data: Path, tmp_path: Path, name: str) -> None:
    source = recognised_source(shared_data / name)
    crowds = sum(one.crowd for split in Split if source.has(split) for e in source.entries(split) for one in e.objects)
    for to in WRITERS:
        lost = converted(source, to, tmp_path / to)
        for split in (split for split in Split if source.has(split)):
            before = truth(source, split)
            if to == "yolo":
                after = yolo_truth(tmp_path / to, split)
                assert not after - before, (name, to)
                outside = lost.counts["parts of boxes outside the image"]
                assert (before - after).total() <= crowds + outside
            else:
                assert truth(recognised_source(tmp_path / to), split) == before
    back = tmp_path / "back"
    converted(recognised_source(tmp_path / "voc"), "coco", back)
    assert truth(recognised_source(back), Split.train) == truth(source, Split.train)


def test_coco_to_coco_keeps_the_numbers_and_ids(shared_data: Path, tmp_path: Path) -> None:
    file, images = shared_data / "coco_val/instances.json", shared_data / "coco_val/images"
    source = CocoSource(test_json=str(file), test_images=str(images))
    lost = converted(source, "coco", tmp_path / "out")
    assert lost.counts == {"segmentation of objects": 1560}
    before = json.loads(file.read_text())
    after = json.loads((tmp_path / "out/annotations/instances_test.json").read_text())
    keys = ("id", "image_id", "category_id", "bbox", "area", "iscrowd")
    rows = [sorted([one[key] for key in keys] for one in content["annotations"]) for content in (before, after)]
    assert rows[0] == rows[1]
    assert {one["id"] for one in before["images"]} == {one["id"] for one in after["images"]}
    names = [{one["id"]: one["name"] for one in content["categories"]} for content in (before, after)]
    assert names[0] == names[1]


def test_what_voc_and_yolo_lack(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images/a.png"), np.zeros((20, 30, 3), np.uint8))
    common = {"image_id": 7, "category_id": 3}
    content = {
        "images": [{"id": 7, "file_name": "a.png", "height": 20, "width": 30}],
        "categories": [{"id": 3, "name": "zebra"}, {"id": 5, "name": "ant"}],
        "annotations": [
            {**common, "id": 1, "bbox": [1.5, 2, 10, 8], "area": 33.0, "segmentation": [[1, 2, 3, 4, 5, 6]]},
            {**common, "id": 2, "bbox": [0, 0, 5, 5], "iscrowd": 1},
            {**common, "id": 3, "bbox": [20, 10, 15, 5]},
            {**common, "id": 4, "bbox": [4, 4, 1, 6]},
        ],
    }
    (tmp_path / "one.json").write_text(json.dumps(content))
    source = CocoSource(train_json=str(tmp_path / "one.json"), train_images=str(tmp_path / "images"), test_share=0)
    shared = {
        "segmentation of objects": 1,
        "ids of classes": 2,
        "ids of images": 1,
        "ids of objects": 4,
        "areas that differ from the box": 1,
    }
    assert converted(source, "voc", tmp_path / "voc").counts == {
        **shared,
        "crowds (written as difficult)": 1,
        "boxes that VOC can't express (one pixel or less, or just outside the image)": 1,
        "classes without objects": 1,
        "order of the classes (VOC's are in alphabetical order)": 1,
    }
    assert converted(source, "yolo", tmp_path / "yolo").counts == {
        **shared,
        "crowds (left out)": 1,
        "parts of boxes outside the image": 1,
    }
    assert (tmp_path / "yolo/labels/train/a.txt").read_text() == (
        "0 0.21666666666666667 0.3 0.3333333333333333 0.4\n"
        "0 0.8333333333333334 0.625 0.3333333333333333 0.25\n"
        "0 0.15 0.35 0.03333333333333333 0.3\n"
    )
    assert yaml.safe_load((tmp_path / "yolo/data.yaml").read_text()) == {
        "train": "images/train",
        "names": {0: "zebra", 1: "ant"},
    }


def test_difficult_flags(voc: VocFolder, tmp_path: Path) -> None:
    hard = voc_object(1, 1, 9, 9).replace("</object>", "<difficult>1</difficult></object>")
    voc.image("a.jpg")
    voc.xml("a", voc_object(2, 2, 12, 12) + hard)
    voc.pair("b")
    source = VocSource(root=str(voc.root))
    assert converted(source, "coco", tmp_path / "coco").counts == {"difficult flags": 1}
    assert converted(source, "yolo", tmp_path / "yolo").counts == {"difficult flags": 1}
    assert converted(source, "voc", tmp_path / "voc").counts == {}
    assert "<difficult>1</difficult>" in (tmp_path / "voc/Annotations/a.xml").read_text()


def test_splits_names_and_images_without_objects(voc: VocFolder, tmp_path: Path) -> None:
    for stem in ("a", "b", "c"):
        voc.pair(stem)
    voc.xml("c", "")
    voc.image("no_image.jpg").unlink()
    voc.annotation("no_image")
    for name, text in (("trainval", "a\nc\n"), ("val", "b\n"), ("test", "b\nno_image\n")):
        voc.list(name, text)
    source = VocSource(root=str(voc.root), val="val")
    for to in WRITERS:
        lost = converted(source, to, tmp_path / to)
        assert list(lost.counts.items()) == [("images that can't be used", 1)]
        assert "no_image" in lost.where["images that can't be used"][0]
    assert (tmp_path / "voc/ImageSets/Main/train.txt").read_text() == "a\nc\n"
    assert (tmp_path / "voc/ImageSets/Main/val.txt").read_text() == "b\n"
    assert (tmp_path / "yolo/labels/train/c.txt").read_text() == ""
    assert sorted(path.name for path in (tmp_path / "yolo/images/val").iterdir()) == ["b.jpg"]
    back = recognised_source(tmp_path / "coco")
    assert [len(back.load(split)) for split in Split] == [2, 1, 1]


def test_images_of_the_same_name(voc: VocFolder, tmp_path: Path) -> None:
    for split in ("train", "test"):
        folder = voc.root / "top" / split
        folder.mkdir(parents=True)
        for suffix in ("jpg", "xml"):
            voc.pair(f"{split}_1")
            source = (voc.images if suffix == "jpg" else voc.annotations) / f"{split}_1.{suffix}"
            (folder / f"one.{suffix}").write_bytes(source.read_bytes())
    converted(recognised_source(voc.root / "top"), "voc", tmp_path / "out")
    assert (tmp_path / "out/ImageSets/Main/train.txt").read_text() == "train_one\n"
    assert {path.name for path in (tmp_path / "out/JPEGImages").iterdir()} == {"train_one.jpg", "test_one.jpg"}


coordinates = st.one_of(st.integers(-50, 5000).map(float), st.floats(0, 5000), st.floats(1, 5000, width=32))


@given(coordinates, coordinates)
@example(1.491720641278107, 2050.360624730965)  # halfway between two lengths, and each rounds away from the end
def test_an_extent_gives_the_end(start: float, end: float) -> None:
    start, end = sorted((start, end))
    if start < 0:
        return
    length = extent(start, end)
    if start + length != end:  # then no length does: the sum grows with it, and the next ones lie on both sides
        assert start + math.nextafter(length, 0) < end or start + length < end
        assert start + math.nextafter(length, math.inf) > end or start + length > end
        assert abs(start + length - end) <= math.ulp(end)
        assert all(start + math.nextafter(length, to) != end for to in (0, math.inf))


@given(st.integers(0, 5000), st.integers(0, 5000), st.sampled_from([1, 2, 4, 10, 100]))
def test_an_extent_gives_the_end_that_is_read(start: int, end: int, parts: int) -> None:
    """Boxes are read as float32."""
    start, end = sorted((start, end))
    assert np.float32(start / parts + extent(start / parts, end / parts)) == np.float32(end / parts)


@given(st.tuples(coordinates, coordinates, coordinates, coordinates))
def test_voc_texts_give_the_box(box: Box) -> None:
    x1, x2 = sorted(box[:2])
    y1, y2 = sorted(box[2:])
    texts = file_corners((x1, y1, x2, y2))
    if texts is None:  # a pixel or less, but not empty
        assert min(x2 - x1, y2 - y1) <= 1 or min(x1, y1) < 0
        return
    read = box_of_corners([float(texts[tag]) for tag in ("xmin", "ymin", "xmax", "ymax")])
    assert np.allclose(read, (x1, y1, x2, y2), rtol=0, atol=1e-6)
    if min(x1, y1) >= 1:
        assert np.array_equal(np.array(read, np.float32), np.array((x1, y1, x2, y2), np.float32))


def test_voc_texts_by_hand() -> None:
    assert file_corners((0, 1, 10, 20.5)) == {"xmin": "1", "ymin": "2", "xmax": "10", "ymax": "20.5"}
    assert file_corners((3, 3, 3, 3)) == {"xmin": "3", "ymin": "3", "xmax": "3", "ymax": "3"}
    assert file_corners((3, 3, 4, 9)) is None
    assert file_corners((-0.5, 3, 4, 9)) is None


@given(st.lists(st.tuples(*[st.floats(0, 30, width=32)] * 4), max_size=4))
def test_yolo_lines_give_the_boxes(tmp_path_factory: pytest.TempPathFactory, boxes: list[Box]) -> None:
    out = tmp_path_factory.mktemp("yolo")
    sound = [(min(a, c), min(b, d), max(a, c), max(b, d)) for a, b, c, d in boxes]
    writer("yolo")(conversion(*sound, size=(30, 30)), out, NotCarried())
    lines = (out / "labels/train/a.txt").read_text().splitlines()
    read = [[float(value) for value in line.split()[1:]] for line in lines]
    corners = [((cx - w / 2) * 30, (cy - h / 2) * 30, (cx + w / 2) * 30, (cy + h / 2) * 30) for cx, cy, w, h in read]
    assert np.allclose(np.array(corners).reshape(-1, 4), np.array(sound).reshape(-1, 4), rtol=0, atol=1e-13)


@pytest.mark.parametrize("to", WRITERS)
def test_an_empty_data_set(tmp_path: Path, to: str) -> None:
    lost = NotCarried()
    assert list(writer(to)(Conversion("none", (), ()), tmp_path / to / "out", lost)) == []
    assert not lost.counts


def test_ids() -> None:
    assert whole_ids([3, 0]) == [3, 0]
    assert whole_ids([]) == []
    assert whole_ids([3, 3]) is None
    assert whole_ids([3, "a"]) is None
    assert whole_ids([-1]) is None
