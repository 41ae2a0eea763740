"""The whole flow on a drawn data set: its artefacts, and what a second run does."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest

from detpipe.metrics import coco_ap, table
from detpipe.storage.manifest import read_manifest
from tests import drawn
from tests.command_line import detpipe

COCO_NUMBERS = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]
STAGES = ["propose", "crop", "train-cls", "detect", "eval"]


def bytes_of(folder: Path) -> dict[str, bytes]:
    """The contents of all files that stages make, by path; not of logs, of lock files and of what eval writes anew."""
    written_anew = {"metrics.json", "report.html", "check.json", "detpipe.log", "lock.mdb"}
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in written_anew and ".hydra" not in path.parts
    }


def test_the_run_makes_every_artefact(finished_run: Path) -> None:
    for name in ("check.json", "recall.json", "detections.json", "metrics.json", "report.html"):
        assert (finished_run / name).is_file(), name
    for name in ("proposals.lmdb", "crops.lmdb", "crops_val.lmdb", "classifier", "detections.json"):
        manifest = read_manifest(finished_run / name)
        assert manifest.complete
        assert manifest.seconds >= 0
        assert manifest.bad == []
    assert not (finished_run / "detections.lmdb").exists()
    assert (finished_run / "detpipe.log").read_text().count("propose: 14 images") >= 1


def test_crops_are_what_the_settings_say(finished_run: Path) -> None:
    train, val = (read_manifest(finished_run / name).summary for name in ("crops.lmdb", "crops_val.lmdb"))
    assert train["images"] + val["images"] == 10
    assert val["images"] >= 1
    assert train["crops"] == 16 * train["images"]
    assert train["labels"].keys() == {"background", "disc", "square"}
    assert train["labels"]["background"] == 12 * train["images"]  # fg_share is a quarter


def test_metrics_have_the_contracts_keys(finished_run: Path) -> None:
    metrics = json.loads((finished_run / "metrics.json").read_text())
    assert list(metrics) == ["voc07", "voc10", "coco", "best_f1", "seconds"]
    for name in ("voc07", "voc10"):
        assert list(metrics[name]) == ["map", "per_class"]
        assert list(metrics[name]["per_class"]) == ["disc", "square"]
        assert metrics[name]["map"] == pytest.approx(sum(metrics[name]["per_class"].values()) / 2)
    assert list(metrics["coco"]) == COCO_NUMBERS
    assert metrics["coco"]["APs"] is None  # no object is that small
    assert list(metrics["seconds"]) == STAGES
    assert all(isinstance(seconds, float) for seconds in metrics["seconds"].values())


def test_detections_are_cocos_results(finished_run: Path) -> None:
    detections = json.loads((finished_run / "detections.json").read_text())
    assert len(detections) > 8
    for one in detections:
        assert list(one) == ["image_id", "category_id", "bbox", "score"]
        assert one["image_id"] in drawn.TEST  # the stems, for a VOC folder
        assert one["category_id"] in (1, 2)
        x, y, width, height = one["bbox"]
        assert x >= 0
        assert y >= 0
        assert width > 0
        assert height > 0
        assert x + width <= 160.01
        assert y + height <= 120.01
        assert 0.01 <= one["score"] <= 1
    for name in drawn.TEST:
        scores = [one["score"] for one in detections if one["image_id"] == name]
        assert scores == sorted(scores, reverse=True)
        assert len(scores) <= 100


def test_recall_by_number_of_proposals(finished_run: Path) -> None:
    recall = json.loads((finished_run / "recall.json").read_text())
    assert list(recall) == ["10", "100", "500", "1000", "2000"]
    for numbers in recall.values():
        assert set(numbers) == {"recall@0.5", "recall@0.7", "abo", "mabo", "ar"}
    assert recall["100"]["recall@0.5"] == 1.0  # eight plain objects on noise
    assert recall["2000"] == recall["100"]  # there are only 60


def test_check_has_the_contracts_form(finished_run: Path) -> None:
    check = json.loads((finished_run / "check.json").read_text())
    assert check == {"findings": [], "counts": {}}


def test_the_page_shows_the_run(finished_run: Path) -> None:
    page = (finished_run / "report.html").read_text()
    assert page.startswith("<!DOCTYPE html>")
    for word in ("disc", "square", "opencv_single", *STAGES):
        assert word in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page


def test_a_second_run_does_nothing(run_copy: Path, voc_root: Path) -> None:
    arguments = [*drawn.voc(voc_root), *drawn.settings("run"), f"run_dir={run_copy}"]
    before, metrics = bytes_of(run_copy), json.loads((run_copy / "metrics.json").read_text())
    times = {name: (run_copy / name).stat().st_mtime_ns for name in before}
    outcome = detpipe("run", *arguments)
    assert outcome.status == 0, outcome.err
    assert bytes_of(run_copy) == before
    assert {name: (run_copy / name).stat().st_mtime_ns for name in before} == times
    again = json.loads((run_copy / "metrics.json").read_text())
    for stage in STAGES[:-1]:  # eval is quick, and is done anew
        assert again["seconds"][stage] == metrics["seconds"][stage]
    assert {**again, "seconds": 0} == {**metrics, "seconds": 0}


def test_verbose_says_what_is_found_and_read(run_copy: Path, voc_root: Path) -> None:
    words = ("run", *drawn.voc(voc_root), *drawn.settings("run"), f"run_dir={run_copy}")
    assert "DEBUG" not in detpipe(*words).err
    outcome = detpipe(*words, "-v")
    assert outcome.status == 0, outcome.err
    debug = [line.split(" DEBUG ")[1] for line in outcome.err.splitlines() if " DEBUG " in line]
    modules = {line.split(":")[0] for line in debug}
    assert modules >= {f"detpipe.{name}" for name in ("storage.manifest", "network.device", "datasets.source")}
    for name in ("proposals.lmdb", "crops.lmdb", "classifier", "detections.json"):
        digest = read_manifest(run_copy / name).digest
        assert any(f"{run_copy / name}: is complete, key {digest}" in line for line in debug), name
    assert len(debug) >= 10
    assert "DEBUG" not in outcome.out


def test_a_metric_that_does_not_exist_is_told_before_any_work(
    voc_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(table.METRICS, "mine", "detpipe.metrics.no_such_module:mine")
    outcome = detpipe("run", *drawn.voc(voc_root), *drawn.settings("run"), f"run_dir={tmp_path / 'run'}")
    assert outcome.status == 1
    assert "no_such_module" in outcome.err
    assert not (tmp_path / "run" / "proposals.lmdb").exists()


def test_a_broken_coco_package_is_told_before_any_work(
    voc_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coco_ap, "_code", mock.Mock(side_effect=ImportError("libc++ is missing")))
    outcome = detpipe("run", *drawn.voc(voc_root), *drawn.settings("run"), f"run_dir={tmp_path / 'run'}")
    assert outcome.status == 1
    assert "expected pycocotools or faster-coco-eval, got an error (libc++ is missing)" in outcome.err
    assert not (tmp_path / "run" / "proposals.lmdb").exists()


def test_how_the_work_is_watched_or_shared_out_is_no_other_setting(run_copy: Path, voc_root: Path) -> None:
    more = ["workers=1", "solver.display=1", "solver.snapshot=2", "solver.test_interval=1"]
    before = bytes_of(run_copy)
    outcome = detpipe("run", *drawn.voc(voc_root), *drawn.settings("run", *more), f"run_dir={run_copy}")
    assert outcome.status == 0, outcome.err
    assert bytes_of(run_copy) == before


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("proposals.max_proposals=50", "proposals.max_proposals: 60 -> 50"),
        ("sampling.fg_iou=0.6", "sampling.fg_iou: 0.5 -> 0.6"),
        ("solver.base_lr=0.1", "solver.base_lr: 0.0005 -> 0.1"),
        ("detect.nms_iou=0.5", "detect.nms_iou: 0.3 -> 0.5"),
        ("seed=3", "seed: 0 -> 3"),
    ],
)
def test_a_changed_setting_is_refused_by_name(run_copy: Path, voc_root: Path, override: str, named: str) -> None:
    before = bytes_of(run_copy)
    arguments = [*drawn.voc(voc_root), *drawn.settings("run", override), f"run_dir={run_copy}"]
    outcome = detpipe("run", *arguments)
    assert outcome.status == 1
    assert named in outcome.err
    assert "overwrite=true" in outcome.err
    assert "Traceback" not in outcome.err
    assert bytes_of(run_copy) == before


def test_changed_test_annotations_need_a_new_evaluation_only(run_copy: Path, voc_root: Path, tmp_path: Path) -> None:
    """Those of training images are refused: see tests/runs/test_dataset_record.py."""
    other = drawn.copy(voc_root, tmp_path / "drawn")
    annotation = other / "Annotations" / "test_0.xml"
    annotation.write_text(annotation.read_text().replace("disc", "square"))
    kept = ("proposals.lmdb/data.mdb", "classifier/weights.safetensors", "detections.json")
    times = {name: (run_copy / name).stat().st_mtime_ns for name in kept}
    metrics = json.loads((run_copy / "metrics.json").read_text())
    outcome = detpipe("run", *drawn.voc(other), *drawn.settings("run"), f"run_dir={run_copy}")
    assert outcome.status == 0, outcome.err
    assert {name: (run_copy / name).stat().st_mtime_ns for name in kept} == times
    assert json.loads((run_copy / "metrics.json").read_text())["voc10"] != metrics["voc10"]


def test_overwrite_makes_it_anew(run_copy: Path, voc_root: Path) -> None:
    before = bytes_of(run_copy)
    more = ["proposals.max_proposals=50", "solver.max_iter=2", "overwrite=true"]
    outcome = detpipe("run", *drawn.voc(voc_root), *drawn.settings("run", *more), f"run_dir={run_copy}")
    assert outcome.status == 0, outcome.err
    after = bytes_of(run_copy)
    for name in ("proposals.lmdb/data.mdb", "crops.lmdb/data.mdb", "classifier/weights.safetensors", "detections.json"):
        assert after[name] != before[name], name
    assert read_manifest(run_copy / "classifier").settings["solver"]["max_iter"] == 2


def test_each_command_goes_on_from_the_one_before(finished_run: Path, voc_root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "steps"
    for command in STAGES:
        outcome = detpipe(command, *drawn.voc(voc_root), *drawn.settings(command), f"run_dir={folder}")
        assert outcome.status == 0, outcome.err
    step_by_step, at_once = bytes_of(folder), bytes_of(finished_run)
    for name in ("classifier/weights.safetensors", "detections.json", "recall.json"):
        assert step_by_step[name] == at_once[name], name
    # The same key, so that `run` takes over what the commands made.
    for name in ("proposals.lmdb", "crops.lmdb", "classifier", "detections.json"):
        assert read_manifest(folder / name).digest == read_manifest(finished_run / name).digest
    outcome = detpipe("run", *drawn.voc(voc_root), *drawn.settings("run"), f"run_dir={folder}")
    assert outcome.status == 0, outcome.err
    assert bytes_of(folder) == step_by_step


@pytest.mark.parametrize(
    ("command", "lacking"),
    [("crop", "proposals.lmdb"), ("train-cls", "crops.lmdb"), ("detect", "classifier"), ("eval", "detections.json")],
)
def test_a_command_without_the_one_before(command: str, lacking: str, voc_root: Path, tmp_path: Path) -> None:
    outcome = detpipe(command, *drawn.voc(voc_root), *drawn.settings(command), f"run_dir={tmp_path / 'empty'}")
    assert outcome.status == 1
    assert lacking in outcome.err
    assert "Traceback" not in outcome.err


def test_the_seed_changes_the_outcome(run_copy: Path, voc_root: Path) -> None:
    before = bytes_of(run_copy)
    arguments = [*drawn.settings("train-cls"), *drawn.voc(voc_root), f"run_dir={run_copy}", "overwrite=true"]
    assert detpipe("train-cls", *arguments).status == 0
    assert bytes_of(run_copy)["classifier/weights.safetensors"] == before["classifier/weights.safetensors"]
    assert detpipe("train-cls", *arguments, "seed=1").status == 0
    assert bytes_of(run_copy)["classifier/weights.safetensors"] != before["classifier/weights.safetensors"]


def test_coco_files(finished_run: Path, voc_root: Path, tmp_path: Path) -> None:
    dataset = drawn.write_coco(tmp_path / "coco", voc_root)
    # No baseline but the objects: what is looked at here is the form.
    more = [*dataset, "proposals=ground_truth", "workers=0", "device=cpu", "sampling.val_share=0"]
    tiny = [one for one in drawn.TINY if one.split(".")[0] in ("crops", "backbone", "solver", "detect")]
    outcome = detpipe("run", *more, *tiny, "precision=float32", f"run_dir={tmp_path / 'run'}")
    assert outcome.status == 0, outcome.err
    detections = json.loads((tmp_path / "run" / "detections.json").read_text())
    assert {one["image_id"] for one in detections} <= {100, 101, 102, 103}
    assert {one["category_id"] for one in detections} <= set(drawn.COCO_IDS.values())
    assert len(detections) >= 8
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert set(metrics["voc10"]["per_class"]) == {"disc", "square"}
    # Its ids are not 1..K, so a label taken for an id would meet another class or none.
    pycocotools_sees = {one["id"] for one in json.loads((tmp_path / "coco" / "test.json").read_text())["categories"]}
    assert {one["category_id"] for one in detections} <= pycocotools_sees


@pytest.mark.parametrize("annotations", [[], None])
def test_a_coco_test_file_without_boxes(voc_root: Path, tmp_path: Path, annotations: list[object] | None) -> None:
    dataset = drawn.write_coco(tmp_path / "coco", voc_root)
    file = tmp_path / "coco" / "test.json"
    content = json.loads(file.read_text())
    del content["annotations"]
    file.write_text(json.dumps(content if annotations is None else {**content, "annotations": annotations}))
    outcome = detpipe("run", *dataset, *drawn.settings("run"), f"run_dir={tmp_path / 'run'}")
    assert outcome.status == 0, outcome.err
    assert json.loads((tmp_path / "run" / "detections.json").read_text())
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["voc10"] == {"map": None, "per_class": {"square": None, "disc": None}}
    assert metrics["coco"] == dict.fromkeys(COCO_NUMBERS)


def test_lists_and_objects_that_are_not_there_are_missed_first(voc_root: Path, tmp_path: Path) -> None:
    """Before any work is done."""
    train = drawn.write_coco(tmp_path / "coco", voc_root)[:3]
    for words, said in (
        (["dataset=images", f"dataset.root={voc_root / 'JPEGImages'}"], "got only images for test; check dataset.root"),
        ([*train, "dataset.test_share=0"], "got only images for train"),
        ([*drawn.voc(voc_root), "dataset.classes=[disc,hexagon]", "head=svm"], "got none of ['hexagon']"),
    ):
        outcome = detpipe("run", *words, *drawn.settings("run"), f"run_dir={tmp_path / 'run'}")
        assert outcome.status == 1
        assert said in outcome.err
        assert "Traceback" not in outcome.err
        assert not (tmp_path / "run" / "proposals.lmdb").exists()


@pytest.mark.parametrize(
    ("change", "kind", "remedy"),
    [
        (lambda x, y, w, h: [x / 1e4, y / 1e4, w / 1e4, h / 1e4], "relative_boxes", "multiply x and width"),
        (lambda x, y, w, h: [x, y, x + w, y + h], "corner_boxes", "write x2 - x1"),
        (lambda x, y, w, h: [x, y, w / 1e3, h / 1e3], "too_many_tiny", "dataset.max_bad"),
    ],
)
def test_boxes_in_other_units_stop_the_run(
    voc_root: Path, tmp_path: Path, change: Callable[..., list[float]], kind: str, remedy: str
) -> None:
    dataset = drawn.write_coco(tmp_path / "coco", voc_root)
    file = tmp_path / "coco" / "train.json"
    content = json.loads(file.read_text())
    for one in content["annotations"]:
        one["bbox"] = change(*one["bbox"])
    file.write_text(json.dumps(content))
    outcome = detpipe("run", *dataset, *drawn.settings("run"), f"run_dir={tmp_path / 'run'}")
    assert outcome.status == 1
    assert kind in outcome.err
    assert remedy in outcome.err.splitlines()[-1]
    assert not (tmp_path / "run" / "proposals.lmdb").exists()


def test_a_class_without_objects_is_named_and_the_run_goes_on(voc_root: Path, tmp_path: Path) -> None:
    words = ["dataset.classes=[disc,hexagon]", "experiment=rcnn_frozen", "head.networks=1", "features.image_sides=[64]"]
    outcome = detpipe("run", *drawn.voc(voc_root), *drawn.settings("run", *words), f"run_dir={tmp_path}")
    assert outcome.status == 0, outcome.err
    assert "no training objects of hexagon" in outcome.err


def test_chosen_classes(voc_root: Path, tmp_path: Path) -> None:
    dataset = [*drawn.voc(voc_root), "dataset.classes=[square]"]
    outcome = detpipe("run", *dataset, *drawn.settings("run"), f"run_dir={tmp_path}")
    assert outcome.status == 0, outcome.err
    assert {one["category_id"] for one in json.loads((tmp_path / "detections.json").read_text())} == {1}
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert list(metrics["voc10"]["per_class"]) == ["square"]
    labels = read_manifest(tmp_path / "crops.lmdb").summary["labels"]
    assert labels.keys() == {"background", "square"}


@pytest.mark.parametrize("override", ["source=photo.jpg", "detections=found.json"])
def test_what_belongs_to_one_command_is_refused(voc_root: Path, tmp_path: Path, override: str) -> None:
    outcome = detpipe("run", *drawn.voc(voc_root), override, f"run_dir={tmp_path}")
    assert outcome.status == 1
    assert override.split("=")[0] in outcome.err
    assert not (tmp_path / "proposals.lmdb").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["backbone.name=torchvision/vit_b_16"], r"set crops\.size=224"),
        (["backbone.name=torchvision/vit_b_16", "head=svm"], r"set crops\.size=224"),
        (["head=fast_rcnn", "backbone.name=torchvision/vit_b_16"], r"head\.maps.*choose other maps or another network"),
        (["head=fast_rcnn", "head.freeze_stages=99"], r"head\.freeze_stages: expected 0 to"),
        (["head=zero_shot"], r"set head\.vectors=FILE\.npy"),
    ],
)
def test_a_backbone_or_head_that_can_not_work_is_named_before_any_work(
    voc_root: Path, tmp_path: Path, words: list[str], sentence: str
) -> None:
    small = [word for word in drawn.settings("run") if not word.startswith(("head", "backbone"))]
    run_dir = tmp_path / "run"
    done = detpipe("run", *drawn.voc(voc_root), *small, "backbone.weights=none", *words, f"run_dir={run_dir}")
    assert done.status == 1
    assert re.search(sentence, done.err)
    assert not (run_dir / "proposals.lmdb").exists()
