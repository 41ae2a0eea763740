"""`detpipe export` on finished runs: what is written and what is refused; and the page's program that runs it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from detpipe import Detector
from detpipe.classify.fast_rcnn.scorer import FastRcnnScorer
from detpipe.commands.export import refuse_other_stages
from detpipe.heads.fast_rcnn.network import FastRcnn
from detpipe.network.settings import Precision
from detpipe.runs.detect_settings import KeptSettings, keep_settings
from detpipe.runs.run_folder import RunFolder
from detpipe.runs.run_proposer import proposer_of_run
from detpipe.storage.manifest import Artefact, ArtefactError
from tests import drawn
from tests.command_line import detpipe
from tests.test_docs import ROOT, blocks_of

PAGE = ROOT / "docs" / "deploy.md"
OURS = "skip tests/commands/test_export.py"


@pytest.fixture(scope="module")
def exported(fast_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fast R-CNN as ONNX, where the page has it: runs/fast/export of this folder. Read only."""
    pytest.importorskip("onnxruntime")
    folder = tmp_path_factory.mktemp("exported")
    out = folder / "runs/fast/export"
    outcome = detpipe("export", f"run_dir={fast_run}", f"out={out}")
    assert outcome.status == 0, outcome.err
    assert "largest difference" in outcome.out + outcome.err
    return out


def test_the_description_is_enough_to_use_it(exported: Path, fast_run: Path) -> None:
    told = json.loads((exported / "detector.json").read_text())
    assert told["classes"] == list(drawn.CLASSES)
    assert (told["kind"], told["scaling"]) == ("fast_rcnn", {"scales": [96], "max_side": 640, "flip": False})
    assert told["proposals"] == proposer_of_run(RunFolder(fast_run)).describe()
    assert told["detect"]["nms_iou"] == 0.3
    assert told["precision"] == "float32"
    assert [one["name"] for one in told["outputs"]] == ["probabilities", "deltas"]
    assert {path.name for path in exported.iterdir()} == {"detector.onnx", "detector.json", "manifest.json"}


def test_the_pages_program_finds_what_the_detector_finds(
    exported: Path, fast_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = exported.parents[2]
    drawn.write_jpeg(place / "photos/one.jpg", drawn.draw(100)[0])
    monkeypatch.chdir(place)
    page = ModuleType("page")
    for block in blocks_of(PAGE, PAGE.read_text("utf-8")):
        if block.mark.startswith(OURS):
            exec(compile("\n" * block.line + block.text, str(PAGE), "exec"), page.__dict__)
    detector = Detector.from_run(fast_run, device="cpu")
    assert isinstance(detector.scorer.network, FastRcnn)
    once = FastRcnnScorer(
        detector.scorer.network,
        scales=[96],
        max_side=640,
        flip=False,
        refine=0,
        device=torch.device("cpu"),
        bf16=False,
        compiled=False,
    )
    detector = dataclasses.replace(detector, scorer=once)
    (wanted,) = detector.predict_many([(page.image, page.boxes)])  # type: ignore[attr-defined]
    rows = page.detect(page.image, page.boxes)  # type: ignore[attr-defined]
    assert len(rows) == len(wanted) > 0
    np.testing.assert_allclose([row[4] for row in rows], wanted.scores, atol=1e-3)
    np.testing.assert_allclose([row[:4] for row in rows[:5]], wanted.boxes[:5], atol=0.1)
    assert {row[5] for row in rows} <= set(drawn.CLASSES)


def test_a_second_call_does_nothing_and_another_setting_is_named(exported: Path, fast_run: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in exported.iterdir()}
    outcome = detpipe("export", f"run_dir={fast_run}", f"out={exported}")
    assert outcome.status == 0, outcome.err
    other = detpipe("export", f"run_dir={fast_run}", f"out={exported}", "detect.nms_iou=0.4")
    assert (other.status, "detect.nms_iou: 0.3 -> 0.4" in other.err) == (1, True)
    assert {path: path.stat().st_mtime_ns for path in exported.iterdir()} == before


def test_an_exported_network_computes_in_float32(finished_run: Path, tmp_path: Path) -> None:
    """What was measured in bf16 is exported with a warning. There is no setting for it."""
    run = drawn.copy(finished_run, tmp_path / "run")
    keep_settings(run / "classifier", KeptSettings(precision=Precision.bf16), replace=True)
    outcome = detpipe("export", f"run_dir={run}", "format=torch")
    assert outcome.status == 0, outcome.err
    assert "were computed in bf16" in outcome.out + outcome.err
    refused = detpipe("export", f"run_dir={run}", "format=torch", "precision=bf16")
    assert (refused.status, "precision" in refused.err) == (1, True), refused.err


def test_crops_as_a_program_of_torch(finished_run: Path, tmp_path: Path) -> None:
    outcome = detpipe("export", f"run_dir={finished_run}", f"out={tmp_path / 'out'}", "format=torch")
    assert outcome.status == 0, outcome.err
    told = json.loads((tmp_path / "out" / "detector.json").read_text())
    assert (told["file"], told["kind"], told["crops"]["size"]) == ("detector.pt2", "crops", 32)
    assert told["inputs"] == [{"name": "crops", "dtype": "uint8", "shape": ["crops", 32, 32, 3]}]


@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("", "holds the run's own classifier"),
        ("classifier", "the run's own classifier"),
        ("proposals.lmdb", "propose`"),
    ],
)
def test_nothing_of_a_run_is_written_over(fast_run: Path, out: str, said: str) -> None:
    outcome = detpipe("export", f"run_dir={fast_run}", f"out={fast_run / out}", "format=torch", "overwrite=true")
    assert (outcome.status, said in outcome.err) == (1, True), outcome.err
    assert (fast_run / "classifier/weights.safetensors").is_file()


@pytest.mark.parametrize("setting", ["detect.dedup_step=16", "detect.crops.cascade_size=32"])
def test_settings_that_no_file_can_have_are_refused(fast_run: Path, tmp_path: Path, setting: str) -> None:
    outcome = detpipe("export", f"run_dir={fast_run}", f"out={tmp_path / 'out'}", setting)
    assert (outcome.status, setting in outcome.err) == (1, True), outcome.err
    assert not (tmp_path / "out").exists()


def test_no_classifier(tmp_path: Path) -> None:
    outcome = detpipe("export", f"run_dir={tmp_path}", "format=torch")
    assert (outcome.status, "found no classifier.json" in outcome.err) == (1, True)
    assert list(tmp_path.iterdir()) == []


def test_a_broken_manifest_of_an_export_is_made_anew(tmp_path: Path) -> None:
    artefact = Artefact(tmp_path, stage="export", settings={}, inputs={})
    for name in ("manifest.json", "detector.json", "detector.onnx"):
        (tmp_path / name).write_text("{")
    with pytest.raises(ArtefactError, match="overwrite=true"):
        refuse_other_stages(artefact, overwrite=False)
    refuse_other_stages(artefact, overwrite=True)
    (tmp_path / "data.mdb").write_text("of something else")
    with pytest.raises(ArtefactError, match=r"other files \(data\.mdb\); move it away, or give another folder as out="):
        refuse_other_stages(artefact, overwrite=True)
