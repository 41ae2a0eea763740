"""`detpipe eval` of detections that others made."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest

from detpipe.diagnosis.causes import Cause
from detpipe.diagnosis.false_detections import FalseType
from detpipe.report.run.reasons import kind_name
from tests import drawn
from tests.command_line import detpipe


def perfect(voc_root: Path) -> list[dict[str, object]]:
    """The objects of the test images themselves, as detections."""
    found: list[dict[str, object]] = []
    for number, name in enumerate(drawn.TEST, start=len(drawn.TRAIN)):
        truth = drawn.draw(number)[1]
        for (x1, y1, x2, y2), label in zip(truth.boxes.tolist(), truth.labels.tolist(), strict=True):
            found.append({"image_id": name, "category_id": label, "bbox": [x1, y1, x2 - x1, y2 - y1], "score": 0.9})
    return found


def evaluate(voc_root: Path, file: Path, run_dir: Path) -> dict[str, dict[str, float]]:
    outcome = detpipe("eval", *drawn.voc(voc_root), f"detections={file}", f"run_dir={run_dir}")
    assert outcome.status == 0, outcome.err
    metrics: dict[str, dict[str, float]] = json.loads((run_dir / "metrics.json").read_text())
    return metrics


@pytest.mark.parametrize("image_id", ["{name}", "{name}.jpg"])
def test_others_detections_in_an_empty_folder(voc_root: Path, tmp_path: Path, image_id: str) -> None:
    file = tmp_path / "theirs.json"
    named = [{**one, "image_id": image_id.format(name=one["image_id"])} for one in perfect(voc_root)]
    file.write_text(json.dumps(named))
    metrics = evaluate(voc_root, file, tmp_path / "run")
    assert metrics["voc07"]["map"] == pytest.approx(1)
    assert metrics["voc10"]["map"] == pytest.approx(1)
    assert metrics["coco"]["AP"] == pytest.approx(1)
    assert list(metrics["seconds"]) == ["eval"]
    assert (tmp_path / "run" / "report.html").is_file()
    assert not (tmp_path / "run" / "detections.json").exists()


def test_half_of_the_objects(voc_root: Path, tmp_path: Path) -> None:
    file = tmp_path / "theirs.json"
    file.write_text(json.dumps([one for one in perfect(voc_root) if one["category_id"] == 2]))
    metrics = evaluate(voc_root, file, tmp_path)
    assert metrics["voc10"]["per_class"] == {"disc": 0.0, "square": pytest.approx(1)}
    assert metrics["voc10"]["map"] == pytest.approx(0.5)


def test_no_detections_at_all(voc_root: Path, tmp_path: Path) -> None:
    file = tmp_path / "theirs.json"
    file.write_text("[]")
    metrics = evaluate(voc_root, file, tmp_path)
    assert metrics["voc10"]["map"] == 0
    assert metrics["coco"]["AP"] == 0


def test_coco_ids(voc_root: Path, tmp_path: Path) -> None:
    dataset = drawn.write_coco(tmp_path / "coco", voc_root)
    file = tmp_path / "theirs.json"
    found = [
        {
            **one,
            "image_id": 100 + drawn.TEST.index(str(one["image_id"])),
            "category_id": drawn.COCO_IDS["disc" if one["category_id"] == 1 else "square"],
        }
        for one in perfect(voc_root)
    ]
    file.write_text(json.dumps(found))
    outcome = detpipe("eval", *dataset, f"detections={file}", f"run_dir={tmp_path / 'run'}")
    assert outcome.status == 0, outcome.err
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["coco"]["AP"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (None, "expected a file of detections"),
        ("{", "expected COCO results in JSON"),
        ('[{"image_id": "zebra", "category_id": 1, "bbox": [0, 0, 1, 1], "score": 1}]', "image_id 'zebra'"),
        ('[{"image_id": "test_0", "category_id": 9, "bbox": [0, 0, 1, 1], "score": 1}]', "category_id 9"),
    ],
)
def test_what_is_no_result_file(voc_root: Path, tmp_path: Path, content: str | None, named: str) -> None:
    file = tmp_path / "theirs.json"
    if content is not None:
        file.write_text(content)
    outcome = detpipe("eval", *drawn.voc(voc_root), f"detections={file}", f"run_dir={tmp_path / 'run'}")
    assert outcome.status == 1
    assert f"detpipe eval: {file}" in outcome.err
    assert named in outcome.err
    assert "Traceback" not in outcome.err
    assert not (tmp_path / "run" / "metrics.json").exists()


def test_a_data_set_without_boxes(voc_root: Path, tmp_path: Path) -> None:
    file = tmp_path / "theirs.json"
    file.write_text("[]")
    images = ["dataset=images", f"dataset.root={voc_root / 'JPEGImages'}", "dataset.classes=[disc,square]"]
    outcome = detpipe("eval", *images, f"detections={file}", f"run_dir={tmp_path}")
    assert outcome.status == 0, outcome.err
    assert "no annotations" in outcome.err
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["voc10"] == {"map": None, "per_class": {"disc": None, "square": None}}


@pytest.mark.parametrize(
    ("name", "content", "key"),
    [
        ("recall.json", "[1, 2]", "recall.json"),
        ("recall.json", '{"10": {"ar": "high"}}', "ar"),
        ("recall.json", '{"ten": {"ar": 0.5}}', "ten"),
        ("recall.json", '{"10": 0.5}', "10"),
        ("check.json", '{"findings": []}', "counts"),
        ("check.json", '{"counts": {"duplicate image": "many"}}', "duplicate image"),
        ("check.json", '{"counts": 3}', "counts"),
        ("object_traces.json", '{"dataset": 3, "images": []}', "dataset"),
        ("object_traces.json", '{"images": []}', "dataset"),
        ("classifier/log.jsonl", "[]\n", "log.jsonl:1"),
        ("classifier/operating_point.json", "{", None),
    ],
)
def test_damaged_files_of_the_run_are_named_and_left_out(
    run_copy: Path, voc_root: Path, name: str, content: str, key: str | None
) -> None:
    (run_copy / name).write_text(content)
    outcome = detpipe("eval", *drawn.voc(voc_root), f"run_dir={run_copy}")
    assert outcome.status == 0, outcome.err
    assert "Traceback" not in outcome.err
    if key is not None:
        (line,) = [line for line in outcome.err.splitlines() if "not on the page" in line]
        assert str(run_copy / name) in line
        assert key in line


def test_traces_of_other_numbers_of_objects_are_named(run_copy: Path, voc_root: Path) -> None:
    path = run_copy / "object_traces.json"
    content = json.loads(path.read_text())
    fewer = [{name: column[:1] for name, column in one.items()} for one in content["images"]]
    for images in (content["images"][:1], fewer, [{"by": [0]}] * 4):
        path.write_text(json.dumps({**content, "images": images}))
        outcome = detpipe("eval", *drawn.voc(voc_root), f"run_dir={run_copy}")
        assert outcome.status == 0, outcome.err
        assert "object_traces.json: " in outcome.err


@pytest.mark.parametrize(("key", "value"), [("size", 10**6), ("size", "large"), ("context_pad", -1)])
def test_a_damaged_classifier_json_is_one_sentence(run_copy: Path, voc_root: Path, key: str, value: object) -> None:
    path = run_copy / "classifier" / "classifier.json"
    content = json.loads(path.read_text())
    content["crops"][key] = value
    path.write_text(json.dumps(content))
    for command in ("eval", "detect"):
        outcome = detpipe(command, *drawn.voc(voc_root), f"run_dir={run_copy}", "overwrite=true")
        assert outcome.status == 1
        last = outcome.err.strip().splitlines()[-1]
        assert str(path) in last
        assert key in last
        assert "Traceback" not in outcome.err


def test_the_report_has_the_causes_of_blame(run_copy: Path, voc_root: Path) -> None:
    data = [*drawn.voc(voc_root), f"run_dir={run_copy}"]
    assert detpipe("eval", *data).status == 0
    report = (run_copy / "report.html").read_text("utf-8")
    assert "Why it fails" in report
    assert f"detpipe blame run_dir={run_copy}" in report
    quick = ["second_opinion=none", "classify_objects=false", "resamples=0"]
    outcome = detpipe("blame", *data, *quick)
    assert outcome.status == 0, outcome.err
    blamed = json.loads((run_copy / "blame.json").read_text("utf-8"))
    assert detpipe("eval", *data).status == 0
    report = (run_copy / "report.html").read_text("utf-8")
    assert '<a href="blame.html">' in report
    assert f"{blamed['n_missed']} of {blamed['n_objects']} objects are missed" in report
    found = [(kind_name(Cause(name)), n) for name, n in blamed["missed"].items()]
    found += [(kind_name(FalseType(name)), n) for name, n in blamed["false"].items()]
    for words, n in found:
        assert f"{n} {words}" in report or not n
    # A page of earlier detections is not linked.
    os.utime(run_copy / "blame.html", (1, 1))
    assert detpipe("eval", *data).status == 0
    assert '<a href="blame.html">' not in (run_copy / "report.html").read_text("utf-8")


def test_the_report_tells_the_facts_of_explain_under_each_missed_object(run_copy: Path, voc_root: Path) -> None:
    path = run_copy / "detections.json"
    kept = [one for one in json.loads(path.read_text()) if one["image_id"] != drawn.TEST[0]]
    path.write_text(json.dumps(kept))
    assert detpipe("eval", *drawn.voc(voc_root), f"run_dir={run_copy}").status == 0
    report = (run_copy / "report.html").read_text("utf-8")
    block = re.search(r'<script type="application/json" id="page-data">(.*?)</script>', report, re.DOTALL)
    assert block is not None
    data = json.loads(block[1])
    told = 0
    for image in data["images"]:
        out = detpipe("explain", str(run_copy), f"image={image['name']}").out
        for row in image["objects"]:
            facts = [data["texts"][text] for text in row[9:]]
            if len(row) > 7 and row[6] < data["threshold"]:
                told += 1
                assert {one.partition(" ")[0] for one in facts} >= {"Best", "Threshold:", "Change:"}
            assert [one for one in facts if f"\n  {one}\n" not in f"{out}\n"] == []
    assert told


@pytest.mark.parametrize("missing", ["all", "one"])
@pytest.mark.parametrize("form", ["voc", "coco"])
def test_without_image_files(voc_root: Path, tmp_path: Path, form: str, missing: str) -> None:
    """The numbers are those with the files, and the pages say why there are no pictures."""
    root = tmp_path / "set"
    shutil.copytree(voc_root, root)
    dataset = drawn.voc(root) if form == "voc" else drawn.write_coco(tmp_path / "coco", root)
    file = tmp_path / "theirs.json"
    ids = {name: name if form == "voc" else f"{name}.jpg" for name in drawn.TEST}
    classes = {1: 1, 2: 2} if form == "voc" else {1: drawn.COCO_IDS["disc"], 2: drawn.COCO_IDS["square"]}
    half = [
        {**one, "image_id": ids[str(one["image_id"])], "category_id": classes[int(str(one["category_id"]))]}
        for one in perfect(voc_root)[::2]
    ]
    file.write_text(json.dumps(half))
    files = sorted(path for path in root.rglob("test_*.jpg"))
    assert len(files) == len(drawn.TEST)
    results = []
    for run in ("with", "without"):
        outcome = detpipe("eval", *dataset, f"detections={file}", f"run_dir={tmp_path / run}")
        assert outcome.status == 0, outcome.err
        metrics = json.loads((tmp_path / run / "metrics.json").read_text())
        results.append({**metrics, "seconds": None})
        for path in files if missing == "all" else files[:1]:
            path.unlink(missing_ok=True)
    assert results[0] == results[1]
    pages = [(tmp_path / run / "report.html").read_text() for run in ("with", "without")]
    said = "The image files are missing" if missing == "all" else "1 of 4 images are missing"
    assert [said in page for page in pages] == [False, True]
    assert ("data:image/jpeg" in pages[1]) == (missing == "one")
    assert "have no file" in outcome.err
    outcome = detpipe("blame", *dataset, f"detections={file}", f"run_dir={tmp_path / 'blame'}")
    assert outcome.status == 0, outcome.err
    assert (said in (tmp_path / "blame/blame.html").read_text()) or missing == "one"
    # Detection still needs the files.
    assert detpipe("propose", *dataset, f"run_dir={tmp_path / 'new'}", "proposals=uniform").status == 1


def test_a_coco_file_without_images_and_sizes(tmp_path: Path) -> None:
    """As COCO's own example of results, the annotations of 100 images; one image has no size."""
    images = [{"id": number, "file_name": f"{number}.jpg", "height": 20, "width": 30} for number in range(100)]
    annotations = [
        {"id": n + 1, "image_id": n, "category_id": 1, "bbox": [1, 2, 10, 10], "area": 100, "iscrowd": 0}
        for n in range(100)
    ]
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "cat"}]}
    (tmp_path / "instances_val2014.json").write_text(json.dumps(content))
    found = [{"image_id": n, "category_id": 1, "bbox": [1, 2, 10, 10], "score": 0.5} for n in range(100)]
    (tmp_path / "results.json").write_text(json.dumps(found))
    words = [f"detections={tmp_path / 'results.json'}", f"run_dir={tmp_path / 'run'}"]
    for dataset in (
        [f"dataset.root={tmp_path / 'instances_val2014.json'}"],
        ["dataset=coco", f"dataset.test_json={tmp_path / 'instances_val2014.json'}"],
    ):
        outcome = detpipe("eval", *dataset, *words)
        assert outcome.status == 0, outcome.err
        assert "100 of 100 images have no file" in outcome.err
        assert json.loads((tmp_path / "run/metrics.json").read_text())["coco"]["AP"] == pytest.approx(1)
    for image in images[:2]:
        del image["height"]
    (tmp_path / "instances_val2014.json").write_text(json.dumps(content))
    outcome = detpipe("eval", *dataset, *words)
    assert outcome.status == 1
    assert "2 of 100 images can't be used" in outcome.err
