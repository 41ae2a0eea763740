"""imagefolder: Hugging Face's metadata.jsonl in its forms, split folders with equal names, and wrong lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from detpipe.datasets.auto import find_reading
from detpipe.datasets.entry import RawObject
from detpipe.datasets.hugging_face import HuggingFaceSource
from detpipe.datasets.source import Split
from tests.datasets.other_formats import image

BOXES = [[1.5, 2, 7.5, 10], [3, 4, 5, 6]]
CAT = RawObject("cat", (1.5, 2.0, 9.0, 12.0), written=(1.5, 2.0, 7.5, 10.0))
DOG = RawObject("dog", (3.0, 4.0, 8.0, 10.0), written=(3.0, 4.0, 5.0, 6.0))


def write(folder: Path, *rows: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    lines = [one if isinstance(one, str) else json.dumps(one) for one in rows]
    (folder / "metadata.jsonl").write_text("\n".join(lines))


def source_of(root: Path, **settings: Any) -> HuggingFaceSource:
    return HuggingFaceSource(root=str(root), **{"test_share": 0.0, "max_bad": 0.5, **settings})


@pytest.mark.parametrize(
    "objects",
    [
        {"bbox": BOXES, "categories": ["cat", "dog"]},
        {"id": [1, 2], "area": [75, 30], "bbox": BOXES, "category": ["cat", "dog"]},
        [{"bbox": BOXES[0], "category": "cat"}, {"bbox": BOXES[1], "category": "dog"}],
    ],
)
def test_the_forms_of_objects(tmp_path: Path, objects: Any) -> None:
    image(tmp_path / "a.jpg")
    image(tmp_path / "b.jpg")
    write(tmp_path, {"file_name": "a.jpg", "objects": objects}, "", {"file_name": "b.jpg", "objects": {"bbox": []}})
    reading = find_reading(tmp_path)
    assert reading.word == "imagefolder"
    source = reading.source({"test_share": 0.0, "max_bad": 0.0})
    source.load(Split.train)
    first, second = source.entries(Split.train)
    assert (first.image_id, first.objects, second.objects) == ("a", (CAT, DOG), ())


def test_numbers_are_names_and_missing_classes_one_class(tmp_path: Path) -> None:
    image(tmp_path / "a.jpg")
    write(tmp_path, {"file_name": "a.jpg", "objects": {"bbox": BOXES, "category": [10, 9]}})
    assert source_of(tmp_path).known_classes() == ["9", "10"]
    write(tmp_path, {"file_name": "a.jpg", "objects": {"bbox": BOXES}})
    assert source_of(tmp_path).known_classes() == ["object"]
    write(tmp_path, {"file_name": "a.jpg", "objects": {"bbox": BOXES, "category": ["lion", "a cat"]}})
    assert source_of(tmp_path).known_classes() == ["a cat", "lion"]


def test_split_folders_may_have_images_of_one_name(tmp_path: Path) -> None:
    for split, name in (("train", "cat"), ("validation", "dog")):
        image(tmp_path / split / "0001.png")
        write(tmp_path / split, {"file_name": "0001.png", "objects": {"bbox": BOXES[:1], "category": [name]}})
    source = source_of(tmp_path, max_bad=0)
    for split, name, folder in ((Split.train, "cat", "train"), (Split.test, "dog", "validation")):
        source.load(split)
        (entry,) = source.entries(split)
        assert entry.image == tmp_path / folder / "0001.png"
        assert [one.name for one in entry.objects] == [name]


def test_captions_are_no_objects(tmp_path: Path) -> None:
    image(tmp_path / "a.jpg")
    write(tmp_path, {"file_name": "a.jpg", "text": "a cat"})
    assert find_reading(tmp_path).word == "images"


@pytest.mark.parametrize(
    ("objects", "said"),
    [
        ({"bbox": BOXES, "category": ["cat"]}, "a class for each of 2 boxes, got 1"),
        ({"bbox": BOXES, "category": "cat"}, "a class for each of 2 boxes"),
        ({"bbox": [[1, 2, 3]], "category": ["cat"]}, "expected bbox [x, y, width, height]"),
        ({"bbox": [[1, 2, 3, "x"]], "category": ["cat"]}, "bbox: expected a number"),
        ({"bbox": 3}, "a list bbox"),
        ("cat", "a list bbox"),
        ({"bbox": BOXES[:1], "category": [{}]}, "expected a category_id"),
    ],
)
def test_a_wrong_line_makes_its_image_unusable(tmp_path: Path, objects: Any, said: str) -> None:
    for name in "ab":
        image(tmp_path / f"{name}.jpg")
    good = {"file_name": "a.jpg", "objects": {"bbox": BOXES[:1], "category": ["cat"]}}
    write(tmp_path, good, {"file_name": "b.jpg", "objects": objects})
    (bad,) = source_of(tmp_path).load(Split.train).bad
    assert said in bad.reason
    assert "line 2" in bad.reason


@pytest.mark.parametrize(
    ("line", "said"),
    [("{", "error on reading the line"), ("[]", "file_name"), ('{"file_name": 3}', "file_name"), ("[" * 200, "deep")],
)
def test_another_file_is_one_sentence(tmp_path: Path, line: str, said: str) -> None:
    write(tmp_path, {"file_name": "a.jpg", "objects": {"bbox": []}}, line)
    with pytest.raises(ValueError, match=r"metadata\.jsonl:2") as caught:
        HuggingFaceSource(root=str(tmp_path / "metadata.jsonl")).has(Split.train)
    assert said in str(caught.value)
    (tmp_path / "metadata.jsonl").write_text("")
    with pytest.raises(ValueError, match="empty file"):
        HuggingFaceSource(root=str(tmp_path / "metadata.jsonl")).has(Split.train)
