"""What a file of Ultralytics says about itself."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from detpipe.proposals.onnx_models.model_file import OnnxModelError
from detpipe.proposals.onnx_models.proposer import OnnxProposals
from detpipe.proposals.onnx_models.ultralytics_metadata import Stated, stated_by
from tests.proposals.onnx_models import small_models
from tests.proposals.onnx_models.test_proposer import red


def with_metadata(path: Path, **more: str) -> str:
    model = onnx.load(path)
    onnx.helper.set_model_props(model, {"author": "Ultralytics", **more})
    onnx.save(model, path)
    return str(path)


def test_names_and_size_are_read() -> None:
    said = {"author": "Ultralytics", "names": "{0: 'a', 1: 'b, 7: c'}", "imgsz": "[32, 64]", "task": "pose"}
    assert stated_by(said) == Stated(2, (32, 64))
    assert stated_by({**said, "author": "another"}) == stated_by({}) == Stated()


@pytest.mark.parametrize("text", ["", "{0: 'a'", "__import__('os')", "[" * 10_000, "7", "{}"])
def test_other_texts_state_nothing(text: str) -> None:
    assert stated_by({"author": "Ultralytics", "names": text, "imgsz": text}) == Stated()


@pytest.mark.parametrize("text", ["[0, 0]", "['a', 'b']", "[32]", "(32, 32)"])
def test_other_sizes_are_none(text: str) -> None:
    assert stated_by({"author": "Ultralytics", "imgsz": text}) == Stated()


def test_keypoints_are_no_scores(tmp_path: Path) -> None:
    """(1, 4 + 1 + 3, N): one class, then a keypoint in pixels."""
    graph = small_models.Graph()
    box, _ = small_models.red_box(graph, "images", above=small_models.RED)
    rows = small_models.rows_of(graph, small_models.centre_form(graph, box), 0.75, 31, 40, 1, below=9)
    graph("Transpose", rows, output="output0", perm=[0, 2, 1])
    path = graph.save(tmp_path / "m.onnx", {"images": small_models.PIXELS}, ["output0"])
    image, want = red((64, 64))
    with pytest.raises(OnnxModelError, match=r"proposals\.classes=N"):
        OnnxProposals(path=str(path), preset="yolo")(image)
    found = OnnxProposals(path=with_metadata(path, names="{0: 'person'}", task="pose"), preset="yolo")(image)
    assert (found.boxes[0].tolist(), found.scores[0]) == (want, 0.75)


def test_turned_boxes_are_refused(tmp_path: Path) -> None:
    path = with_metadata(small_models.yolo_v8(tmp_path / "m.onnx"), task="obb")
    with pytest.raises(OnnxModelError, match=r"m\.onnx: .*obb"):
        OnnxProposals(path=path, preset="yolo").check()


def test_the_size_of_the_file_wins_over_the_preset(tmp_path: Path) -> None:
    """The model finds the box in the image's own size: 64 rows make one of 32."""
    path = with_metadata(small_models.yolo_v8(tmp_path / "m.onnx", [1, 3, "h", "w"]), imgsz="[32, 32]")
    image, box = red((64, 64))
    image[0] = (255, 0, 0)  # one row, lost in half the size
    assert OnnxProposals(path=path, preset="yolo", input_size=[64, 64])(image).boxes[0, 1] == 0
    assert OnnxProposals(path=path, preset="yolo")(image).boxes[0].tolist() == box


def test_few_boxes_of_many_classes_are_columns(tmp_path: Path) -> None:
    """(1, 24, 10): more numbers per box than boxes."""
    path = with_metadata(
        small_models.yolo_v8(tmp_path / "m.onnx", classes=20), names=str(dict.fromkeys(range(20), "name"))
    )
    image, box = red((64, 64))
    assert OnnxProposals(path=path, preset="yolo")(image).boxes[0].tolist() == box
