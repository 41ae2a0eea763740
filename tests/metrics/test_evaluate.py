"""All metrics together: what is written, what is warned of, what is refused."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest

from detpipe.metrics.coco_ap import COCO_NUMBERS
from detpipe.metrics.evaluate import evaluate
from detpipe.metrics.table import METRICS
from detpipe.structures import Dataset, Detections, GroundTruth, ImageId, ImageRecord


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


def cats_gt(boxes: list[list[float]]) -> GroundTruth:
    return GroundTruth.from_boxes(boxes, [1] * len(boxes))


def test_images_that_reach_max_dets_are_counted(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        evaluate(dataset("a", "b"), {"a": cats(3), "b": cats(2)}, max_dets=3)
    assert "1 of 2 images have the maximum of 3" in caplog.text
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
    with pytest.raises(ValueError, match="folder: has no annotations"):
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
