"""The settings that a detector was measured with: kept beside its classifier, taken where nothing else is said."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_module

from detpipe import Detector
from detpipe.classify.classifier_folder import DESCRIPTION, ClassifierError
from detpipe.classify.settings import (
    CropScoringConfig,
    DetectConfig,
    FastRcnnScoringConfig,
    FeatureScoringConfig,
)
from detpipe.commands.detector_settings import Curve, Export
from detpipe.commands.stage_settings import Detect
from detpipe.config import APPLICATIONS, register, to_command
from detpipe.network.settings import Precision
from detpipe.runs.detect_settings import (
    FILE,
    KeptSettings,
    carry_settings,
    keep_settings,
    kept_detect_settings,
    kept_settings,
)
from detpipe.storage.atomic import write_json
from tests import drawn
from tests.command_line import detpipe

MEASURED = DetectConfig(
    nms_iou=0.5,
    vote_iou=0.75,
    max_proposals=600,
    fast_rcnn=FastRcnnScoringConfig(scales=[320, 480]),
    features=FeatureScoringConfig(refine=40),
)


def keep(folder: Path, detect: DetectConfig, *, replace: bool = False) -> None:
    keep_settings(folder, KeptSettings(detect=detect), replace=replace)


def kept(folder: Path) -> DetectConfig:
    return kept_settings(folder).detect


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A run folder whose detector was measured as MEASURED, and has nothing else."""
    folder = tmp_path / "run"
    (folder / "classifier").mkdir(parents=True)
    keep(folder / "classifier", MEASURED)
    return folder


def test_they_come_back(run_dir: Path) -> None:
    assert kept(run_dir / "classifier") == MEASURED


def test_the_first_ones_stay_unless_replaced(run_dir: Path) -> None:
    other = DetectConfig(nms_iou=0.1)
    keep(run_dir / "classifier", other)
    assert kept(run_dir / "classifier") == MEASURED
    keep(run_dir / "classifier", other, replace=True)
    assert kept(run_dir / "classifier") == other


def test_what_a_machine_needs_is_not_kept_but_the_precision_is(tmp_path: Path) -> None:
    keep_settings(tmp_path, KeptSettings(detect=DetectConfig(batch_size=7, compile=True), precision=Precision.bf16))
    assert kept_settings(tmp_path) == KeptSettings(precision=Precision.bf16)


def test_an_unmeasured_detector_has_none(tmp_path: Path) -> None:
    assert kept_detect_settings(tmp_path) == {}
    assert kept_settings(tmp_path) == KeptSettings()
    (tmp_path / "new").mkdir()
    carry_settings(tmp_path, tmp_path / "new")
    assert list((tmp_path / "new").iterdir()) == []


def test_they_are_carried_to_what_is_made_of_it(run_dir: Path, tmp_path: Path) -> None:
    old = run_dir / "classifier"
    for folder in (old, tmp_path):
        write_json(folder / DESCRIPTION, {"kind": "frozen"})
    carry_settings(old, tmp_path)
    assert kept(tmp_path) == MEASURED


@pytest.mark.parametrize(("now", "precision"), [(False, Precision.float32), (True, Precision.auto)])
def test_a_head_on_features_of_another_precision_takes_theirs(now: bool, precision: Precision, tmp_path: Path) -> None:
    for name, bf16 in (("old", False), ("new", now)):
        write_json(tmp_path / name / DESCRIPTION, {"kind": "features", "extraction": {"bf16": bf16}})
    keep_settings(tmp_path / "old", KeptSettings(detect=DetectConfig(nms_iou=0.5), precision=Precision.float32))
    carry_settings(tmp_path / "old", tmp_path / "new")
    assert kept_settings(tmp_path / "new") == KeptSettings(detect=DetectConfig(nms_iou=0.5), precision=precision)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        (DESCRIPTION, '{"kind": "other"}', ""),
        (DESCRIPTION, "{", DESCRIPTION),
        (FILE, "{", FILE),
    ],
)
def test_what_suits_no_more_is_left(
    name: str, text: str, said: str, run_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old = run_dir / "classifier"
    for folder in (old, tmp_path):
        write_json(folder / DESCRIPTION, {"kind": "frozen"})
    (old / name).write_text(text)
    carry_settings(old, tmp_path)
    assert not (tmp_path / FILE).exists()
    assert said in caplog.text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "a JSON object"),
        ("[1]", "a JSON object"),
        ("3", "a JSON object"),
        ('{"precision": "half"}', "half"),
        ('{"nms_iou": 0.5}', "nms_iou"),
        ('{"detect": 3}', "detect"),
        ('{"detect": {"nms": 0.5}}', "nms"),
        ('{"detect": {"nms_iou": 2}}', "nms_iou"),
        ('{"detect": {"nms_iou": "much"}}', "nms_iou"),
        ('{"detect": {"fast_rcnn": {"scales": [3]}}}', "scales"),
        ('{"detect": {"fast_rcnn": {"flips": true}}}', "flips"),
    ],
)
def test_a_broken_file_is_named(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(ClassifierError, match=rf"(?s)detect\.json: .*{said}.*delete it to use the defaults"):
        kept_detect_settings(tmp_path)


def as_said(command: type, run_dir: Path, *overrides: str) -> DetectConfig:
    """The settings of detection that a command works with."""
    register()
    (name,) = (name for name, row in APPLICATIONS.items() if row.load_settings() is command)
    words = [f"run_dir={run_dir}", *overrides]
    with initialize_config_module("detpipe.conf", version_base="1.3"):
        found: DetectConfig = to_command(compose(name, words), words).detect
        # The defaults of the next command are its own again.
        assert to_command(compose(name, ["run_dir=nowhere"]), ["run_dir=nowhere"]).detect == DetectConfig()
    return found


def test_new_images_are_looked_at_as_the_test_images_were(run_dir: Path) -> None:
    assert as_said(Detect, run_dir, "source=photos") == MEASURED
    assert as_said(Detect, run_dir) == MEASURED


def test_the_command_line_wins_even_with_the_default(run_dir: Path) -> None:
    found = as_said(Detect, run_dir, "detect.nms_iou=0.3", "detect.features.refine=0")
    assert (found.nms_iou, found.features.refine, found.vote_iou) == (0.3, 0, 0.75)
    assert as_said(Detect, run_dir, "detect={}") == DetectConfig()


@pytest.mark.parametrize("value", [0.4, 0.3])
@pytest.mark.parametrize("package", ["_global_", "detect"])
def test_an_experiment_wins_even_with_the_default(value: float, package: str, run_dir: Path, tmp_path: Path) -> None:
    """What a file sets, at whatever place of it, by itself or by a preset that it takes."""
    preset = {"_global_": f"detect:\n  nms_iou: {value}\n", "detect": f"nms_iou: {value}\n"}[package]
    folder = tmp_path / "experiment"
    folder.mkdir()
    (folder / "base.yaml").write_text(f"# @package {package}\n{preset}")
    (folder / "mine.yaml").write_text("# @package _global_\ndefaults:\n  - base\ndetect:\n  vote_iou: null\n")
    found = as_said(Detect, run_dir, "experiment=mine", f"hydra.searchpath=[file://{tmp_path}]")
    assert (found.nms_iou, found.vote_iou, found.max_proposals) == (value, None, 600)


@pytest.mark.parametrize("processor_has_bf16", [False, True])
def test_a_detector_keeps_its_precision(
    processor_has_bf16: bool, fast_run: Path, voc_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """auto is what the first processor has, and then the same on every other, unless another one is asked for."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: processor_has_bf16)
    run = tmp_path / "run"
    for name in ("classifier", "proposals.lmdb"):
        shutil.copytree(fast_run / name, run / name)
    (run / "classifier" / FILE).unlink()
    more = (*drawn.voc(voc_root), "workers=0", "device=cpu", f"run_dir={run}")
    assert detpipe("detect", *more).status == 0
    first = Precision.bf16 if processor_has_bf16 else Precision.float32
    other = Precision.float32 if processor_has_bf16 else Precision.bf16
    assert kept_settings(run / "classifier").precision is first

    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: not processor_has_bf16)
    made = (run / "detections.json").stat().st_mtime_ns
    for words in ([], ["precision=auto"], ["detect={}"]):  # nothing to do
        again = detpipe("detect", *more, *words)
        assert (again.status, (run / "detections.json").stat().st_mtime_ns) == (0, made), again.err
    refused = detpipe("detect", *more, f"precision={other.value}")
    assert (refused.status, f"precision: {first.value} -> {other.value}" in refused.err) == (1, True)
    assert detpipe("curve", *more, "budgets=[5]", "resamples=0").status == 0
    assert json.loads((run / "curve.json").read_text())["precision"] == first.value
    for config in (None, DetectConfig(score_floor=0.5)):
        assert Detector.from_run(run, device="cpu", config=config).precision is first
    assert Detector.from_run(run, device="cpu", precision=other.value).precision is other


def test_what_a_command_refuses_is_not_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "classifier").mkdir()
    choosing = DetectConfig(
        nms_iou=0.5,
        dedup_step=16,
        crops=CropScoringConfig(cascade_size=64, cascade_keep=100),
        features=FeatureScoringConfig(refine=40),
    )
    keep(tmp_path / "classifier", choosing)
    left_out = "detect.dedup_step=16 detect.crops.cascade_size=64 detect.crops.cascade_keep=100"
    assert as_said(Curve, tmp_path) == DetectConfig(nms_iou=0.5)
    assert f"can't use are left out: {left_out} detect.features.refine=40" in caplog.text
    caplog.clear()
    assert as_said(Export, tmp_path) == DetectConfig(nms_iou=0.5, features=choosing.features)
    assert caplog.messages[0].endswith(f"can't use are left out: {left_out}")
    caplog.clear()
    assert as_said(Detect, tmp_path) == choosing
    assert "left out" not in caplog.text


def test_a_detector_is_used_as_it_was_measured(fast_run: Path, voc_root: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    for name in ("classifier", "proposals.lmdb"):
        shutil.copytree(fast_run / name, run / name)
    (run / "classifier" / FILE).unlink()
    more = (*drawn.voc(voc_root), *drawn.settings("detect"), f"run_dir={run}")
    assert detpipe("detect", *more, "detect.nms_iou=0.9", "detect.max_detections=7").status == 0
    measured = json.loads((run / "detections.json").read_text())
    assert detpipe("detect", *more, "detect.nms_iou=0.1", "overwrite=true").status == 0
    assert json.loads((run / "detections.json").read_text()) != measured
    again = detpipe("detect", *more, "overwrite=true")
    assert "detect.nms_iou=0.9 detect.max_detections=7" in again.out + again.err
    assert json.loads((run / "detections.json").read_text()) == measured
    detector = Detector.from_run(run, device="cpu")
    assert (detector.config.nms_iou, detector.config.max_detections) == (0.9, 7)


def test_a_run_says_its_own(run_copy: Path, voc_root: Path) -> None:
    for name in ("detections.json", "detections.manifest.json"):
        (run_copy / name).unlink()
    again = detpipe("run", *drawn.voc(voc_root), *drawn.settings("run"), f"run_dir={run_copy}", "detect.nms_iou=0.6")
    assert again.status == 0, again.err
    assert kept(run_copy / "classifier").nms_iou == 0.6
