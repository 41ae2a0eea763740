"""COCO's numbers: by hand, and the same as pycocotools gives for the JSON file itself."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import math
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from detpipe.metrics.coco_ap import COCO_NUMBERS, CocoEvaluator, coco_ap
from detpipe.structures import Detections, GroundTruth

HAS_FASTER = importlib.util.find_spec("faster_coco_eval") is not None
EVALUATORS = [
    CocoEvaluator.PYCOCOTOOLS,
    pytest.param(
        CocoEvaluator.FASTER_COCO_EVAL,
        marks=pytest.mark.skipif(not HAS_FASTER, reason="faster-coco-eval is not installed"),
    ),
]
each = pytest.mark.parametrize("evaluator", EVALUATORS)
NO_DETECTIONS = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))


def one(box: list[float], score: float = 0.9, label: int = 1) -> Detections:
    return Detections(np.array([box], np.float32), np.array([score], np.float32), np.array([label], np.int64))


@each
def test_an_answer_by_hand(evaluator: CocoEvaluator, capsys: pytest.CaptureFixture[str]):
    # IoU 0.8: right at 0.5 ... 0.8, seven of the ten thresholds. The box has 40 x 40 pixels: medium.
    gt = {5: GroundTruth.from_boxes([[0, 0, 40, 40]], [1])}
    result = coco_ap(gt, {5: one([0, 0, 40, 32])}, ["cat", "dog"], evaluator=evaluator)
    want = {"AP": 0.7, "AP50": 1, "AP75": 1, "APm": 0.7, "AR1": 0.7, "AR10": 0.7, "AR100": 0.7, "ARm": 0.7}
    assert list(result.numbers) == list(COCO_NUMBERS)
    for name, value in result.numbers.items():
        assert value == pytest.approx(want.get(name, math.nan), nan_ok=True), name
    assert result.per_class["cat"] == pytest.approx(0.7)
    assert math.isnan(result.per_class["dog"])
    assert capsys.readouterr().out == ""


@each
def test_the_size_of_an_object_is_its_area_and_not_its_box(evaluator: CocoEvaluator):
    plain = GroundTruth.from_boxes([[0, 0, 40, 40]], [1])
    thin = GroundTruth(plain.boxes, plain.labels, plain.difficult, plain.crowd, np.array([100], np.float32))
    numbers = coco_ap({"a": thin}, {"a": one([0, 0, 40, 40])}, ["cat"], evaluator=evaluator).numbers
    assert numbers["ARs"] == pytest.approx(1)
    assert math.isnan(numbers["ARm"])


@each
def test_crowds_are_ignored(evaluator: CocoEvaluator):
    plain = GroundTruth.from_boxes([[0, 0, 40, 40], [100, 0, 300, 200]], [1, 1])
    gt = GroundTruth(plain.boxes, plain.labels, plain.difficult, np.array([False, True]), plain.areas)
    found = Detections(
        np.array([[120, 20, 160, 60], [0, 0, 40, 40]], np.float32),
        np.array([0.9, 0.8], np.float32),
        np.array([1, 1], np.int64),
    )
    assert coco_ap({"a": gt}, {"a": found}, ["cat"], evaluator=evaluator).numbers["AP"] == pytest.approx(1)


@each
def test_nothing_found_nothing_there_no_images(evaluator: CocoEvaluator):
    gt = {"a": GroundTruth.from_boxes([[0, 0, 40, 40]], [1])}
    for none in ({}, {"a": NO_DETECTIONS}):
        numbers = coco_ap(gt, none, ["cat"], evaluator=evaluator).numbers
        assert numbers["AP"] == 0
        assert numbers["AR100"] == 0
    empty = {"a": GroundTruth.from_boxes([], [])}
    assert all(map(math.isnan, coco_ap(empty, {}, ["cat"], evaluator=evaluator).numbers.values()))
    assert all(map(math.isnan, coco_ap(empty, {"a": one([0, 0, 9, 9])}, ["cat"], evaluator=evaluator).numbers.values()))
    assert all(map(math.isnan, coco_ap({}, {}, ["cat"], evaluator=evaluator).numbers.values()))
    assert coco_ap({}, {}, [], evaluator=evaluator).per_class == {}


def test_an_evaluator_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    gt = {"a": GroundTruth.from_boxes([[0, 0, 40, 40]], [1])}
    with pytest.raises(ModuleNotFoundError, match="fast-eval"):
        coco_ap(gt, {}, ["cat"], evaluator=CocoEvaluator.FASTER_COCO_EVAL)
    assert coco_ap(gt, {}, ["cat"]).numbers["AP"] == 0


def test_labels_beyond_the_classes_are_refused():
    with pytest.raises(ValueError, match=r"expected labels 1\.\.1, got 2"):
        coco_ap({"a": GroundTruth.from_boxes([], [])}, {"a": one([0, 0, 1, 1], label=2)}, ["cat"])


# --- against pycocotools reading the file -----------------------------------------------------------------------


def jittered(content: dict, seed: int) -> list[dict]:
    """A result list: the objects moved about, some with another class, some twice, and boxes of nothing."""
    rng = np.random.default_rng(seed)
    categories = [category["id"] for category in content["categories"]]
    rows = []
    for annotation in content["annotations"]:
        x, y, width, height = annotation["bbox"]
        for _ in range(rng.integers(0, 3)):
            moved = np.array([x, y, width, height]) + rng.normal(0, 0.12, 4) * [width, height, width, height]
            own = annotation["category_id"]
            label = own if rng.random() < 0.85 else int(rng.choice(categories))
            # Quarter pixels are exact in float32, so both ways see the same boxes.
            box = np.maximum(np.round(moved * 4) / 4, [0, 0, 0.25, 0.25]).tolist()
            score = float(np.float32(rng.random()))
            rows.append({"image_id": annotation["image_id"], "category_id": label, "bbox": box, "score": score})
    return rows


def pycocotools_alone(path: Path, rows: list[dict]) -> np.ndarray:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(path))
        run = COCOeval(coco, coco.loadRes(rows), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return np.asarray(run.stats)


@each
def test_the_same_as_pycocotools_with_the_file(shared_data: Path, evaluator: CocoEvaluator):
    path = shared_data / "coco_val" / "instances.json"
    content = json.loads(path.read_text())
    rows = jittered(content, seed=3)

    categories = sorted(content["categories"], key=lambda category: category["id"])
    label_of = {category["id"]: k for k, category in enumerate(categories, start=1)}
    objects, found = defaultdict(list), defaultdict(list)
    for annotation in content["annotations"]:
        objects[annotation["image_id"]].append(annotation)
    for row in rows:
        found[row["image_id"]].append(row)

    def corners(items: list[dict]) -> np.ndarray:
        boxes = np.array([item["bbox"] for item in items], np.float64).reshape(-1, 4)
        return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1).astype(np.float32)

    gt, ours = {}, {}
    for image in content["images"]:
        here = objects[image["id"]]
        gt[image["id"]] = GroundTruth(
            boxes=corners(here),
            labels=np.array([label_of[item["category_id"]] for item in here], np.int64),
            difficult=np.zeros(len(here), np.bool_),
            crowd=np.array([item["iscrowd"] for item in here], np.bool_),
            areas=np.array([item["area"] for item in here], np.float32),
        )
        there = sorted(found[image["id"]], key=lambda row: -row["score"])
        ours[image["id"]] = Detections(
            boxes=corners(there),
            scores=np.array([row["score"] for row in there], np.float32),
            labels=np.array([label_of[row["category_id"]] for row in there], np.int64),
        )
    result = coco_ap(gt, ours, [category["name"] for category in categories], evaluator=evaluator)
    want = pycocotools_alone(path, rows)
    assert 0.05 < want[0] < 0.95
    assert list(result.numbers.values()) == pytest.approx(want.tolist(), abs=1e-12)
    assert np.nanmean(list(result.per_class.values())) == pytest.approx(want[0])
