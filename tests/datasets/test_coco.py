"""coco: instances as they come, with gaps, crowds, empty images and faults."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
import pytest

from detpipe.datasets.check import check_source
from detpipe.datasets.coco import CocoFileError, CocoSource
from detpipe.datasets.exif_boxes import ExifBoxes
from detpipe.datasets.source import Split, TooManyBadError
from detpipe.datasets.splits import hash_split
from detpipe.storage.input_file import InputFileError
from detpipe.structures import Dataset

CATEGORIES = [{"id": 7, "name": "dog"}, {"id": 3, "name": " cat "}]


def image(number: int, name: str = "") -> dict[str, Any]:
    return {"id": number, "file_name": name or f"{number}.jpg"}


def annotation(image_id: object, box: object = (1, 2, 10, 11), category: object = 3, **more: object) -> dict[str, Any]:
    return {"image_id": image_id, "category_id": category, "bbox": list(box) if isinstance(box, tuple) else box, **more}


def source_of(
    folder: Path,
    content: object,
    files: tuple[str, ...] = ("1.jpg", "2.jpg"),
    split: str = "test",
    **settings: Any,
) -> CocoSource:
    images = folder / f"{split} images"
    for file in files:
        (images / file).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(images / file), np.full((20, 30, 3), 128, np.uint8))
    path = folder / f"{split}.json"
    path.write_text(json.dumps(content))
    return CocoSource(**{f"{split}_json": str(path), f"{split}_images": str(images), "max_bad": 1.0, **settings})


def load(folder: Path, content: object, **settings: Any) -> Dataset:
    return source_of(folder, content, **settings).load(Split.test)


def test_ids_may_have_gaps(tmp_path: Path) -> None:
    content = {
        "images": [image(2), image(1)],
        "annotations": [annotation(1), annotation(1, category=7)],
        "categories": CATEGORIES,
    }
    dataset = load(tmp_path, content)
    assert (dataset.classes, dataset.category_ids) == (("cat", "dog"), (3, 7))
    assert [record.image_id for record in dataset.records] == [2, 1]
    assert dataset.records[0].image_size == (20, 30)
    assert dataset.ground_truth[1].labels.tolist() == [1, 2]
    np.testing.assert_array_equal(dataset.ground_truth[1].boxes, [[1, 2, 11, 13]] * 2)
    assert len(dataset.ground_truth[2]) == 0


def test_chosen_classes_keep_their_ids(tmp_path: Path) -> None:
    content = {
        "images": [image(1)],
        "annotations": [annotation(1), annotation(1, category=7)],
        "categories": CATEGORIES,
    }
    dataset = load(tmp_path, content, classes=["ant", "dog"])
    assert (dataset.classes, dataset.category_ids) == (("ant", "dog"), (1, 7))
    assert dataset.ground_truth[1].labels.tolist() == [2]


def test_crowds_and_areas(tmp_path: Path) -> None:
    content = {
        "images": [image(1)],
        "annotations": [annotation(1, area=12.5), annotation(1, iscrowd=1), annotation(1, area=0)],
        "categories": CATEGORIES,
    }
    truth = load(tmp_path, content).ground_truth[1]
    assert truth.crowd.tolist() == [False, True, False]
    assert truth.areas.tolist() == [12.5, 110, 110]


def test_boxes_are_made_sound(tmp_path: Path) -> None:
    boxes = [(-5, -5, 10, 10), (20, 10, 100, 100), (5, 5, 0, 4), (5, 5, -3, 4), (50, 50, 4, 4)]
    content = {"images": [image(1)], "annotations": [annotation(1, box) for box in boxes], "categories": CATEGORIES}
    np.testing.assert_array_equal(load(tmp_path, content).ground_truth[1].boxes, [[0, 0, 5, 5], [20, 10, 30, 20]])


def test_classes_come_from_all_files_and_ids_from_the_own(tmp_path: Path) -> None:
    first = {"images": [image(1)], "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]}
    second = {"images": [image(1)], "categories": [{"id": 5, "name": "dog"}, {"id": 1, "name": "eel"}]}
    train = source_of(tmp_path, first, split="train")
    source = source_of(tmp_path, second, train_json=train.train_json, train_images=train.train_images)
    train_set, test_set = source.load(Split.train), source.load(Split.test)
    assert train_set.classes == test_set.classes == ("cat", "eel", "dog")
    assert train_set.category_ids == (1, 3, 2)
    assert test_set.category_ids == (2, 1, 5)


def test_two_ids_of_one_name_are_one_class(tmp_path: Path) -> None:
    categories = [{"id": 0, "name": "cat"}, {"id": 1, "name": "cat"}]
    content = {
        "images": [image(1)],
        "annotations": [annotation(1, category=0), annotation(1, category=1)],
        "categories": categories,
    }
    dataset = load(tmp_path, content)
    assert (dataset.classes, dataset.category_ids) == (("cat",), (0,))
    assert dataset.ground_truth[1].labels.tolist() == [1, 1]


def test_without_annotations_there_is_no_ground_truth(tmp_path: Path) -> None:
    dataset = load(tmp_path, {"images": [image(1)], "categories": CATEGORIES})
    assert dataset.ground_truth is None
    assert dataset.classes == ("cat", "dog")
    empty = load(tmp_path, {"images": [image(1)], "annotations": [], "categories": CATEGORIES})
    assert len(empty.ground_truth[1]) == 0


def test_images_in_subfolders_and_of_other_machines(tmp_path: Path) -> None:
    content = {"images": [image(1, "a/1.jpg"), image(2, "/home/x/2.jpg")], "categories": CATEGORIES}
    records = load(tmp_path, content, files=("a/1.jpg", "2.jpg")).records
    assert [record.path.parent.name for record in records] == ["a", "test images"]


@pytest.mark.parametrize(
    ("one", "reason"),
    [
        (annotation(2, category=99), "expected a category_id .*got 99"),
        (annotation(2, box=[1, 2, 3]), r"expected bbox \[x, y, width, height\], got \[1, 2, 3\]"),
        (annotation(2, box="1 2 3 4"), "expected bbox .* got '1 2 3 4'"),
        (annotation(2, box=[1, 2, 3, 1e200]), "bbox: expected pixels, got 1e.200"),
        (annotation(2, box=[1, 2, 3, float("nan")]), "bbox: expected a finite number"),
        (annotation(2, box=[1, 2, 3, 10**400]), "bbox: expected a number"),
    ],
)
def test_a_wrong_annotation_spoils_its_image_only(tmp_path: Path, one: dict[str, Any], reason: str) -> None:
    content = {"images": [image(1), image(2)], "annotations": [annotation(1), one], "categories": CATEGORIES}
    dataset = load(tmp_path, content)
    assert [record.image_id for record in dataset.records] == [1]
    assert len(dataset.bad) == 1
    with pytest.raises(TooManyBadError, match=rf"2\.jpg: .*{reason}"):
        load(tmp_path, content, max_bad=0.1)


def test_missing_images_and_names_are_bad(tmp_path: Path) -> None:
    content = {"images": [image(1), image(3), {"id": 4}, image(5, ".")], "categories": CATEGORIES}
    bad = load(tmp_path, content).bad
    assert "3.jpg: no such file, named in test.json" in str(bad[0])
    assert "image 4 has no file_name" in str(bad[1])
    assert len(bad) == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "expected a COCO file"),
        ({"annotations": []}, r"expected a COCO file.*\['annotations'\]"),
        ({"images": {}, "categories": []}, "expected images"),
        ({"images": [1]}, 'expected "images" to be a list of objects'),
        ({"images": [{"file_name": "1.jpg"}]}, r"images\[0\].id: .*got None"),
        ({"images": [image(1), image(1)]}, "got 1 twice"),
        ({"images": [image(1)], "categories": [{"id": "a", "name": "cat"}]}, "expected each category"),
        ({"images": [image(1)], "categories": [CATEGORIES[0], CATEGORIES[0]]}, "got 7 twice"),
        ({"images": [image(1)], "annotations": [{}]}, r"annotations\[0\].image_id"),
    ],
)
def test_what_is_no_coco_file(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(ValueError, match=rf"test\.json.*{message}"):
        load(tmp_path, content)


def test_long_keys_are_shortened(tmp_path: Path) -> None:
    with pytest.raises(CocoFileError, match="an object with") as caught:
        load(tmp_path, {"x" * 5000: 1})
    assert len(str(caught.value)) < 1000


def test_what_is_no_json_or_not_there(tmp_path: Path) -> None:
    source = source_of(tmp_path, {})
    Path(str(source.test_json)).write_text("{")
    with pytest.raises(InputFileError, match=r"test\.json: expected a COCO JSON file, got an error"):
        source.load(Split.test)
    with pytest.raises(FileNotFoundError, match=r"none\.json: expected a COCO JSON file"):
        CocoSource(test_json=str(tmp_path / "none.json"), test_images=".").load(Split.test)
    with pytest.raises(FileNotFoundError, match="expected the folder of the images"):
        CocoSource(test_json=source.test_json, test_images=str(tmp_path / "none")).load(Split.test)


def test_settings_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected a COCO file; set"):
        CocoSource()
    with pytest.raises(ValueError, match=r"dataset\.train_json: .*dataset\.train_images"):
        CocoSource(train_images="a")
    assert CocoSource(train_json="a/b.json").named_folders() == [Path("a")]
    source = source_of(tmp_path, {"images": [image(1)]})
    assert [source.has(split) for split in Split] == [False, False, True]
    with pytest.raises(ValueError, match="expected a train split"):
        source.load(Split.train)


def test_annotations_of_no_image_are_strays(tmp_path: Path) -> None:
    content = {"images": [image(1)], "annotations": [annotation(1), annotation(9)], "categories": CATEGORIES}
    assert [one.kind for one in source_of(tmp_path, content).strays()] == ["orphan_annotation"]


@pytest.mark.parametrize(
    "name",
    [
        "images\\1.jpg",
        "C:\\photos\\1.jpg",
        "https://site.org/x/1.jpg?size=3",
        "file:///home/x/1.jpg",
        "%31.jpg",
        "1.JPG",
        "1",
        "1.png",
        "../test images/1.jpg",
    ],
)
def test_names_of_other_machines(tmp_path: Path, name: str) -> None:
    records = load(tmp_path, {"images": [image(1, name)], "categories": CATEGORIES}).records
    assert [record.path.name for record in records] == ["1.jpg"]


def test_a_name_that_fits_two_images_is_an_error(tmp_path: Path) -> None:
    content = {"images": [image(1, "1.jpg")], "categories": CATEGORIES}
    source = source_of(tmp_path, content, files=("a/1.jpg", "b/1.jpg"))
    fault = source.entries(Split.test)[0].fault
    assert fault is not None
    assert (fault.kind, "may be any of 2 images" in fault.detail) == ("ambiguous_image", True)


@pytest.mark.parametrize("form", ["../secret/x.jpg", "{folder}/secret/x.jpg", "link.jpg"])
def test_images_outside_need_the_setting(tmp_path: Path, form: str, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "secret").mkdir()
    cv2.imwrite(str(tmp_path / "secret" / "x.jpg"), np.zeros((20, 30, 3), np.uint8))
    content = {"images": [image(1), image(2, form.format(folder=tmp_path))], "categories": CATEGORIES}
    source = source_of(tmp_path, content)
    (tmp_path / "test images" / "link.jpg").symlink_to(tmp_path / "secret" / "x.jpg")
    dataset = source.load(Split.test)
    assert len(dataset) == 1
    assert "dataset.outside=true" in dataset.bad[0].reason
    assert len(source_of(tmp_path, content, outside=True).load(Split.test)) == 2
    assert "read 1 images outside" in caplog.text
    counts = check_source(source_of(tmp_path, content, outside=True)).counts
    assert counts["read_outside"] == 1


def test_one_file_is_divided_by_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = [f"{number}.jpg" for number in range(12)]
    content = {"images": [image(n, name) for n, name in enumerate(names)], "annotations": [], "categories": CATEGORIES}
    with caplog.at_level(logging.INFO):
        source = source_of(tmp_path, content, files=tuple(names), split="train", test_share=0.5)
        sides = {split: [entry.image_id for entry in source.entries(split)] for split in (Split.train, Split.test)}
    assert sorted(sides[Split.train] + sides[Split.test]) == list(range(12))  # type: ignore[operator]
    assert "no test_json: of these images about 50% are test" in caplog.text
    train, test = hash_split([str(number) for number in range(12)], 0, 0.5)
    assert sides == {Split.train: train, Split.test: test}  # a VOC folder of these names has the same split
    stored = source.automatic_split()
    assert stored is not None
    assert set(stored.test) == set(map(str, test))
    fewer = source_of(tmp_path, {**content, "images": content["images"][::-2]}, split="train", test_share=0.5)
    assert {entry.image_id for entry in fewer.entries(Split.test)} <= set(test)
    assert source.load(Split.test).category_ids == (3, 7)


def test_one_file_may_stay_whole(tmp_path: Path) -> None:
    content = {"images": [image(1), image(2)], "categories": CATEGORIES}
    source = source_of(tmp_path, content, split="train", test_share=0)
    assert [source.has(split) for split in Split] == [True, False, False]
    assert len(source.entries(Split.train)) == 2
    test_only = source_of(tmp_path, content)
    assert [test_only.has(split) for split in Split] == [False, False, True]


def test_label_studio_states_sizes_before_exifs_rotation_but_not_boxes(tmp_path: Path) -> None:
    exif = PIL.Image.Exif()
    exif[274] = 6
    PIL.Image.new("RGB", (30, 20)).save(tmp_path / "a.jpg", exif=exif)
    content = {
        "images": [{"id": 0, "file_name": "images/0123abcd__a.jpg", "width": 30, "height": 20}],
        "annotations": [{"id": 0, "image_id": 0, "category_id": 0, "bbox": [1, 22, 10, 7]}],
        "categories": [{"id": 0, "name": "cat"}],
        "info": {"contributor": "Label Studio"},
    }
    (tmp_path / "result.json").write_text(json.dumps(content))
    source = CocoSource(train_json=str(tmp_path / "result.json"), train_images=str(tmp_path), test_share=0.0)
    truth = source.load(Split.train).measured_truth
    assert truth is not None
    assert truth[0].boxes.tolist() == [[1, 22, 11, 29]]


@pytest.mark.parametrize(
    ("orientation", "size", "exif_boxes", "box"),
    [
        # The file has 20 rows of 30 pixels; with 6 it is shown rotated by 90 degrees clockwise, with 8 the other way.
        (6, (20, 30), "auto", [20 - 2 - 11, 1, 20 - 2, 1 + 10]),
        (8, (20, 30), "auto", [2, 30 - 1 - 10, 2 + 11, 30 - 1]),
        (5, (20, 30), "auto", [2, 1, 13, 11]),
        (7, (20, 30), "auto", [20 - 13, 30 - 11, 20 - 2, 30 - 1]),
        (6, (30, 20), "auto", [1, 2, 11, 13]),
        (6, None, "auto", [1, 2, 11, 13]),
        (6, (20, 30), "upright", [1, 2, 11, 13]),
        (6, None, "raw", [20 - 2 - 11, 1, 20 - 2, 1 + 10]),
        (3, (20, 30), "auto", [1, 2, 11, 13]),
        (3, (20, 30), "raw", [30 - 11, 20 - 13, 30 - 1, 20 - 2]),
        (2, None, "raw", [30 - 11, 2, 30 - 1, 13]),
        (4, None, "raw", [1, 20 - 13, 11, 20 - 2]),
    ],
)
def test_boxes_before_exifs_rotation_are_rotated(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    orientation: int,
    size: tuple[int, int] | None,
    exif_boxes: str,
    box: list[int],
) -> None:
    stated = {} if size is None else {"height": size[0], "width": size[1]}
    content = {"images": [{**image(1), **stated}], "annotations": [annotation(1)], "categories": CATEGORIES}
    source = source_of(tmp_path, content, exif_boxes=ExifBoxes(exif_boxes))
    exif = PIL.Image.Exif()
    exif[274] = orientation
    PIL.Image.new("RGB", (30, 20)).save(tmp_path / "test images" / "1.jpg", exif=exif)
    np.testing.assert_array_equal(source.load(Split.test).ground_truth[1].boxes, [box])  # type: ignore[index]
    is_turned = box != [1, 2, 11, 13]
    counts = check_source(source).counts
    assert counts.get("turned_boxes", 0) == is_turned
    assert counts.get("exif_rotation", 0) == (not is_turned)
    assert ("dataset.exif_boxes=upright" in caplog.text) == is_turned


def test_real_files(shared_data: Path) -> None:
    train, test = shared_data / "coco_train", shared_data / "coco_val"
    source = CocoSource(
        train_json=str(train / "instances.json"),
        train_images=str(train / "images"),
        test_json=str(test / "instances.json"),
        test_images=str(test / "images"),
    )
    for split, expected in ((Split.train, (317, 2650, 28)), (Split.test, (164, 1560, 17))):
        dataset = source.load(split)
        truths = dataset.ground_truth.values()
        assert (len(dataset), sum(map(len, truths)), sum(int(one.crowd.sum()) for one in truths)) == expected
        assert (len(dataset.classes), dataset.category_ids[-1], dataset.classes[-1]) == (80, 90, "toothbrush")
        assert dataset.bad == ()


def test_a_shape_in_place_of_a_box(tmp_path: Path) -> None:
    shapes = [
        [[2, 3, 12, 3, 12, 9]],
        {"size": [20, 30], "counts": [25, 3, 572]},  # column 1, rows 5 to 7
        {"size": [20, 30], "counts": "i03\\a0"},
    ]
    annotations = [annotation(1, box=None, segmentation=one) for one in shapes]
    del annotations[0]["bbox"]
    content = {"images": [image(1)], "annotations": annotations, "categories": CATEGORIES}
    dataset = load(tmp_path, content)
    np.testing.assert_array_equal(dataset.ground_truth[1].boxes[:2], [[2, 3, 12, 9], [1, 5, 2, 8]])
    np.testing.assert_array_equal(dataset.ground_truth[1].boxes[2], [1, 5, 2, 8])


@pytest.mark.parametrize(("degrees", "box"), [(90, [3, 2, 9, 12]), (0.0, [1, 4, 11, 10]), ("left", [1, 4, 11, 10])])
def test_a_box_that_cvat_rotated(tmp_path: Path, degrees: object, box: list[float]) -> None:
    one = annotation(1, (1, 4, 10, 6), attributes={"occluded": False, "rotation": degrees})
    content = {"images": [image(1)], "annotations": [one], "categories": CATEGORIES}
    assert load(tmp_path, content).ground_truth[1].boxes.tolist() == [pytest.approx(box)]


def test_a_group_of_classes_is_no_class(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    groups = [
        {"id": 0, "name": "pets", "supercategory": "none"},  # of Roboflow
        {"id": 3, "name": "cat", "supercategory": "pets"},
        {"id": 4, "name": "dog", "supercategory": "dog"},
        {"id": 5, "name": "kitten", "supercategory": "cat"},
    ]
    content = {"images": [image(1)], "annotations": [annotation(1)], "categories": groups}
    with caplog.at_level(logging.INFO):
        assert source_of(tmp_path, content).class_names() == ["cat", "dog", "kitten"]
    assert "pets" in caplog.text
    content["annotations"] = [annotation(1, category=0)]
    assert source_of(tmp_path, content).class_names() == ["pets", "cat", "dog", "kitten"]


def test_an_address_in_place_of_a_name(tmp_path: Path) -> None:
    lvis = {"id": 1, "coco_url": "http://images.cocodataset.org/train2017/1.jpg"}
    content = {"images": [lvis], "annotations": [annotation(1)], "categories": CATEGORIES}
    assert load(tmp_path, content).bad == ()


def test_an_object_without_box_and_shape_is_left_out_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lacking = annotation(1, box=None, category=7, id=4)
    content = {"images": [image(1)], "annotations": [annotation(1), lacking], "categories": CATEGORIES}
    source = source_of(tmp_path, content)
    dataset = source.load(Split.test)
    assert dataset.ground_truth[1].labels.tolist() == [1]
    assert "annotation 4, object 'dog' lacks a bbox" in caplog.text
    found = check_source(source).findings
    assert [(one.kind, Path(one.file).name) for one in found] == [("object_without_box", "1.jpg")]


@pytest.mark.parametrize(
    ("in_images", "in_annotations", "own"),
    [(1.0, 1, 1), (1, 1.0, 1), (1, "1", 1), ("1", 1, "1"), ("0001", 1, "0001"), ("1.0", 1, "1.0"), (1, "0001", 1)],
)
def test_ids_are_numbers_here_and_text_or_floats_there(
    tmp_path: Path, in_images: Any, in_annotations: Any, own: object
) -> None:
    content = {
        "images": [{"id": in_images, "file_name": "1.jpg"}],
        "annotations": [annotation(in_annotations, category=3.0), annotation(in_annotations, category="7")],
        "categories": [{"id": "3", "name": "cat"}, {"id": 7.0, "name": "dog"}],
    }
    dataset = load(tmp_path, content)
    assert dataset.records[0].image_id == own
    assert type(dataset.records[0].image_id) is type(own)
    assert dataset.category_ids == (3, 7)
    assert dataset.ground_truth[own].labels.tolist() == [1, 2]


def test_ids_that_mean_one_number_are_told_apart_as_written(tmp_path: Path) -> None:
    content = {
        "images": [{"id": 1, "file_name": "1.jpg"}, {"id": "1", "file_name": "2.jpg"}],
        "annotations": [annotation(1), annotation("1", category=7), annotation("01")],
        "categories": CATEGORIES,
    }
    source = source_of(tmp_path, content)
    truth = source.load(Split.test).ground_truth
    assert (truth[1].labels.tolist(), truth["1"].labels.tolist()) == ([1], [2])
    assert [one.kind for one in source.strays()] == ["orphan_annotation"]


def test_shares_are_not_trained_on(tmp_path: Path) -> None:
    content = {
        "images": [image(1)],
        "annotations": [annotation(1, (0.1, 0.2, 0.5, 0.5))],
        "categories": CATEGORIES,
    }
    with pytest.raises(ValueError, match=r"all 1 boxes lie within 1 x 1 pixel.*multiply x and width"):
        source_of(tmp_path, content, split="train").load(Split.train)
    dataset = source_of(tmp_path, content).load(Split.test)
    assert dataset.measured_truth is not None
    assert len(dataset.measured_truth[1]) == 1
    assert len(dataset.ground_truth[1]) == 0
