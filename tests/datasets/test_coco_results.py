"""coco_results: written in one way only, read strictly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detpipe import boxes as box_ops
from detpipe.datasets.coco_results import ResultFileError, read_detections, write_detections
from detpipe.storage.input_file import InputFileError
from detpipe.structures import Dataset, Detections, ImageId, ImageRecord, WrittenDetections


def dataset_of(*images: tuple[ImageId, str]) -> Dataset:
    records = tuple(ImageRecord(image_id, Path("images") / name, (20, 30)) for image_id, name in images)
    return Dataset("set", ("cat", "dog"), (3, 7), records, None)


def detections_of(*rows: tuple[float, ...]) -> Detections:
    table = np.array(rows, np.float32).reshape(-1, 6)
    return Detections(table[:, :4].copy(), table[:, 4].copy(), table[:, 5].astype(np.int64))


NONE = detections_of()
VOC = dataset_of(("b", "b.jpg"), ("000007", "000007.png"))
COCO = dataset_of((139, "000000000139.jpg"), (25, "25.jpg"))


def test_writes_in_the_order_of_the_images(tmp_path: Path) -> None:
    path = tmp_path / "new" / "detections.json"
    found = {"000007": detections_of((1, 2, 4, 6, 0.123456789, 2)), "b": detections_of((0.126, 0, 1, 1, 1, 1))}
    write_detections(path, VOC, found)
    assert path.read_text() == (
        '[\n{"image_id": "b", "category_id": 3, "bbox": [0.13, 0.0, 0.87, 1.0], "score": 1.0},\n'
        '{"image_id": "000007", "category_id": 7, "bbox": [1.0, 2.0, 3.0, 4.0], "score": 0.123457}\n]\n'
    )
    assert list(path.parent.iterdir()) == [path]


def test_nothing_found_is_an_empty_list(tmp_path: Path) -> None:
    path = tmp_path / "detections.json"
    for found in ({}, {"b": NONE}):
        write_detections(path, VOC, found)
        assert json.loads(path.read_text()) == []
    read = read_detections(path, VOC)
    assert list(read) == ["b", "000007"]
    assert read["b"].boxes.shape == (0, 4)


def test_writer_refuses_strangers_and_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "detections.json"
    path.write_text("before")
    with pytest.raises(ValueError, match=r"expected detections of its own images, got \['x'\]"):
        write_detections(path, VOC, {"x": NONE})
    with pytest.raises(ValueError, match=r"b: expected labels 1\.\.2, got 3"):
        write_detections(path, VOC, {"b": detections_of((0, 0, 1, 1, 1, 3))})
    assert path.read_text() == "before"


quarter = st.integers(0, 400).map(lambda value: value / 4)


@settings(max_examples=50, deadline=None)
@given(
    rows=st.lists(st.tuples(quarter, quarter, quarter, quarter, st.integers(0, 99), st.integers(1, 2)), max_size=6),
)
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[float, ...]]) -> None:
    path = tmp_path_factory.mktemp("results") / "detections.json"
    table = np.array([(x, y, x + w, y + h, score / 100, label) for x, y, w, h, score, label in rows], np.float32)
    table = table.reshape(-1, 6)
    table = table[box_ops.rank(table[:, :4], table[:, 4])]
    write_detections(path, COCO, {139: detections_of(*map(tuple, table))})
    read = read_detections(path, COCO)
    np.testing.assert_array_equal(read[139].boxes, table[:, :4])
    np.testing.assert_array_equal(read[139].scores, table[:, 4])
    assert sorted(read[139].labels.tolist()) == sorted(table[:, 5].tolist())
    assert len(read[25]) == 0


def result(**changes: Any) -> dict[str, Any]:
    return {"image_id": "b", "category_id": 3, "bbox": [1, 2, 3, 4], "score": 0.5, **changes}


def read(tmp_path: Path, content: object, dataset: Dataset = VOC) -> dict[ImageId, WrittenDetections]:
    path = tmp_path / "results.json"
    path.write_text(json.dumps(content))
    return read_detections(path, dataset)


def test_reads_in_any_order_and_sorts(tmp_path: Path) -> None:
    found = read(tmp_path, [result(score=0.1), result(score=0.9, category_id=7, segmentation=[])])["b"]
    assert found.labels.tolist() == [2, 1]
    np.testing.assert_array_equal(found.boxes[0], [1, 2, 4, 6])


@pytest.mark.parametrize(
    ("dataset", "name", "image_id"),
    [
        (VOC, "b.jpg", "b"),
        (VOC, 7, "000007"),
        (VOC, "000007.png", "000007"),
        (COCO, "139", 139),
        (COCO, "000000000139.jpg", 139),
        (COCO, "000000000139", 139),
        (dataset_of((25, "139.jpg"), (139, "25.jpg")), 25, 25),
    ],
)
def test_images_by_any_of_their_names(tmp_path: Path, dataset: Dataset, name: ImageId, image_id: ImageId) -> None:
    assert len(read(tmp_path, [result(image_id=name)], dataset)[image_id]) == 1


def test_a_name_that_fits_two_images_is_refused(tmp_path: Path) -> None:
    dataset = dataset_of((1, "a/x.jpg"), (2, "b/x.jpg"))
    with pytest.raises(ResultFileError, match=r"'x\.jpg': expected an image"):
        read(tmp_path, [result(image_id="x.jpg")], dataset)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"annotations": []}, "expected a JSON list of COCO results, got a dict"),
        ([3], "result 0: expected an object with image_id"),
        ([result(), {"image_id": "b"}], "result 1: expected .* got no bbox, category_id, score"),
        ([result(image_id="x")], r"image_id 'x': expected an image of set \(b, 000007"),
        ([result(image_id=True)], "image_id True"),
        ([result(image_id=["b"])], r"image_id \['b'\]"),
        ([result(category_id=1)], "category_id 1: expected one of {3: 'cat', 7: 'dog'}"),
        ([result(category_id="cat")], "category_id 'cat'"),
        ([result(bbox=[1, 2, 3])], "expected .*four finite numbers"),
        ([result(bbox=[1, 2, 3, float("nan")])], "four finite numbers"),
        ([result(bbox=[1, 2, 3, "4"])], "four finite numbers"),
        ([result(bbox=[9, 9, -3, 4])], r"give \[x, y, width, height\], not corners"),
        ([result(score=float("inf"))], "score inf: expected a finite number"),
        ([result(score=None)], "score None"),
        ([result(score=10**400)], "score 1000"),
    ],
)
def test_reader_is_strict(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(ResultFileError, match=rf"results\.json: .*{message}"):
        read(tmp_path, content)


def test_no_file_and_no_json(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="expected a file of detections"):
        read_detections(tmp_path / "none.json", VOC)
    (tmp_path / "bad.json").write_bytes(b"\xff[")
    with pytest.raises(InputFileError, match=r"bad\.json: expected COCO results in JSON"):
        read_detections(tmp_path / "bad.json", VOC)


@pytest.mark.parametrize("image_id", [7, 7.0, "7", "07", "7.0", "000007"])
@pytest.mark.parametrize("category_id", [3, 3.0, "3"])
def test_ids_are_numbers_or_text_or_whole_floats(tmp_path: Path, image_id: object, category_id: object) -> None:
    found = read(tmp_path, [result(image_id=image_id, category_id=category_id)])
    assert found["000007"].labels.tolist() == [1]


def test_results_of_others_are_left_out_with_a_word(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = read(tmp_path, [result(), result(image_id="zebra"), result(category_id=99), result(image_id="zebra")])
    assert len(found["b"]) == 1
    assert "left out 3 of 4 results: set has no image 'zebra', category 99" in caplog.text


@pytest.mark.parametrize(
    ("bbox", "word"),
    [([0.1, 0.1, 0.5, 0.5], "shares of the image; give pixels"), ([12, 8, 25, 18], r"give [x, y, width, height]")],
)
def test_boxes_in_other_units_are_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, bbox: list[float], word: str
) -> None:
    read(tmp_path, [result(bbox=bbox)] * 3)
    assert word in caplog.text
    caplog.clear()
    read(tmp_path, [result(bbox=bbox), result(bbox=[25, 10, 5, 5])])
    assert caplog.text == ""


def test_the_numbers_are_kept_as_written(tmp_path: Path) -> None:
    rows = [result(bbox=[10.1, 0.3, 0.7, 0.1], score=0.3 + 1e-12), result(score=0.3), result(score=1)]
    found = read(tmp_path, rows)["b"]
    assert found.written_scores.tolist() == [1, 0.3 + 1e-12, 0.3]
    assert found.xywh[1].tolist() == [10.1, 0.3, 0.7, 0.1]
