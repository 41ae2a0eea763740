"""`detpipe export` on finished runs: what is written and what is refused; and the page's programs that run it."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from detpipe import Detector, OnnxDetector
from detpipe.classify.export.graph_file import compare
from detpipe.commands.detector_settings import Export, Quantize
from detpipe.commands.export import calibration_files, keep_operating_point, refuse_other_stages
from detpipe.network.settings import Precision
from detpipe.runs.detect_settings import KeptSettings, keep_settings
from detpipe.runs.run_folder import RunFolder
from detpipe.runs.run_proposer import proposer_of_run
from detpipe.storage.manifest import Artefact, ArtefactError, read_manifest
from detpipe.structures import Detections
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
    assert "100.0 % equal the detector's" in outcome.out + outcome.err
    return out


def test_the_description_is_enough_to_use_it(exported: Path, fast_run: Path) -> None:
    import onnxruntime

    told = json.loads((exported / "detector.json").read_text())
    assert told["classes"] == list(drawn.CLASSES)
    assert (told["kind"], told["needs_boxes"], told["opset"]) == ("fast_rcnn", True, 18)
    assert told["proposals"] == proposer_of_run(RunFolder(fast_run)).describe()
    assert told["detect"]["nms_iou"] == 0.3
    assert told["precision"] == "float32"
    assert {path.name for path in exported.iterdir()} == {
        *("detector.onnx", "detector.json", "manifest.json", "operating_point.json", "README.md")
    }
    session = onnxruntime.InferenceSession(exported / told["file"], providers=["CPUExecutionProvider"])
    for stated, there in ((told["inputs"], session.get_inputs()), (told["outputs"], session.get_outputs())):
        assert [(one["name"], one["shape"]) for one in stated] == [(one.name, one.shape) for one in there]


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_the_pages_program_finds_what_the_detector_finds(exported: Path, fast_run: Path, engine: str) -> None:
    """In a process of its own: openvino closes the file in which pytest captures the output."""
    pytest.importorskip("onnxruntime")
    if importlib.util.find_spec(engine) is None:
        pytest.skip(f"{engine} is not installed")
    place = exported.parents[2]
    drawn.write_jpeg(place / "photos/one.jpg", drawn.draw(100)[0])
    (block,) = [
        block
        for block in blocks_of(PAGE, PAGE.read_text("utf-8"))
        if block.mark.startswith(OURS) and f"import {engine}" in block.text
    ]
    keep = (
        'import numpy\nnumpy.savez("found.npz", boxes=boxes, scores=scores, labels=labels, given=given["proposals"])\n'
    )
    subprocess.run([sys.executable, "-c", block.text + keep], cwd=place, check=True, capture_output=True)
    with np.load(place / "found.npz") as kept:
        found, given = Detections(kept["boxes"], kept["scores"], kept["labels"]), kept["given"]
    wanted = Detector.from_run(fast_run, device="cpu", precision="float32").predict(place / "photos/one.jpg", given)
    assert len(wanted) > 0
    assert compare([(wanted, found)]).share == 1


def test_an_onnx_detector_finds_what_the_detector_finds(exported: Path, fast_run: Path, voc_root: Path) -> None:
    path = voc_root / "JPEGImages" / f"{drawn.TEST[0]}.jpg"
    detector = Detector.from_run(fast_run, device="cpu", precision="float32")
    carried = OnnxDetector(exported, threads=1)
    wanted, found = detector(path), carried(path)
    assert len(wanted) > 0
    assert compare([(wanted, found)]).share == 1
    assert (carried.classes, found.floor) == (detector.classes, wanted.floor)


def test_the_threshold_of_a_later_evaluation_comes_with_the_next_call(fast_run: Path, exported: Path) -> None:
    config = Export(run_dir=str(fast_run), out=str(exported))
    kept = exported / "operating_point.json"
    before = kept.read_bytes()
    kept.unlink()
    keep_operating_point(config)
    assert kept.read_bytes() == before == (fast_run / "classifier/operating_point.json").read_bytes()


def test_a_second_call_does_nothing_and_another_setting_is_named(exported: Path, fast_run: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in exported.iterdir()}
    outcome = detpipe("export", f"run_dir={fast_run}", f"out={exported}")
    assert outcome.status == 0, outcome.err
    other = detpipe("export", f"run_dir={fast_run}", f"out={exported}", "detect.nms_iou=0.4")
    assert (other.status, "detect.nms_iou: 0.3 -> 0.4" in other.err) == (1, True)
    assert {path: path.stat().st_mtime_ns for path in exported.iterdir()} == before


@pytest.mark.slow
def test_an_exported_network_computes_in_float32(finished_run: Path, tmp_path: Path) -> None:
    """What was measured in bf16 is exported with a warning. There is no setting for it."""
    run = drawn.copy(finished_run, tmp_path / "run")
    keep_settings(run / "classifier", KeptSettings(precision=Precision.bf16), replace=True)
    outcome = detpipe("export", f"run_dir={run}")
    assert outcome.status == 0, outcome.err
    assert "were computed in bf16" in outcome.out + outcome.err
    refused = detpipe("export", f"run_dir={run}", "precision=bf16")
    assert (refused.status, "precision" in refused.err) == (1, True), refused.err


def test_int8_is_calibrated_on_training_images(fast_run: Path) -> None:
    """Evenly spaced ones."""
    config = Export(run_dir=str(fast_run), quantize=Quantize.int8, calibration_images=4)
    names = [path.stem for path in calibration_files(config)]
    assert names == [drawn.TRAIN[row] for row in (0, 3, 6, 9)]


def test_test_images_are_left_out_of_a_calibration_folder(
    fast_run: Path, voc_root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Others of the same name stay. A test image alone is refused."""
    images = voc_root / "JPEGImages"
    config = Export(run_dir=str(fast_run), quantize=Quantize.int8, calibration=str(images))
    assert [path.stem for path in calibration_files(config)] == sorted(drawn.TRAIN)
    assert "left out 4 of the 14 images" in caplog.text
    for name in drawn.TEST:
        drawn.write_jpeg(tmp_path / "tested" / f"{name}.jpg", drawn.draw(0)[0])
    assert len(calibration_files(replace(config, calibration=str(tmp_path / "tested")))) == len(drawn.TEST)
    with pytest.raises(ValueError, match="calibration=DIR"):
        calibration_files(replace(config, calibration=str(images / f"{drawn.TEST[0]}.jpg")))


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"size": [480]}, "size"),
        ({"size": [480, 2]}, "size"),
        ({"batch": 2}, "batch"),
        ({"size": [64, 64], "batch": -1}, "batch"),
    ],
)
def test_sizes_that_no_graph_has_are_refused(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=f"^{named}: expected"):
        Export(run_dir="run", **settings)


@pytest.mark.slow
def test_a_fixed_size_and_a_batch_of_a_run(fast_run: Path, voc_root: Path, tmp_path: Path) -> None:
    """Images of the size of the graph: the same detections as of the detector."""
    pytest.importorskip("onnxruntime")
    outcome = detpipe("export", f"run_dir={fast_run}", f"out={tmp_path}", "size=[120,160]", "batch=2")
    assert outcome.status == 0, outcome.err
    assert "100.0 % equal the detector's" in outcome.out + outcome.err
    carried, detector = (
        OnnxDetector(tmp_path, threads=1),
        Detector.from_run(fast_run, device="cpu", precision="float32"),
    )
    paths = [voc_root / "JPEGImages" / f"{name}.jpg" for name in drawn.TEST[:3]]
    assert compare(zip(detector.predict_batch(paths), carried.predict_batch(paths), strict=True)).share == 1


@pytest.mark.slow
def test_int8_of_a_run(fast_run: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    outcome = detpipe("export", f"run_dir={fast_run}", f"out={tmp_path}", "quantize=int8", "calibration_images=2")
    assert outcome.status == 0, outcome.err
    summary = read_manifest(tmp_path).summary
    assert summary["calibrated_on"] == [f"{drawn.TRAIN[row]}.jpg" for row in (0, 9)]
    told = json.loads((tmp_path / "detector.json").read_text())
    assert (told["quantize"], told["calibration"]) == ("int8", {"images": 2, "folder": None})
    model = onnx.load(tmp_path / "detector.onnx")
    assert "QuantizeLinear" in {node.op_type for node in model.graph.node}
    assert len(OnnxDetector(tmp_path, threads=1).predict(drawn.draw(100)[0])) > 0


@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("", "holds the run's own classifier"),
        ("classifier", "the run's own classifier"),
        ("proposals.lmdb", "propose`"),
    ],
)
def test_nothing_of_a_run_is_written_over(fast_run: Path, out: str, said: str) -> None:
    outcome = detpipe("export", f"run_dir={fast_run}", f"out={fast_run / out}", "overwrite=true")
    assert (outcome.status, said in outcome.err) == (1, True), outcome.err
    assert (fast_run / "classifier/weights.safetensors").is_file()


@pytest.mark.parametrize("setting", ["detect.dedup_step=16", "detect.crops.cascade_size=32"])
def test_settings_that_no_file_can_have_are_refused(fast_run: Path, tmp_path: Path, setting: str) -> None:
    outcome = detpipe("export", f"run_dir={fast_run}", f"out={tmp_path / 'out'}", setting)
    assert (outcome.status, setting in outcome.err) == (1, True), outcome.err
    assert not (tmp_path / "out").exists()


def test_no_classifier(tmp_path: Path) -> None:
    outcome = detpipe("export", f"run_dir={tmp_path}")
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
