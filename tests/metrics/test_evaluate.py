"""All metrics together: what is written, what is warned of, what is refused."""

from __future__ import annotations

import json
import logging
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detpipe.datasets.coco_results import read_detections
from detpipe.datasets.source import Split
from detpipe.metrics.coco_ap import COCO_NUMBERS
from detpipe.metrics.evaluate import evaluate
from detpipe.metrics.table import METRICS
from detpipe.structures import Dataset, Detections, GroundTruth, ImageId, ImageRecord
from tests.datasets.coco_files import CocoFiles, pycocotools_numbers, random_files, write_files


def dataset(*image_ids: ImageId, classes: tuple[str, ...] = ("cat", "dog")) -> Dataset:
    """Images that each show a cat of 10 x 10 pixels."""
    return Dataset(
        name="drawn",
        classes=classes,
        category_ids=tuple(range(1, len(classes) + 1)),
        records=tuple(ImageRecord(image_id, Path(f"{image_id}.jpg"), (50, 50)) for image_id in image_ids),
        ground_truth={image_id: GroundTruth.from_boxes([[0, 0, 10, 10]], [1]) for image_id in image_ids},
    )


def cats(n: int = 1) -> Detections:
    boxes = np.tile(np.array([0, 0, 10, 10], np.float32), (n, 1))
    return Detections(boxes, np.linspace(0.9, 0.1, n, dtype=np.float32), np.ones(n, np.int64))


def cats_gt(boxes: list[list[float]]) -> GroundTruth:
    return GroundTruth.from_boxes(boxes, [1] * len(boxes))


def detected(label: int) -> Detections:
    return Detections(np.array([[0, 0, 9, 9]], np.float32), np.ones(1, np.float32), np.array([label], np.int64))


def test_the_json_has_the_promised_keys_and_null_for_nan():
    value = evaluate(dataset("a", "b"), {"a": cats()}).to_json({"detect": 1.5})
    assert list(value) == ["voc07", "voc10", "coco", *METRICS, "seconds"]
    assert value["voc10"] == {"map": 0.5, "per_class": {"cat": 0.5, "dog": None}}
    assert value["voc07"]["map"] == pytest.approx(6 / 11)
    assert list(value["coco"]) == list(COCO_NUMBERS)
    assert value["coco"]["AP50"] == pytest.approx(51 / 101)
    assert value["coco"]["APl"] is None
    assert value["best_f1"] == pytest.approx({"f1": 2 / 3, "score": 0.9, "precision": 1, "recall": 0.5})
    assert value["seconds"] == {"detect": 1.5}
    json.dumps(value, allow_nan=False)


def test_no_detections_at_all_are_zero():
    value = evaluate(dataset("a"), {}).to_json({})
    assert (value["voc07"]["map"], value["voc10"]["map"], value["coco"]["AP"]) == (0, 0, 0)
    assert value["best_f1"] == {"f1": 0, "score": None, "precision": None, "recall": 0}


def test_a_data_set_without_objects_has_no_numbers():
    empty = Dataset("empty", ("cat",), (1,), (ImageRecord("a", Path("a.jpg"), (5, 5)),), {"a": cats_gt([])})
    value = evaluate(empty, {"a": cats()}).to_json({})
    assert value["voc10"] == {"map": None, "per_class": {"cat": None}}
    assert set(value["coco"].values()) == {None}
    assert set(value["best_f1"].values()) == {None}


def test_images_that_reach_max_dets_are_counted(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        evaluate(dataset("a", "b"), {"a": cats(3), "b": cats(2)}, max_dets=3)
    assert "1 of 2 images have the maximum of 3" in caplog.text
    assert "detect.max_detections=6" in caplog.text
    caplog.clear()
    evaluate(dataset("a", "b"), {"a": cats(3), "b": cats(2)}, max_dets=4)
    assert caplog.text == ""


def test_detections_of_other_images_are_left_out_aloud(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        metrics = evaluate(dataset("a"), {"a": cats(), "zebra": cats()})
    assert metrics.voc10.map == pytest.approx(1)
    assert "1 images" in caplog.text
    assert "zebra" in caplog.text


def test_detections_of_no_image_of_the_data_set_are_refused():
    with pytest.raises(ValueError, match=r"none of the 2 images .* \(they have '7', it has 'a'\)"):
        evaluate(dataset("a"), {7: cats(), 8: cats()})


def test_a_data_set_without_annotations_is_refused():
    bare = Dataset("folder", ("cat",), (1,), (ImageRecord("a", Path("a.jpg"), (5, 5)),), None)
    with pytest.raises(ValueError, match="dataset: folder has no annotations"):
        evaluate(bare, {"a": cats()})


def test_the_table_reads_well():
    text = evaluate(dataset("a", "b", classes=("cat", "a class of many words")), {"a": cats()}).to_text()
    lines = text.splitlines()
    assert lines[0] == "class                  objects   VOC07   VOC10    COCO"
    assert lines[2] == "cat                          2   0.545   0.500   0.505"
    assert lines[3] == "a class of many words        0       -       -       -"
    assert lines[5] == "mean of the classes          2   0.545   0.500   0.505"
    assert lines[7].startswith("COCO  AP     0.505   AP50   0.505")
    assert lines[8].split()[0] == "AR1"
    assert lines[9] == "best_f1  f1 0.667   score 0.900   precision 1.000   recall 0.500"


def test_a_metric_needs_a_key_of_its_own(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(METRICS, "coco", METRICS["best_f1"])
    with pytest.raises(ValueError, match=r"METRICS: .* got coco; rename"):
        evaluate(dataset("a"), {})


# --- two files, as pycocotools evaluates them ----------------------------------------------------------------------


def numbers_of(files: CocoFiles) -> list[float]:
    data = files.source.load(Split.test)
    return list(evaluate(data, read_detections(files.results, data)).coco.numbers.values())


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("decimals", "scores"), [(0, 3), (1, 20), (2, 1), (12, 10**9)])
def test_the_twelve_numbers_are_those_of_pycocotools(tmp_path: Path, seed: int, decimals: int, scores: int):
    files = random_files(tmp_path, seed, decimals=decimals, scores=scores)
    want = pycocotools_numbers(files)
    assert want[0] > 0.01
    assert numbers_of(files) == pytest.approx(want.tolist(), abs=1e-9, nan_ok=True)


def test_more_than_a_hundred_detections_of_a_class(tmp_path: Path):
    files = random_files(tmp_path, 1, decimals=1, scores=3, images=3, per_object=150)
    assert max(Counter(one["image_id"] for one in json.loads(files.results.read_text())).values()) > 300
    assert numbers_of(files) == pytest.approx(pycocotools_numbers(files).tolist(), abs=1e-9, nan_ok=True)


def test_an_object_that_reaches_outside_the_image_is_found_by_its_own_box(tmp_path: Path):
    # Within the image, half of the object is left: clipped, the IoU would be 0.5.
    box = [-40, 10, 80, 50]
    annotations = [{"image_id": 10, "category_id": 2, "bbox": box, "area": 4000, "iscrowd": 0}]
    files = write_files(tmp_path, annotations, [{"image_id": 10, "category_id": 2, "bbox": box, "score": 1}], 1, 1)
    data = files.source.load(Split.test)
    metrics = evaluate(data, read_detections(files.results, data))
    assert metrics.coco.numbers["AP"] == pytest.approx(1)
    assert metrics.voc10.map == pytest.approx(1)
    assert data.ground_truth is not None
    assert data.ground_truth[10].boxes.tolist() == [[0, 10, 40, 60]]  # for training


def test_an_object_without_width_is_missed(tmp_path: Path):
    annotations = [
        {"image_id": 10, "category_id": 2, "bbox": box, "area": 100, "iscrowd": 0}
        for box in ([10, 10, 10, 10], [50, 50, 0, 10])
    ]
    results = [{"image_id": 10, "category_id": 2, "bbox": [10, 10, 10, 10], "score": 1}]
    files = write_files(tmp_path, annotations, results, 1, 1)
    data = files.source.load(Split.test)
    metrics = evaluate(data, read_detections(files.results, data))
    assert (metrics.voc10.map, metrics.coco.numbers["AR100"]) == (0.5, 0.5)
    assert len(data.ground_truth[10]) == 1  # type: ignore[index]


def test_equal_scores_are_in_the_order_of_the_file(tmp_path: Path):
    # The wrong box comes first in the file, and last in the order of boxes.
    annotations = [{"image_id": 10, "category_id": 2, "bbox": [10, 10, 20, 20], "area": 400, "iscrowd": 0}]
    results = [
        {"image_id": 10, "category_id": 2, "bbox": [x, 10, 20, 20], "score": score}
        for x, score in ((90, 0.5), (10, 0.5), (60, 0.9))
    ]
    files = write_files(tmp_path, annotations, results, 1, 1)
    data = files.source.load(Split.test)
    found = read_detections(files.results, data)
    assert found[10].boxes[:, 0].tolist() == [60, 90, 10]
    assert evaluate(data, found).voc10.map == pytest.approx(1 / 3)


# --- wrong arguments -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((None, {}), TypeError, "dataset: expected a Dataset, got NoneType; .*load_dataset"),
        (("my_voc", {}), TypeError, "dataset: expected a Dataset, got str"),
        ((dataset("a"), [cats()]), TypeError, "detections: expected a dict .*, got list; .*read_detections"),
        ((dataset("a"), cats()), TypeError, "detections: expected a dict .*, got Detections"),
        ((dataset("a"), None), TypeError, "detections: expected a dict .*, got NoneType"),
        ((dataset("a"), "found.json"), TypeError, "detections: expected a dict .*, got str"),
        ((dataset("a"), {"a": [[0, 0, 1, 1]]}), TypeError, "detections: expected Detections of image 'a', got list"),
        ((dataset("a"), {"a": None}), TypeError, "detections: expected Detections of image 'a', got NoneType"),
        ((dataset("a"), {"a": cats_gt([])}), TypeError, "expected Detections of image 'a', got GroundTruth"),
        ((dataset("a"), {"b": cats()}), ValueError, "detections: none of the 1 images"),
        ((dataset("a"), {("a", 1): cats()}), ValueError, "detections: none of the 1 images"),
        ((dataset("a", classes=("dog",)), {"a": detected(2)}), ValueError, r"detections of image a: .*1\.\.1, got 2"),
        ((dataset("a"), {"a": detected(0)}), ValueError, r"detections of image a: .*labels 1\.\.2, got 0"),
    ],
)
def test_a_wrong_argument_is_named(arguments: tuple[Any, Any], error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        evaluate(*arguments)


@pytest.mark.parametrize(
    ("value", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), ("9", TypeError), (True, TypeError)]
)
def test_a_wrong_max_dets_is_named(value: Any, error: type[Exception]):
    with pytest.raises(error, match="max_dets: expected"):
        evaluate(dataset("a"), {}, max_dets=value)


def test_objects_of_another_type_are_named():
    wrong = replace(dataset("a"), ground_truth={"a": [[0, 0, 9, 9]]})  # type: ignore[dict-item]
    with pytest.raises(TypeError, match="dataset: expected the GroundTruth of image 'a', got list"):
        evaluate(wrong, {})


def test_the_result_prints_as_a_table_and_has_numbers() -> None:
    found = evaluate(dataset("a", "b", classes=("cat", "<dog>")), {"a": cats()})
    assert str(found) == found.to_text()
    assert f"{found.voc10.map:.3f}" in repr(found)
    page = found._repr_html_()
    assert page.count("<tr>") == 4
    assert "&lt;dog&gt;" in page
    assert "<dog>" not in page
    assert f"{found.coco.numbers['AP50']:.3f}" in page
    coco = found.coco
    assert (coco.ap, coco.ap50, coco.ap75) == tuple(coco.numbers[name] for name in ("AP", "AP50", "AP75"))
    assert evaluate(dataset(), {})._repr_html_().count("<tr>") == 2 + len(dataset().classes)
