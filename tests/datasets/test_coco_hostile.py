"""Damaged and hostile JSON files: one sentence that names file and key, in bounded memory and time, for each reader."""

from __future__ import annotations

import json
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from detpipe.datasets.coco import CocoSource, read_coco_file
from detpipe.datasets.coco_results import read_detections
from detpipe.datasets.source import Split
from detpipe.proposals.files.coco_json import read_json_file
from detpipe.structures import Dataset, ImageRecord

DATASET = Dataset("set", ("cat",), (3,), (ImageRecord(7, Path("7.jpg"), (20, 30)),), None)
READERS: dict[str, Callable[[Path], object]] = {
    "objects": lambda path: read_coco_file(path, path.parent),
    "results": lambda path: read_detections(path, DATASET),
    "proposals": read_json_file,
}
NOT_JSON = {
    "nothing": b"",
    "text": b"hello",
    "binary": bytes(range(256)) * 4,
    "cut off": b'{"images": [{"id": 1',
    "a page": b"<!DOCTYPE html><html>404</html>",
    "an LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
    "a .npy": b"\x93NUMPY\x01\x00",
    "half UTF-16": b"\xff\xfe[",
    "a number of 5000 digits": b"[" + b"9" * 5000 + b"]",
    "a million brackets": b"[" * 1_000_000,
    "brackets after spaces": b" " * 100_000 + b"[" * 1_000_000,
    "brackets after a string": b'["' + b"[{" * 50_000 + b'",' + b'{"a":' * 1_000_000,
    "objects in objects": b'{"images":' * 200_000,
    "a string of a megabyte": b'"' + b"x" * 1_000_000 + b'"',
    "null": b"null",
    "a number": b"3",
    "NaN": b"NaN",
    "infinity": b"-Infinity",
}


def image(**changes: Any) -> dict[str, Any]:
    return {"id": 7, "file_name": "7.png", **changes}


def objects(**changes: Any) -> dict[str, Any]:
    return {"images": [image()], "annotations": [], "categories": [{"id": 3, "name": "cat"}], **changes}


def result(**changes: Any) -> list[dict[str, Any]]:
    return [{"image_id": 7, "category_id": 3, "bbox": [1, 2, 3, 4], "score": 0.5, **changes}]


DEEP: list[Any] = []
for _ in range(90):
    DEEP = [DEEP]
LONG = "x" * 100_000
WRONG: list[tuple[str, Any, str]] = [
    ("objects", [], "images"),
    ("objects", {"image": []}, "images"),
    ("objects", objects(images={"7": image()}), '"images"'),
    ("objects", objects(images="7.png"), '"images"'),
    ("objects", objects(images=7), '"images"'),
    ("objects", objects(images=[[]]), '"images"'),
    ("objects", objects(images=[None]), '"images"'),
    ("objects", objects(images=DEEP), '"images"'),
    ("objects", objects(annotations={"id": 1}), '"annotations"'),
    ("objects", objects(annotations=[1.5]), '"annotations"'),
    ("objects", objects(categories="cat"), '"categories"'),
    ("objects", objects(categories=["cat"]), '"categories"'),
    ("objects", objects(images=[image(id=None)]), r"images\[0\].id"),
    ("objects", objects(images=[image(id=True)]), r"images\[0\].id"),
    ("objects", objects(images=[image(id="")]), r"images\[0\].id"),
    ("objects", objects(images=[image(id=1.5)]), r"images\[0\].id"),
    ("objects", objects(images=[image(id=float("nan"))]), r"images\[0\].id"),
    ("objects", objects(images=[image(id=float("inf"))]), r"images\[0\].id"),
    ("objects", objects(images=[image(id=[7])]), r"images\[0\].id"),
    ("objects", objects(images=[image(), image(id=7.0)]), r"images\[1\].id: .*7 twice"),
    ("objects", objects(images=[image(id=LONG)] * 2), r"images\[1\].id: .*twice"),
    ("objects", objects(categories=[{"id": 3}]), r"categories\[0\]"),
    ("objects", objects(categories=[{"name": "cat"}]), r"categories\[0\]"),
    ("objects", objects(categories=[{"id": "three", "name": "cat"}]), r"categories\[0\]"),
    ("objects", objects(categories=[{"id": 3, "name": DEEP}]), r"categories\[0\]"),
    ("objects", objects(categories=[{"id": 3, "name": "a"}, {"id": "3", "name": "b"}]), r"categories\[1\].id"),
    ("objects", objects(annotations=[{"image_id": None}]), r"annotations\[0\].image_id"),
    ("objects", objects(annotations=[{"image_id": {"a": LONG}}]), r"annotations\[0\].image_id"),
    ("results", {"annotations": []}, "list of COCO results, got a dict"),
    ("results", "text", "list of COCO results, got a str"),
    ("results", [None], "result 0"),
    ("results", [DEEP], "result 0"),
    ("results", [LONG], "result 0"),
    ("results", result(image_id=None), "result 0: image_id None"),
    ("results", result(image_id=float("nan")), "result 0: image_id nan"),
    ("results", result(image_id={"a": LONG}), "result 0: image_id"),
    ("results", result(image_id=LONG), "result 0: image_id"),
    ("results", result(image_id=2**70), "result 0: image_id"),
    ("results", result(category_id=2**70), "result 0: category_id 1180591620717411303424"),
    ("results", result(category_id=[3]), r"result 0: category_id \[3\]"),
    ("results", result(bbox="1 2 3 4"), "result 0: bbox '1 2 3 4'"),
    ("results", result(bbox={"x": 1}), "result 0: bbox"),
    ("results", result(bbox=DEEP), "result 0: bbox"),
    ("results", result(bbox=[1, 2, 3, True]), "result 0: bbox"),
    ("results", result(bbox=[1, 2, 3, 10**400]), "result 0: bbox"),
    ("results", result(bbox=[1, 2, 3, 1e300]), "result 0: bbox"),
    ("results", result(bbox=list(range(100_000))), "result 0: bbox"),
    ("results", result(score="0.5"), "result 0: score '0.5'"),
    ("results", result(score=float("inf")), "result 0: score inf"),
    ("results", result(score=DEEP), "result 0: score"),
    ("proposals", {"annotations": []}, "list of results, got a dict"),
    ("proposals", [DEEP], "result 0"),
    ("proposals", result(image_id=None), "result 0"),
    ("proposals", result(image_id=True), "result 0"),
    ("proposals", result(bbox="1 2 3 4"), "result 0"),
    ("proposals", result(bbox=[1, 2, 3, float("nan")]), "result 0"),
    ("proposals", result(bbox=[1, 2, 3, 10**400]), "result 0"),
    ("proposals", result(score=LONG), "result 0"),
]
CASES = [(reader, content, "") for reader in READERS for content in NOT_JSON.values()]
CASES += [(reader, json.dumps(content).encode(), key) for reader, content, key in WRONG]


@pytest.mark.parametrize(("reader", "content", "key"), CASES)
def test_one_sentence_names_file_and_key(tmp_path: Path, reader: str, content: bytes, key: str) -> None:
    path = tmp_path / "a file.json"
    path.write_bytes(content)
    tracemalloc.start()
    begun = time.process_time()
    try:
        with pytest.raises(ValueError, match=rf"a file\.json: (?s:.*){key}") as raised:
            READERS[reader](path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert time.process_time() - begun < 5
    assert peak < 30e6
    message = str(raised.value).removeprefix(str(tmp_path))
    assert len(message) < 400
    assert "\n" not in message


ANNOTATION = {"id": 5, "image_id": 7, "category_id": 3, "bbox": [1, 2, 10, 10]}
BROKEN: list[tuple[dict[str, Any], str]] = [
    ({"bbox": "1 2 3 4"}, "bbox"),
    ({"bbox": {"x": 1}}, "bbox"),
    ({"bbox": DEEP}, "bbox"),
    ({"bbox": [1, 2, 3]}, "bbox"),
    ({"bbox": list(range(100_000))}, "bbox"),
    ({"bbox": [1, 2, 3, None]}, "bbox"),
    ({"bbox": [1, 2, 3, LONG]}, "bbox"),
    ({"bbox": [1, 2, 3, float("nan")]}, "bbox"),
    ({"bbox": [1, 2, 3, float("inf")]}, "bbox"),
    ({"bbox": [1, 2, 3, 10**400]}, "bbox"),
    ({"bbox": [1, 2, 3, -1e300]}, "bbox"),
    ({"category_id": 2**70}, "category_id"),
    ({"category_id": None}, "category_id"),
    ({"category_id": DEEP}, "category_id"),
    ({"category_id": LONG}, "category_id"),
    ({"bbox": None}, "lacks a bbox and a segmentation"),
    ({"bbox": [], "segmentation": []}, "lacks a bbox and a segmentation"),
    ({"bbox": None, "segmentation": DEEP}, "segmentation: expected polygons"),
    ({"bbox": None, "segmentation": LONG}, "segmentation: expected polygons"),
    ({"bbox": None, "segmentation": {"size": [10**9, 10**9], "counts": [0, 10**19]}}, "segmentation: expected an RLE"),
    ({"bbox": None, "segmentation": {"size": [5, 5], "counts": "~" * 100_000}}, "segmentation: expected a compressed"),
]


def load(folder: Path, annotation: dict[str, Any], **changes: Any) -> tuple[CocoSource, Dataset]:
    cv2.imwrite(str(folder / "7.png"), np.zeros((20, 30, 3), np.uint8))
    (folder / "a.json").write_text(json.dumps(objects(annotations=[annotation], **changes)))
    source = CocoSource(test_json=str(folder / "a.json"), test_images=str(folder), max_bad=1)
    return source, source.load(Split.test)


@pytest.mark.parametrize(("changes", "key"), BROKEN)
def test_a_broken_annotation_is_named_with_its_image(tmp_path: Path, changes: dict[str, Any], key: str) -> None:
    source, dataset = load(tmp_path, {**ANNOTATION, **changes})
    entry = source.entries(Split.test)[0]
    found = [*entry.notes, *(() if entry.fault is None else (entry.fault,))]
    assert len(found) == 1
    assert key in found[0].detail
    assert "annotation 5" in found[0].detail
    assert "7.png" in found[0].file
    assert len(found[0].detail) < 300
    assert len(dataset) == (entry.fault is None)


@pytest.mark.parametrize(
    "changes",
    [
        {"area": "large"}, {"area": 10**400}, {"area": float("nan")}, {"area": DEEP}, {"area": -5}, {"iscrowd": "no"},
        {"iscrowd": DEEP}, {"segmentation": DEEP}, {"segmentation": {"size": [10**9, 10**9], "counts": LONG}},
        {"id": 2**70}, {"id": DEEP}, {"image_id": "7"}, {"image_id": 7.0}, {"category_id": "3"}, {"category_id": 3.0},
    ],
)  # fmt: skip
def test_what_does_not_matter_is_no_fault(tmp_path: Path, changes: dict[str, Any]) -> None:
    _, dataset = load(tmp_path, {**ANNOTATION, **changes})
    assert dataset.ground_truth is not None
    assert dataset.ground_truth[7].boxes.tolist() == [[1, 2, 11, 12]]


@pytest.mark.parametrize(
    "changes", [{"width": 10**400}, {"width": "wide", "height": DEEP}, {"height": float("nan"), "width": -1}]
)
def test_a_wrong_stated_size_is_no_fault(tmp_path: Path, changes: dict[str, Any]) -> None:
    _, dataset = load(tmp_path, ANNOTATION, images=[image(**changes)])
    assert dataset.records[0].image_size == (20, 30)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be", "utf-32"])
def test_other_unicode_encodings_are_read(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "r.json").write_bytes(json.dumps(result()).encode(encoding))
    assert len(read_detections(tmp_path / "r.json", DATASET)[7]) == 1


def test_ids_of_seventy_bits_are_read(tmp_path: Path) -> None:
    changes = {"images": [image(id=2**70)], "categories": [{"id": 2**69, "name": "cat"}]}
    annotation = {**ANNOTATION, "image_id": 2**70, "category_id": 2**69}
    _, dataset = load(tmp_path, annotation, **changes)
    (tmp_path / "r.json").write_text(json.dumps(result(image_id=2**70, category_id=2**69)))
    assert len(read_detections(tmp_path / "r.json", dataset)[2**70]) == 1


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "pipe.json")
    for read in READERS.values():
        with pytest.raises(ValueError, match=r"pipe\.json: expected .*named pipe"):
            read(tmp_path / "pipe.json")
