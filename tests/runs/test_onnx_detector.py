"""OnnxDetector: used as a Detector, without torch; and folders that are no export, or damaged."""

from __future__ import annotations

import importlib.util
import json
import logging
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from detpipe import ImageDetections, OnnxDetector
from detpipe.classify.export.description import DESCRIPTION, GRAPH, ImageForm
from detpipe.proposals.baselines import SlidingWindow
from detpipe.runs.image_stream import ImageStream
from detpipe.runs.onnx_detector import OnnxDetectorError
from detpipe.storage.atomic import write_json
from tests import drawn
from tests.runs.tiny_export import write_export, write_graph

onnxruntime = pytest.importorskip("onnxruntime")

GREY = np.full((20, 30, 3), 51, np.uint8)
"""Mean of its levels / 255: 0.2."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector that proposes itself. Read only."""
    return write_export(tmp_path_factory.mktemp("export"))


@pytest.fixture(scope="module")
def with_boxes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector that classifies proposals. Read only."""
    return write_export(tmp_path_factory.mktemp("boxes"), needs_boxes=True)


def test_one_image(folder: Path) -> None:
    detector = OnnxDetector(folder, threads=1)
    assert detector.classes == ("cat", "dog")
    found = detector(GREY)
    assert isinstance(found, ImageDetections)
    assert found.boxes.tolist() == [[0, 0, 30, 20]]
    assert found.scores == pytest.approx([0.2], abs=1e-5)
    assert found.names == ["cat"]
    assert found.source is GREY
    assert len(detector.predict(GREY, threshold=0.21)) == 0
    assert repr(detector) == "OnnxDetector(classes: cat, dog)"


def test_boxes_of_the_caller(with_boxes: Path) -> None:
    """They are clipped, those without an area are left out, and max_proposals of detector.json are kept."""
    detector = OnnxDetector(with_boxes, threads=1)
    boxes = [[-5, 0, 10, 10], [3, 3, 3, 9], [0, 0, 5, 5], [1, 1, 6, 6], [2, 2, 7, 7]]
    assert detector.predict(GREY, boxes).boxes.tolist() == [[0, 0, 10, 10], [0, 0, 5, 5], [1, 1, 6, 6]]
    assert len(detector.predict(GREY, [])) == 0
    with pytest.raises(ValueError, match="proposals: expected"):
        detector.predict(GREY, [[1, 2, 3]])


def test_boxes_of_the_described_proposer(with_boxes: Path) -> None:
    detector = OnnxDetector(with_boxes, threads=1)
    expected = SlidingWindow(max_proposals=5)(GREY)
    assert len(detector(GREY)) == min(len(expected), 3) > 0
    assert isinstance(detector.proposer, SlidingWindow)
    own = SlidingWindow(max_proposals=1)
    assert len(OnnxDetector(with_boxes, threads=1, proposer=own)(GREY)) == 1


def test_a_folder_of_images_and_a_batch(folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("a.jpg", "c.jpg"):
        drawn.write_jpeg(tmp_path / name, GREY)
    (tmp_path / "b.jpg").write_bytes(b"no image")
    detector = OnnxDetector(folder, threads=1)
    stream = detector.predict(tmp_path)
    assert isinstance(stream, ImageStream)
    with caplog.at_level(logging.WARNING):
        assert [one.path for one in stream] == [tmp_path / "a.jpg", tmp_path / "c.jpg"]
    assert [Path(one.path).name for one in stream.left_out] == ["b.jpg"]
    assert [len(one) for one in detector.predict_batch([GREY, GREY])] == [1, 1]
    assert detector.predict_batch([]) == []


@pytest.mark.parametrize("batch", [0, 2])
def test_a_batch_of_a_fixed_size(tmp_path: Path, batch: int) -> None:
    """Three images with 1, 0 and 5 proposals, as 40 x 20 pixels. Each is halved or as it is, and mapped back."""
    folder = write_export(tmp_path, needs_boxes=True, batch=batch, image=ImageForm(size=(20, 40), fill=0))
    detector = OnnxDetector(folder, threads=1)
    images = [np.full(shape, 51, np.uint8) for shape in ((40, 80, 3), (20, 30, 3), (20, 40, 3))]
    boxes = [[[2, 4, 80, 40]], [], [[0, 0, side, side] for side in range(5, 10)]]
    found = detector.predict_batch(images, boxes)
    assert [one.boxes.tolist() for one in found] == [[[2, 4, 80, 40]], [], boxes[2][:3]]
    assert [one.scores.tolist() for one in found] == [pytest.approx([0.2] * len(one), abs=1e-5) for one in found]
    # A tall image has half of its width: the rest is black.
    assert detector.predict(np.full((20, 20, 3), 51, np.uint8), [[0, 0, 9, 9]]).scores == pytest.approx([0.1], abs=1e-5)


def test_pictures_show_detections_from_the_threshold_of_the_evaluation(tmp_path: Path) -> None:
    assert OnnxDetector(write_export(tmp_path), threads=1).best_threshold == 0.5
    point = {"score": 0.125, "precision": 0.6, "recall": 0.8, "measured_on": "drawn", "images": 4}
    write_json(tmp_path / "operating_point.json", point)
    assert OnnxDetector(tmp_path, threads=1)(GREY).floor == 0.125


PROGRAM = """
import sys
import detpipe, numpy
detector = detpipe.OnnxDetector(sys.argv[1], runtime=sys.argv[2], threads=1)
found = detector.predict(numpy.full((20, 30, 3), 51, numpy.uint8), *([[[1, 2, 30, 20]]] if len(sys.argv) > 3 else []))
assert len(found) == 1
print(found.names, found.boxes.tolist(), [round(score, 3) for score in found.scores.tolist()])
print(sorted({"torch", "numba", "onnx", "matplotlib", "hydra"} & sys.modules.keys()))
"""


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_neither_torch_nor_numba_is_imported(folder: Path, with_boxes: Path, runtime: str) -> None:
    """Each in a process of its own, where nothing else imported them."""
    if not importlib.util.find_spec(runtime):
        pytest.skip(f"{runtime} is not installed")
    for arguments, found in (
        ([str(folder), runtime], "['cat'] [[0.0, 0.0, 30.0, 20.0]] [0.2]"),
        ([str(with_boxes), runtime, "boxes"], "['cat'] [[1.0, 2.0, 30.0, 20.0]] [0.5]"),
    ):
        done = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, check=False)
        assert (done.stdout.splitlines(), done.returncode) == ([found, "[]"], 0), done.stderr


def test_the_log_says_what_selective_search_imports(tmp_path: Path) -> None:
    settings = {"method": "SelectiveSearch", "max_proposals": 5}
    write_export(tmp_path, needs_boxes=True, proposals=settings)
    program = PROGRAM.replace("import sys", "import sys, logging; logging.basicConfig(level='INFO')", 1)
    program = program.replace("assert len(found) == 1", "")
    arguments = [sys.executable, "-c", program, tmp_path, "onnxruntime"]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert "numba" in done.stderr
    assert done.stdout.splitlines()[-1] == "['numba']"


FORK = """
import faulthandler, os, sys
import numpy as np
from detpipe import OnnxDetector
detector = OnnxDetector(sys.argv[1], threads=2)
image = np.full((400, 600, 3), 51, np.uint8)
expected = detector(image)
child = os.fork()
if not child:
    faulthandler.dump_traceback_later(60, exit=True)
    os._exit(0 if detector(image).scores.tolist() == expected.scores.tolist() else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_forked_process_detects_the_same(folder: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FORK, str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def replace_key(folder: Path, **changed: object) -> None:
    values = json.loads((folder / DESCRIPTION).read_text())
    write_json(folder / DESCRIPTION, {**values, **changed})


def replace_graph(folder: Path, content: bytes) -> None:
    (folder / GRAPH).write_bytes(content)


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n"
SPOILT: dict[str, tuple[Callable[[Path], object], str]] = {
    "no folder": (lambda folder: folder.rename(folder.with_name("gone")), "found no detector.json"),
    "no description": (lambda folder: (folder / DESCRIPTION).unlink(), "found no detector.json"),
    "no JSON": (lambda folder: (folder / DESCRIPTION).write_text("{"), "expected a JSON object"),
    "a list": (lambda folder: (folder / DESCRIPTION).write_text("[]"), "expected a JSON object"),
    "another key": (lambda folder: replace_key(folder, format="onnx"), "format"),
    "a key of another type": (lambda folder: replace_key(folder, classes="cat"), "classes"),
    "another input": (lambda folder: replace_key(folder, inputs=[]), "inputs"),
    "a file elsewhere": (lambda folder: replace_key(folder, file="../other.onnx"), "file: expected the name of a file"),
    "no limit": (lambda folder: replace_key(folder, detect={}), "detect.max_proposals"),
    "no graph": (lambda folder: (folder / GRAPH).unlink(), "expected the graph of the detector, found no file"),
    "a pointer": (lambda folder: replace_graph(folder, LFS), "Git LFS pointer"),
    "a pointer for the description": (lambda folder: (folder / DESCRIPTION).write_bytes(LFS), "Git LFS pointer"),
    "half a graph": (lambda folder: replace_graph(folder, (folder / GRAPH).read_bytes()[:100]), GRAPH),
    "another format": (lambda folder: replace_graph(folder, pickle.dumps({"weights": [1.0] * 9})), GRAPH),
    "another graph": (
        lambda folder: write_graph(folder / GRAPH, needs_boxes=True),
        r"expected the inputs image \(uint8, 3 axes\), got image \(uint8, 3 axes\), proposals",
    ),
}


@pytest.mark.parametrize("name", SPOILT)
def test_a_damaged_folder_is_one_sentence(tmp_path: Path, name: str) -> None:
    folder = write_export(tmp_path / "export")
    spoil, said = SPOILT[name]
    spoil(folder)
    with pytest.raises(ValueError, match=said) as caught:
        OnnxDetector(folder, threads=1)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_graph_of_more_classes_is_named(tmp_path: Path) -> None:
    detector = OnnxDetector(write_export(tmp_path, label=3), threads=1)
    with pytest.raises(OnnxDetectorError, match=r"expected labels up to 2, .* got 3"):
        detector(GREY)


@pytest.mark.parametrize(
    "settings",
    [
        {"method": "GroundTruthBoxes"},
        {"method": "Unknown"},
        {"method": "SlidingWindow", "of_another_version": 1},
        {"method": "OnnxProposals", "path": "gone.onnx", "preset": "yolo"},
        {"method": "MultiBoxProposals", "weights": "gone"},
    ],
)
def test_a_proposer_that_new_images_can_t_have_is_named(tmp_path: Path, settings: dict[str, object]) -> None:
    detector = OnnxDetector(write_export(tmp_path, needs_boxes=True, proposals=settings), threads=1)
    assert len(detector.predict(GREY, [[0, 0, 5, 5]])) == 1
    with pytest.raises(OnnxDetectorError, match=f"{DESCRIPTION}.*give proposals to predict"):
        detector(GREY)


def test_a_missing_package_is_named_with_its_extra(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for runtime, extra in (("onnxruntime", "onnx"), ("openvino", "openvino")):
        monkeypatch.setitem(sys.modules, runtime, None)
        with pytest.raises(ImportError, match=rf"pip install 'detpipe\[{extra}\]'"):
            OnnxDetector(folder, runtime=runtime)


@pytest.mark.parametrize(("name", "value"), [("threads", -1), ("runtime", "tensorrt"), ("threads", 1.5)])
def test_a_wrong_argument_is_named(folder: Path, name: str, value: object) -> None:
    with pytest.raises((ValueError, TypeError), match=name):
        OnnxDetector(folder, **{name: value})  # type: ignore[arg-type]
