"""labelstudio: regions in percent, addresses of images, tasks with several annotations or none, and wrong ones."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from detpipe.datasets.entry import RawObject
from detpipe.datasets.label_studio import LabelStudioSource
from detpipe.datasets.source import Split
from tests.datasets.other_formats import image, region

CAT = RawObject("cat", (10.0, 5.0, 30.0, 15.0))
SIZE = {"original_width": 40, "original_height": 20}


def shape(kind: str, value: dict[str, Any], **more: Any) -> dict[str, Any]:
    return region(CAT, (20, 40), type=kind, value={**value, kind: ["cat"]}, **more)


def task(name: str, *results: list[Any], **more: Any) -> dict[str, Any]:
    return {"id": 7, "data": {"image": name}, "annotations": [{"result": one, **more} for one in results]}


def source_of(root: Path, *tasks: Any) -> LabelStudioSource:
    (root / "export.json").write_text(json.dumps(tasks))
    return LabelStudioSource(root=str(root / "export.json"), test_share=0.0, max_bad=0.5)


def boxes(source: LabelStudioSource) -> list[tuple[float, ...]]:
    source.load(Split.train)
    return [one.box for entry in source.entries(Split.train) for one in entry.objects]


@pytest.mark.parametrize(
    "name",
    [
        "/data/upload/1/a.jpg",
        "/data/upload/1/0123abcd-a.jpg",
        "/data/local-files/?d=photos/a.jpg",
        "http://localhost:8080/data/upload/1/a.jpg",
        "s3://bucket/a.jpg",
        "a.jpg",
    ],
)
def test_addresses_of_images(tmp_path: Path, name: str) -> None:
    image(tmp_path / "a.jpg")
    source = source_of(tmp_path, task(name, [region(CAT, (20, 40))]))
    assert boxes(source) == [CAT.box]
    (entry,) = source.entries(Split.train)
    assert (entry.image_id, entry.objects[0].id, entry.objects[0].written) == ("a", "r1", (10.0, 5.0, 20.0, 10.0))


def test_an_image_that_was_exported_with_its_digits(tmp_path: Path) -> None:
    image(tmp_path / "images" / "0123abcd-a.jpg")
    assert boxes(source_of(tmp_path, task("/data/upload/1/0123abcd-a.jpg", [region(CAT, (20, 40))]))) == [CAT.box]


@pytest.mark.parametrize(
    ("one", "box"),
    [
        (shape("polygonlabels", {"points": [[25, 25], [75, 25], [50, 75]]}), (10, 5, 30, 15)),
        (shape("ellipselabels", {"x": 50, "y": 50, "radiusX": 25, "radiusY": 25}), (10, 5, 30, 15)),
        (shape("rectanglelabels", {"x": 50, "y": 0, "width": 25, "height": 20, "rotation": 90}), (16, 0, 20, 10)),
    ],
)
def test_other_shapes(tmp_path: Path, one: dict[str, Any], box: tuple[float, ...]) -> None:
    image(tmp_path / "a.jpg")
    assert boxes(source_of(tmp_path, task("a.jpg", [one]))) == [pytest.approx(box)]


def test_percent_are_of_the_image_that_is_there(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.jpg"), np.zeros((40, 80, 3), np.uint8))
    assert boxes(source_of(tmp_path, task("a.jpg", [region(CAT, (20, 40))]))) == [(20, 10, 60, 30)]


def test_several_annotations_and_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in "abcd":
        image(tmp_path / f"{name}.jpg")
    dog = RawObject("dog", (0.0, 0.0, 20.0, 10.0))
    tasks = [
        task("a.jpg", [region(dog, (20, 40))], [region(CAT, (20, 40))]),
        task("b.jpg", [region(CAT, (20, 40))], was_cancelled=True),
        task("c.jpg"),
        task("d.jpg", []),
    ]
    source = source_of(tmp_path, *tasks)
    with caplog.at_level(logging.WARNING):
        assert boxes(source) == [CAT.box]
    assert [entry.image_id for entry in source.entries(Split.train)] == ["a", "d"]
    assert "2 tasks without a submitted annotation" in caplog.text


def test_a_rectangle_with_its_label_in_another_result(tmp_path: Path) -> None:
    image(tmp_path / "a.jpg")
    bare = {**region(CAT, (20, 40)), "type": "rectangle"}
    value = {key: bare["value"][key] for key in ("x", "y", "width", "height", "rotation")}
    bare["value"] = value
    label = {**bare, "type": "labels", "value": {**value, "labels": ["cat"]}}
    text = {**bare, "type": "textarea", "value": {**value, "text": ["hello"]}}
    source = source_of(tmp_path, task("a.jpg", [bare, label, text, {**bare, "id": "r2"}]))
    assert boxes(source) == [CAT.box]
    (entry,) = source.entries(Split.train)
    assert [note.detail for note in entry.notes] == ["task 7: a rectanglelabels has no label; left out"]


def test_json_min(tmp_path: Path) -> None:
    for name in "abc":
        image(tmp_path / f"{name}.jpg")
    one = region(CAT, (20, 40))
    short = {**one["value"], "original_width": 40, "original_height": 20}
    dog = {**short, "rectanglelabels": ["dog"]}

    def item(number: int, name: str, **more: Any) -> dict[str, Any]:
        own = {"image": f"/data/upload/1/0123abcd-{name}.jpg", "id": number}
        return {**own, **more, "annotator": 1, "annotation_id": number, "lead_time": 3.5}

    tasks = [item(1, "a", label=[dog]), item(1, "a", label=[short]), item(2, "b"), item(3, "c", label=[short, dog])]
    source = source_of(tmp_path, *tasks)
    assert LabelStudioSource.is_format((tmp_path / "export.json").read_bytes())
    assert boxes(source) == [CAT.box] * 3
    found = {entry.image_id: [one.name for one in entry.objects] for entry in source.entries(Split.train)}
    assert found == {"a": ["cat"], "b": [], "c": ["cat", "dog"]}


def test_the_newest_annotation_counts_wherever_it_is_in_the_file(tmp_path: Path) -> None:
    """PostgreSQL gives annotations in any order, and JSON-MIN has the newest first."""
    image(tmp_path / "a.jpg")
    old, new = region(RawObject("dog", (0.0, 0.0, 20.0, 10.0)), (20, 40)), region(CAT, (20, 40))
    full = task("a.jpg", [new], [old])
    for one, number in zip(full["annotations"], (12, 9), strict=True):
        one["id"] = number
    assert boxes(source_of(tmp_path, full)) == [CAT.box]
    rows = [
        {"image": "a.jpg", "id": 1, "annotation_id": number, "label": [{**one["value"], **SIZE}]}
        for one, number in ((new, 12), (old, 9))
    ]
    assert boxes(source_of(tmp_path, *rows)) == [CAT.box]


def test_a_row_of_json_min_without_an_annotation_is_left_out(tmp_path: Path) -> None:
    """Exports of all tasks have one for each task that nobody has looked at."""
    for name in "ab":
        image(tmp_path / f"{name}.jpg")
    done = {"image": "a.jpg", "id": 1, "annotation_id": 3}
    source = source_of(tmp_path, {"image": "b.jpg", "id": 2, "annotation_id": None, "annotator": {}}, done)
    assert [entry.image_id for entry in source.entries(Split.train)] == ["a"]


def test_regions_without_a_box_are_noted(tmp_path: Path) -> None:
    image(tmp_path / "a.jpg")
    point, brush = shape("keypointlabels", {"x": 1, "y": 1}), shape("brushlabels", {"rle": []})
    bare = region(CAT, (20, 40))
    bare["value"]["rectanglelabels"] = []
    choice = {"type": "choices", "value": {"choices": ["good"]}}
    (entry,) = source_of(tmp_path, task("a.jpg", [point, brush, bare, choice])).entries(Split.train)
    assert entry.objects == ()
    assert [note.kind for note in entry.notes] == ["object_without_box"] * 3


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"original_width": None}, "original_width"),
        ({"original_height": 0}, "original_width"),
        ({"image_rotation": 90}, "image_rotation"),
        ({"value": {"x": float("nan"), "y": 1, "width": 1, "height": 1, "rectanglelabels": ["cat"]}}, "x: expected"),
        ({"value": {"y": 1, "width": 1, "height": 1, "rectanglelabels": ["cat"]}}, "x: expected"),
        ({"value": None}, "task 7"),
    ],
)
def test_a_wrong_region_makes_its_image_unusable(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    image(tmp_path / "a.jpg")
    image(tmp_path / "b.jpg")
    source = source_of(tmp_path, task("a.jpg", [region(CAT, (20, 40), **change)]), task("b.jpg", []))
    (bad,) = source.load(Split.train).bad
    assert said in bad.reason
    assert bad.path.endswith("export.json")


@pytest.mark.parametrize(
    ("one", "said"),
    [
        ({"id": 7, "data": {"image": "a.jpg"}, "annotations": 3}, "list of annotations"),
        ({"id": 7, "data": {"text": "words"}, "annotations": [{"result": []}]}, "an image in data"),
        ({"id": 7, "data": {"image": "a.jpg"}, "annotations": [{"result": 3}]}, "list of regions"),
    ],
)
def test_a_wrong_task_is_named(tmp_path: Path, one: Any, said: str) -> None:
    for name in "ab":
        image(tmp_path / f"{name}.jpg")
    (bad,) = source_of(tmp_path, one, task("b.jpg", [])).load(Split.train).bad
    assert said in bad.reason
    assert "task 7" in bad.reason


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "empty file"),
        ("[1", "error on reading it"),
        ("{}", '"data"'),
        ('[{"image": "a.jpg", "label": []}]', '"data"'),
        ("[" * 5000, "deep"),
    ],
)
def test_another_file_is_one_sentence(tmp_path: Path, content: str, said: str) -> None:
    file = tmp_path / "export.json"
    file.write_text(content)
    with pytest.raises(ValueError, match=r"export\.json") as caught:
        LabelStudioSource(root=str(file)).has(Split.train)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
