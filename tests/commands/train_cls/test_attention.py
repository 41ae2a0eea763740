"""head.attention by the command line, on drawn images: training, detection, export, and what is refused."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from detpipe import Detector
from detpipe.classify.export.graph_file import LEAST_AGREEMENT, compare
from detpipe.classify.settings import Duplicates, FastRcnnScoringConfig
from detpipe.runs.detect_settings import kept_settings
from detpipe.structures import Detections
from tests import drawn
from tests.command_line import detpipe
from tests.commands.tiny_networks import BACKBONE, COMMON, DETECTION, OWN_PRIORS, TRAINING, net_in


@pytest.fixture(scope="module")
def trained(voc_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run. Read only: copy what is to be changed."""
    folder = tmp_path_factory.mktemp("attention") / "run"
    outcome = detpipe(
        *["run", *drawn.voc(voc_root), "experiment=multibox_fast_rcnn", *COMMON, *BACKBONE],
        *[net_in(folder.parent), *TRAINING, *OWN_PRIORS, *DETECTION, "proposals.max_proposals=30"],
        *["head.attention=1", "head.denoise=1", f"run_dir={folder}"],
    )
    assert outcome.status == 0, outcome.err
    return folder


def test_python_gives_what_the_command_gave(trained: Path, voc_root: Path) -> None:
    stored = json.loads((trained / "detections.json").read_text())
    detector = Detector.from_run(trained, device="cpu", precision="float32")
    for name in drawn.TEST:
        found = detector.predict(voc_root / "JPEGImages" / f"{name}.jpg")
        own = [one for one in stored if one["image_id"] == name]
        assert len(own) == len(found) > 0
        assert [one["category_id"] for one in own] == found.labels.tolist()
        np.testing.assert_allclose([one["score"] for one in own], found.scores, atol=1e-4)


@pytest.mark.parametrize("duplicates", ["learned", "both"])
def test_the_same_weights_without_nms(trained: Path, voc_root: Path, tmp_path: Path, duplicates: str) -> None:
    run = drawn.copy(trained, tmp_path / "run")
    outcome = detpipe(
        *["detect", *drawn.voc(voc_root), *COMMON, *DETECTION, f"detect.fast_rcnn.duplicates={duplicates}"],
        *["detect.score_floor=0", "overwrite=true", f"run_dir={run}"],
    )
    assert outcome.status == 0, outcome.err
    before, after = (json.loads((one / "detections.json").read_text()) for one in (trained, run))
    assert len(after) > 0
    assert max(one["score"] for one in after) < max(one["score"] for one in before)
    assert kept_settings(run / "classifier") == kept_settings(trained / "classifier")


def test_a_curve_is_refused(trained: Path, voc_root: Path) -> None:
    refused = detpipe("curve", *drawn.voc(voc_root), *COMMON, f"run_dir={trained}")
    assert refused.status == 1
    assert "head.attention=1" in refused.err, refused.err


PROGRAM = """
import sys, numpy
from detpipe import OnnxDetector
found = OnnxDetector(sys.argv[1], runtime=sys.argv[2], threads=1)(sys.argv[3])
numpy.savez(sys.argv[4], boxes=found.boxes, scores=found.scores, labels=found.labels)
"""


@pytest.mark.slow
def test_the_exported_file_finds_what_the_detector_finds(trained: Path, voc_root: Path, tmp_path: Path) -> None:
    """Each runtime in a process of its own: openvino closes the file in which pytest captures the output.

    A network that has hardly learned gives many scores that differ only in their last bits, so their order may differ.
    """
    pytest.importorskip("onnxruntime")
    out, photo = tmp_path / "export", voc_root / "JPEGImages" / f"{drawn.TEST[0]}.jpg"
    settings = ("detect.fast_rcnn.duplicates=both", "detect.score_floor=0.0001")
    outcome = detpipe("export", f"run_dir={trained}", f"out={out}", *settings)
    assert outcome.status == 0, outcome.err
    assert json.loads((out / "detector.json").read_text())["detect"]["duplicates"] == "both"
    both = FastRcnnScoringConfig(duplicates=Duplicates.both)
    config = replace(kept_settings(trained / "classifier").detect, score_floor=0.0001, fast_rcnn=both)
    wanted = Detector.from_run(trained, device="cpu", config=config, precision="float32")(photo)
    assert len(wanted) > 0
    for runtime in ("onnxruntime", "openvino"):
        if importlib.util.find_spec(runtime) is None:
            continue
        kept = tmp_path / f"{runtime}.npz"
        subprocess.run([sys.executable, "-c", PROGRAM, out, runtime, photo, kept], check=True)
        with np.load(kept) as one:
            found = Detections(one["boxes"], one["scores"], one["labels"])
        assert compare([(wanted, found)]).share >= LEAST_AGREEMENT, runtime


@pytest.mark.parametrize("chosen", [(), ("layer=1", "attention_head=2", "detections=1", "regions=3")])
def test_which_regions_a_detection_attended_to(
    trained: Path, voc_root: Path, tmp_path: Path, chosen: tuple[str, ...]
) -> None:
    name = drawn.TEST[0]
    outcome = detpipe(
        *["inspect", "attention", *drawn.voc(voc_root), *COMMON, f"image={name}", f"run_dir={trained}"],
        *[f"out={tmp_path}", *chosen],
    )
    assert outcome.status == 0, outcome.err
    found = json.loads((tmp_path / "inspect_attention.json").read_text())["detections"]
    stored = [one for one in json.loads((trained / "detections.json").read_text()) if one["image_id"] == name]
    assert len(found) == (1 if chosen else 4)
    for one, own in zip(found, stored, strict=False):
        assert one["score"] == pytest.approx(own["score"], abs=1e-4)
        weights = [region["weight"] for region in one["regions"]]
        assert weights == sorted(weights, reverse=True)
        assert len(weights) == (3 if chosen else 8)
        assert 0 < one["own"] + sum(weights) <= 1.001
    assert cv2.imread(str(tmp_path / "inspect_attention.png")).shape[1] > 600
    by_file = detpipe(
        *["inspect", "attention", *COMMON, f"image={voc_root / 'JPEGImages' / name}.jpg", f"run_dir={trained}"],
        *[f"out={tmp_path}", *chosen],
    )
    assert by_file.status == 0, by_file.err
    assert json.loads((tmp_path / "inspect_attention.json").read_text())["detections"] == found


@pytest.mark.parametrize(("setting", "most"), [("layer=2", 1), ("attention_head=5", 4)])
def test_a_layer_that_is_not_there(trained: Path, voc_root: Path, setting: str, most: int) -> None:
    shown = ("inspect", "attention", *drawn.voc(voc_root), *COMMON, f"image={drawn.TEST[0]}")
    refused = detpipe(*shown, f"run_dir={trained}", setting)
    assert refused.status == 1
    assert f"{setting.partition('=')[0]}: expected 1 to {most}" in refused.err


def test_a_detector_without_attention(finished_run: Path, voc_root: Path) -> None:
    refused = detpipe(
        *["inspect", "attention", *drawn.voc(voc_root), *COMMON, f"image={drawn.TEST[0]}", f"run_dir={finished_run}"]
    )
    assert refused.status == 1
    assert "head.attention" in refused.err
    refused = detpipe("inspect", "attention", *drawn.voc(voc_root), *COMMON, f"run_dir={finished_run}")
    assert "head.attention" in refused.err
