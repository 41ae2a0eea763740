"""Fast R-CNN by the command line, on the drawn data set: the whole flow without crops."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from detpipe import Detector
from detpipe.storage.manifest import read_manifest
from tests import drawn
from tests.command_line import detpipe
from tests.commands.test_run import bytes_of


def arguments(voc_root: Path, run_dir: Path, *more: str) -> list[str]:
    return ["run", *drawn.voc(voc_root), *drawn.settings("run", *drawn.FAST_RCNN, *more), f"run_dir={run_dir}"]


def test_the_run_needs_no_crops(fast_run: Path) -> None:
    assert not (fast_run / "crops.lmdb").exists()
    for name in ("proposals.lmdb", "classifier", "detections.json"):
        assert read_manifest(fast_run / name).complete
    metrics = json.loads((fast_run / "metrics.json").read_text())
    assert list(metrics["seconds"]) == ["propose", "train-cls", "detect", "eval"]
    assert json.loads((fast_run / "classifier" / "classifier.json").read_text())["kind"] == "fast_rcnn"
    assert "fast_rcnn" in (fast_run / "report.html").read_text()


def test_a_second_run_does_nothing(fast_run: Path, voc_root: Path, tmp_path: Path) -> None:
    run = drawn.copy(fast_run, tmp_path / "run")
    before = bytes_of(run)
    outcome = detpipe(*arguments(voc_root, run))
    assert outcome.status == 0, outcome.err
    assert bytes_of(run) == before


@pytest.mark.parametrize(
    ("override", "named"),
    [("head.hidden=12", "head.hidden: 16 -> 12"), ("sampling.fg_iou=0.6", "sampling.fg_iou: 0.5 -> 0.6")],
)
def test_a_changed_setting_is_refused_by_name(fast_run: Path, voc_root: Path, override: str, named: str) -> None:
    outcome = detpipe(*arguments(voc_root, fast_run, override))
    assert outcome.status == 1
    assert named in outcome.err


@pytest.mark.parametrize("processor_has_bf16", [False, True])
def test_python_and_the_command_line_detect_the_same(
    processor_has_bf16: bool, fast_run: Path, voc_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run detected in float32: that stays, whatever the processor has."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: processor_has_bf16)
    detector = Detector.from_run(fast_run, device="cpu")
    found = detector.predict(voc_root / "JPEGImages" / f"{drawn.TEST[0]}.jpg")
    stored = [one for one in json.loads((fast_run / "detections.json").read_text()) if one["image_id"] == drawn.TEST[0]]
    assert len(stored) == len(found) > 0
    assert [one["category_id"] for one in stored] == found.labels.tolist()
    np.testing.assert_allclose([one["score"] for one in stored], found.scores, atol=1e-5)


def test_what_inspect_can_and_cannot_look_into(fast_run: Path, tmp_path: Path) -> None:
    """Any weights; activations of what runs on an image alone."""
    run = drawn.copy(fast_run, tmp_path / "run")
    seen = detpipe("inspect", "weights", f"run_dir={run}")
    assert seen.status == 0, seen.err
    assert "fc1.weight" in (run / "inspect_weights.json").read_text()
    refused = detpipe("inspect", "activations", f"run_dir={run}")
    assert refused.status == 1
    assert "(head=fast_rcnn)" in refused.err
    assert "backbone.weights=" in refused.err


def test_multi_scale_detection_is_another_result(fast_run: Path, voc_root: Path, tmp_path: Path) -> None:
    run = drawn.copy(fast_run, tmp_path / "run")
    detect = [
        "detect",
        *drawn.voc(voc_root),
        *drawn.settings("detect"),
        f"run_dir={run}",
        "detect.fast_rcnn.scales=[64,96]",
    ]
    refused = detpipe(*detect)
    assert refused.status == 1
    assert "detect.fast_rcnn.scales" in refused.err
    assert detpipe(*detect, "detect.fast_rcnn.flip=true", "overwrite=true").status == 0


def test_scales_are_no_setting_of_a_classifier_of_crops(finished_run: Path, voc_root: Path, tmp_path: Path) -> None:
    run = drawn.copy(finished_run, tmp_path / "run")
    outcome = detpipe(
        *["detect", *drawn.voc(voc_root), *drawn.settings("detect"), f"run_dir={run}"],
        *["detect.fast_rcnn.scales=[64]", "overwrite=true"],
    )
    assert outcome.status == 1
    assert "detect.fast_rcnn.scales needs" in outcome.err
