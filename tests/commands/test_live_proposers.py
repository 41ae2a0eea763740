"""Boxes of another detector through the commands: run, detect of new photos, Detector, fuse, export, a moved folder."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from detpipe import Detector
from detpipe.proposals.proposals_db import ProposalsReader
from detpipe.runs.run_folder import RunFolder
from detpipe.runs.run_proposer import proposer_of_run
from detpipe.storage.manifest import read_manifest
from tests import drawn
from tests.command_line import Outcome, detpipe
from tests.proposals.onnx_models import small_models

FLOW = [word for word in drawn.TINY if not word.startswith("proposals.")]


def run(voc_root: Path, folder: Path, *words: str) -> Outcome:
    return detpipe("run", *drawn.voc(voc_root), *FLOW, "solver.max_iter=1", *words, f"run_dir={folder}")


def model_of_discs(path: Path) -> Path:
    """A model in the layout of YOLOv8 that finds the red disc of a drawn image, with rows of fixed boxes."""
    graph = small_models.Graph()
    box, _ = small_models.red_box(graph, "images", above=0.7)
    rows = small_models.rows_of(graph, small_models.centre_form(graph, box), 0.9, 0.1, below=0)
    generator = np.random.default_rng(0)
    sizes, centres = generator.uniform(16, 60, (40, 2)), generator.uniform(30, 130, (40, 2))
    fixed = np.concatenate([centres, sizes, generator.uniform(0.1, 0.5, (40, 2))], axis=1)
    joined = graph("Concat", rows, graph.constant([fixed]), axis=1)
    graph("Transpose", joined, output="output0", perm=[0, 2, 1])
    return graph.save(path, {"images": ([1, 3, 160, 160], small_models.TensorProto.FLOAT)}, ["output0"])


@pytest.fixture(scope="module")
def onnx_run(voc_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of Fast R-CNN on the boxes of an ONNX model, which is gone. Read only."""
    folder = tmp_path_factory.mktemp("onnx")
    model = model_of_discs(folder / "model.onnx")
    outcome = run(voc_root, folder / "run", "proposals=onnx", f"proposals.path={model}", "proposals.preset=yolo")
    assert outcome.status == 0, outcome.err
    model.unlink()
    return folder / "run"


def test_the_boxes_of_the_model_are_stored(onnx_run: Path) -> None:
    manifest = read_manifest(onnx_run / "proposals.lmdb")
    assert manifest.settings["proposals"]["method"] == "OnnxProposals"
    assert set(manifest.inputs) >= {"model.onnx"}
    with ProposalsReader(onnx_run / "proposals.lmdb") as reader:
        for number, name in enumerate(drawn.TEST, len(drawn.TRAIN)):
            disc = drawn.draw(number)[1].boxes[0]
            np.testing.assert_allclose(reader.read("test", name).proposals.boxes[0], disc, atol=1.5)  # JPEG


def test_new_photos_and_python_use_the_copy_of_the_model(onnx_run: Path, tmp_path: Path) -> None:
    """In a folder that was moved, and without proposals.lmdb."""
    moved = drawn.copy(onnx_run, tmp_path / "moved")
    shutil.rmtree(moved / "proposals.lmdb")
    photo = tmp_path / "photo.jpg"
    drawn.write_jpeg(photo, drawn.draw(77)[0])
    proposer = proposer_of_run(RunFolder(moved))
    assert proposer.describe()["path"] == str(moved / "classifier" / "proposer" / "model.onnx")
    outcome = detpipe("detect", f"source={photo}", "device=cpu", "precision=float32", f"run_dir={moved}")
    assert outcome.status == 0, outcome.err
    found = json.loads((moved / "sources" / "photo" / "detections.json").read_text())
    detections = Detector.from_run(moved, device="cpu").predict(photo)
    assert len(found) == len(detections) > 0
    assert [one["score"] for one in found] == pytest.approx(detections.scores.tolist(), abs=1e-5)


def test_another_model_in_its_place_is_noticed(onnx_run: Path, tmp_path: Path) -> None:
    copied = drawn.copy(onnx_run, tmp_path / "run")
    drawn.write_jpeg(tmp_path / "photo.jpg", drawn.draw(77)[0])
    words = ["detect", f"source={tmp_path / 'photo.jpg'}", "device=cpu", f"run_dir={copied}"]
    keys = []
    for classes in (None, None, 2, 3):
        if classes is not None:
            small_models.yolo_v8(copied / "classifier" / "proposer" / "model.onnx", [1, 3, 160, 160], classes)
        assert detpipe(*words).status == 0
        keys.append(read_manifest(copied / "sources" / "photo" / "detections.json").digest)
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3


def test_a_missing_model_is_named(onnx_run: Path, tmp_path: Path) -> None:
    copied = drawn.copy(onnx_run, tmp_path / "run")
    (copied / "classifier" / "proposer" / "model.onnx").unlink()
    drawn.write_jpeg(tmp_path / "photo.jpg", drawn.draw(77)[0])
    outcome = detpipe("detect", f"source={tmp_path / 'photo.jpg'}", "device=cpu", f"run_dir={copied}")
    assert outcome.status == 1
    assert "model.onnx" in outcome.err
    assert "Traceback" not in outcome.err


@pytest.mark.slow
def test_export_names_the_proposer(onnx_run: Path, tmp_path: Path) -> None:
    outcome = detpipe("export", f"out={tmp_path / 'out'}", f"run_dir={onnx_run}")
    assert outcome.status == 0, outcome.err
    described = json.loads((tmp_path / "out" / "detector.json").read_text())["proposals"]
    assert (described["method"], described["preset"]) == ("OnnxProposals", "yolo")
    assert Path(described["path"]).is_file()


def test_fused_with_another_method_on_new_photos(voc_root: Path, tmp_path: Path) -> None:
    model = model_of_discs(tmp_path / "model.onnx")
    outcome = run(
        voc_root,
        tmp_path / "run",
        "proposals=fuse",
        "proposals.sources=[onnx,gaussian]",
        f"proposals.settings={{onnx:{{path:{model},preset:yolo}},gaussian:{{max_proposals:5}}}}",
    )
    assert outcome.status == 0, outcome.err
    model.unlink()
    moved = drawn.copy(tmp_path / "run", tmp_path / "moved")
    proposer = proposer_of_run(RunFolder(moved))
    assert proposer.from_pixels
    image, truth = drawn.draw(77)
    np.testing.assert_allclose(proposer(image).boxes[0], truth.boxes[0], atol=1)
    assert len(Detector.from_run(moved, device="cpu").predict(image)) > 0


CLASS = """
from pathlib import Path

import numpy as np

class Discs:
    def __init__(self, weights, share=0.5):
        self.level = float(Path(weights).read_text())

    def __call__(self, image):
        ys, xs = np.nonzero(image[:, :, 0].astype(int) - image[:, :, 2] > self.level)
        rng = np.random.default_rng(0)
        corners = rng.uniform(0, 90, (30, 2))
        boxes = [[xs.min(), ys.min(), xs.max() + 1, ys.max() + 1], *np.hstack([corners, corners + 30])]
        return np.array(boxes), np.linspace(1, 0.1, len(boxes))
"""


@pytest.fixture
def own_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The working directory has the module discs and a file of its weights."""
    (tmp_path / "discs.py").write_text(CLASS)
    (tmp_path / "level.txt").write_text("100")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield "discs:Discs"
    sys.modules.pop("discs", None)


def test_a_class_through_the_flow(own_class: str, voc_root: Path, tmp_path: Path) -> None:
    words = ["proposals=python", f"proposals.object={own_class}", "proposals.arguments={weights:level.txt}"]
    outcome = run(voc_root, tmp_path / "run", *words, "proposals.arguments.share=0.25", "workers=2")
    assert outcome.status == 0, outcome.err
    manifest = read_manifest(tmp_path / "run" / "proposals.lmdb")
    assert manifest.settings["proposals"]["arguments"] == {"weights": "level.txt", "share": 0.25}
    assert {"module discs", "argument weights"} <= manifest.inputs.keys()
    (tmp_path / "level.txt").unlink()
    image, truth = drawn.draw(77)
    proposer = proposer_of_run(RunFolder(drawn.copy(tmp_path / "run", tmp_path / "moved")))
    np.testing.assert_allclose(proposer(image).boxes[0], truth.boxes[0], atol=1)
    assert len(Detector.from_run(tmp_path / "moved", device="cpu").predict(image)) > 0


def test_an_error_of_the_class_is_one_sentence(own_class: str, voc_root: Path, tmp_path: Path) -> None:
    words = ["proposals=python", f"proposals.object={own_class}", "proposals.arguments={weights:none.txt}"]
    outcome = detpipe("propose", *drawn.voc(voc_root), *words, f"run_dir={tmp_path / 'run'}")
    assert outcome.status == 1
    assert "proposals.object=discs:Discs" in outcome.err
    assert "none.txt" in outcome.err
    assert "Traceback" not in outcome.err


def test_changed_code_is_noticed(own_class: str, voc_root: Path, tmp_path: Path) -> None:
    words = [
        "proposals=python",
        f"proposals.object={own_class}",
        "proposals.arguments={weights:level.txt}",
        "workers=0",
    ]
    words = ["propose", *drawn.voc(voc_root), *words, f"run_dir={tmp_path / 'run'}"]
    outcome = detpipe(*words)
    assert outcome.status == 0, outcome.err
    assert detpipe(*words).status == 0
    (tmp_path / "discs.py").write_text(CLASS + "\n# changed\n")
    outcome = detpipe(*words)
    assert outcome.status == 1
    assert "overwrite=true" in outcome.err
