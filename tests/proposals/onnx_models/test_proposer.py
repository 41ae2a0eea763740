"""Each preset with a small model in the layout that its project publishes; settings over presets; wrong files."""

from __future__ import annotations

import functools
import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto

from detpipe.parallel import ordered_map
from detpipe.proposals.methods import proposer_of
from detpipe.proposals.onnx_models.input_image import fit_image
from detpipe.proposals.onnx_models.model_file import OnnxModelError
from detpipe.proposals.onnx_models.presets import PRESETS, Fit, ModelForm, Preset
from detpipe.proposals.onnx_models.proposer import OnnxProposals
from detpipe.storage.input_file import InputFileError
from detpipe.structures import Image
from tests.proposals.onnx_models import small_models

MODELS: list[tuple[str, Callable[[Path], Path]]] = [
    ("yolo", small_models.yolo_v8),
    ("yolo", small_models.yolo_v5),
    ("yolo_nms", small_models.yolo_v10),
    ("yolov7_nms", small_models.yolo_v7_nms),
    ("yolox", small_models.yolox),
    ("detr", small_models.rt_detr),
    ("detr_transformers", small_models.detr_transformers),
    ("rt_detr_transformers", small_models.rt_detr_transformers),
    ("rt_detr_ultralytics", small_models.rt_detr_ultralytics),
    ("rf_detr", small_models.rf_detr),
    ("ssd", small_models.torchvision_ssd),
    ("ssd_tf", small_models.tensorflow_ssd),
    ("fcos", small_models.torchvision_ssd),
    ("fcos_mmdet", small_models.mmdet_fcos),
    ("paddle", small_models.paddle),
]
SCORES = {small_models.yolo_v5: 0.375, small_models.yolox: 0.375, small_models.detr_transformers: 3 / (4 + np.exp(-3))}
# Sides that 64 divides or that divide 64: the rectangle has sharp borders in the input, too.
SIZES = [(64, 64), (32, 64), (64, 16), (128, 64), (128, 256)]


def red(size: tuple[int, int]) -> tuple[Image, list[float]]:
    """A dark image with a red rectangle, and its box."""
    height, width = size
    image = np.full((height, width, 3), 10, np.uint8)
    x1, y1, x2, y2 = width // 4, height // 8, width * 3 // 4, height * 7 // 8
    image[y1:y2, x1:x2] = (255, 0, 0)
    return image, [x1, y1, x2, y2]


def test_every_preset_is_tested() -> None:
    assert {name for name, _ in MODELS} == set(Preset) == set(PRESETS)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("preset", "make"), MODELS)
def test_presets_find_the_box_of_the_image(
    preset: str, make: Callable[[Path], Path], size: tuple[int, int], tmp_path: Path
) -> None:
    image, box = red(size)
    more = {"input_size": [64, 64]} if preset in ("fcos_mmdet", "detr_transformers") else {}
    proposer = OnnxProposals(path=str(make(tmp_path / "model.onnx")), preset=preset, **more)
    proposer.check()
    found = proposer(image)
    exact = not PRESETS[Preset(preset)].normalised and make is not small_models.yolox
    np.testing.assert_allclose(found.boxes[0], box, rtol=0, atol=0 if exact else 1e-4)
    assert found.scores[0] == pytest.approx(SCORES.get(make, 0.75))


@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 90), st.integers(1, 90), st.sampled_from(Fit))
def test_the_fit_is_undone(height: int, width: int, input_height: int, input_width: int, fit: Fit) -> None:
    fitted = fit_image(np.zeros((height, width, 3), np.uint8), (input_height, input_width), fit, 114)
    size = (height, width) if fit is Fit.original else (input_height, input_width)
    if fit is Fit.shorter_side:
        size = (fitted.pixels.shape[0], fitted.pixels.shape[1])
        assert min(size) <= min(input_height, input_width)
        assert max(size) <= max(input_height, input_width)
    assert fitted.pixels.shape == (*size, 3)
    (left, top), (across, down) = fitted.offset, fitted.scale
    inside = np.array([[left, top, left + across * width, top + down * height]])
    assert (inside >= -1e-9).all()
    assert (inside <= np.tile(size[::-1], 2) + 1e-9).all()
    np.testing.assert_allclose(fitted.to_image(inside), [[0, 0, width, height]], rtol=1e-6)
    if fit not in (Fit.stretch, Fit.shorter_side):
        # Both axes have the same scale, but for sizes in whole pixels.
        assert abs(round(height * down) - min(max(height * across, 1), size[0])) <= 0.5 * height / width + 0.5


def test_a_letterbox_by_hand() -> None:
    fitted = fit_image(np.full((30, 60, 3), 7, np.uint8), (64, 64), Fit.letterbox, 114)
    assert (fitted.scale, fitted.offset) == ((64 / 60, 32 / 30), (0, 16))
    assert set(fitted.pixels[:16].ravel()) == set(fitted.pixels[48:].ravel()) == {114}
    assert set(fitted.pixels[16:48].ravel()) == {7}
    corner = fit_image(np.full((30, 60, 3), 7, np.uint8), (64, 64), Fit.top_left, 0)
    assert corner.offset == (0, 0)
    assert set(corner.pixels[32:].ravel()) == {0}
    coloured = fit_image(np.full((30, 60, 3), 7, np.uint8), (64, 64), Fit.top_left, (1, 2, 3))
    assert coloured.pixels[63, 63].tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("image", "want"), [((480, 640), (800, 1066)), ((640, 480), (1066, 800)), ((300, 900), (444, 1333))]
)
def test_the_shorter_side_by_hand(image: tuple[int, int], want: tuple[int, int]) -> None:
    """As DETR: the shorter side is 800, but the longer at most 1333, for both orientations."""
    fitted = fit_image(np.zeros((*image, 3), np.uint8), (800, 1333), Fit.shorter_side, 0)
    assert fitted.pixels.shape == (*want, 3)


def test_the_fill_of_mmdet_is_the_mean(tmp_path: Path) -> None:
    """The score is the largest number of the input's last column, which is beside a narrow image; 0 is the mean."""
    graph = small_models.Graph()
    last = graph("Gather", "input", graph.constant(-1, np.int64), axis=3)
    graph("ReduceMax", graph("Abs", last), output="most", keepdims=0)
    score = graph("Reshape", "most", graph.constant([1, 1, 1], np.int64))
    graph("Concat", graph.constant([[[0.0, 0, 9, 9]]]), score, output="dets", axis=2)
    path = str(graph.save(tmp_path / "m.onnx", {"input": small_models.PIXELS}, ["dets"]))
    found = OnnxProposals(path=path, preset="fcos_mmdet", min_score=0)(np.full((64, 20, 3), 255, np.uint8))
    assert 0 < found.scores[0] < 0.25
    with pytest.raises(OnnxModelError, match="expected scores up to 1"):
        OnnxProposals(path=path, preset="fcos_mmdet", fill=114)(np.full((64, 20, 3), 255, np.uint8))


def test_an_image_without_objects(tmp_path: Path) -> None:
    """The box of nothing has no area, and all other rows are below min_score."""
    dark = np.zeros((30, 50, 3), np.uint8)
    for name, make in MODELS[:3]:
        found = OnnxProposals(path=str(make(tmp_path / f"{make.__name__}.onnx")), preset=name)(dark)
        assert found.boxes.shape == (0, 4)


def test_a_file_of_one_size_that_resizes_inside_says_how_to_export_it(tmp_path: Path) -> None:
    model = small_models.yolo_v8(tmp_path / "m.onnx", [1, 3, 64, 64])
    with pytest.raises(OnnxModelError, match=r"m\.onnx: .*\[64, 64\].*dynamic axes.*proposals\.fit=stretch"):
        OnnxProposals(path=str(model), preset="ssd").check()


def test_settings_win_over_the_preset(tmp_path: Path) -> None:
    model = small_models.yolo_v8(tmp_path / "m.onnx", [1, 3, "h", "w"])
    image, box = red((32, 128))
    small = {"input_size": [64, 64]}
    for more in ({"fit": "stretch", **small}, {"fit": "top_left", **small}, {"input_size": [32, 128]}):
        found = OnnxProposals(path=str(model), preset="yolo", **more)(image)
        assert found.boxes[0].tolist() == box
    assert OnnxProposals(path=str(model), preset="yolo", fit="original")(image).boxes[0].tolist() == box
    with pytest.raises(OnnxModelError, match=r"m\.onnx: .*normalised=false"):
        OnnxProposals(path=str(model), preset="yolo", normalised=True)(image)
    bgr = OnnxProposals(path=str(model), preset="yolo", channels="bgr")
    assert len(bgr(image)) == 0
    assert len(bgr(np.ascontiguousarray(image[:, :, ::-1]))) == 1


def test_classes_and_background(tmp_path: Path) -> None:
    """The second class has the best score, 0.75."""
    model, image = str(small_models.yolo_v8(tmp_path / "m.onnx")), red((64, 64))[0]
    for more, score in (({"classes": 1}, 0.25), ({"background": "first"}, 0.75), ({"background": "last"}, 0.25)):
        found = OnnxProposals(path=model, preset="yolo", **more)(image)
        assert found.scores[0] == pytest.approx(score)


def test_a_softmax_of_logits(tmp_path: Path) -> None:
    model = OnnxProposals(
        path=str(small_models.rf_detr(tmp_path / "m.onnx")),
        preset="rf_detr",
        activation="softmax",
        background="first",
    )
    assert model(red((64, 64))[0]).scores[0] == pytest.approx(3 / (3 + np.exp(-3)))


def test_a_model_of_masks_needs_its_number_of_classes(tmp_path: Path) -> None:
    graph = small_models.Graph()
    box, _ = small_models.red_box(graph, "images", above=small_models.RED)
    rows = small_models.rows_of(graph, small_models.centre_form(graph, box), 0.75, 0.5, 99, -99, below=8)
    graph("Transpose", rows, output="output0", perm=[0, 2, 1])
    graph("Identity", graph.constant(np.zeros((1, 2, 4, 4))), output="output1")
    path = str(graph.save(tmp_path / "m.onnx", {"images": small_models.PIXELS}, ["output0", "output1"]))
    image, want = red((64, 64))
    with pytest.raises(OnnxModelError, match=r"proposals\.classes=N"):
        OnnxProposals(path=path, preset="yolo")(image)
    found = OnnxProposals(path=path, preset="yolo", classes=2)(image)
    assert (found.boxes[0].tolist(), found.scores[0]) == (want, 0.75)


def test_near_duplicates_and_the_number_of_boxes(tmp_path: Path) -> None:
    graph = small_models.Graph()
    rows = [[0, 0, 40, 40, 0.5, 0], [0, 0, 40, 36, 0.9, 1], [10, 10, 20, 20, 0.4, 0], [30, 30, 60, 60, 0.0001, 0]]
    graph("Identity", graph.constant([rows]), output="output0")
    path = str(graph.save(tmp_path / "m.onnx", {"images": small_models.PIXELS}, ["output0"]))
    image = np.zeros((64, 64, 3), np.uint8)

    def boxes(**settings: Any) -> list[list[float]]:
        return OnnxProposals(path=path, preset="yolo_nms", **settings)(image).boxes.tolist()

    assert boxes() == [rows[1][:4], rows[2][:4]]
    assert boxes(nms_iou=1) == [rows[1][:4], rows[0][:4], rows[2][:4]]
    assert boxes(max_proposals=1) == [rows[1][:4]]
    assert len(boxes(min_score=0)) == 3
    assert boxes(min_score=0.95) == []


def test_threads_and_processes_find_the_same(tmp_path: Path) -> None:
    proposer = OnnxProposals(path=str(small_models.yolo_v8(tmp_path / "m.onnx")), preset="yolo")
    images = [red(size)[0] for size in SIZES]
    alone = [proposer(image).boxes.tolist() for image in images]
    assert [one.boxes.tolist() for one in ordered_map(proposer, images, workers=3, max_threads=3)] == alone
    assert pickle.loads(pickle.dumps(proposer)) == proposer


def test_a_changed_file_is_read_again_and_changes_the_key(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    proposer = OnnxProposals(path=str(small_models.yolo_v8(path)), preset="yolo")
    before, image = proposer.inputs(), red((64, 64))[0]
    assert len(proposer(image)) == 1
    small_models.yolo_v8(path, classes=5)
    assert set(before) == set(proposer.inputs()) == {"m.onnx", "preset yolo"}
    assert before != proposer.inputs()
    assert len(proposer(image)) == 1


def test_a_changed_preset_changes_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings name the preset only."""
    proposer = OnnxProposals(path=str(small_models.yolo_v8(tmp_path / "m.onnx")), preset="yolo")
    before = proposer.inputs()
    monkeypatch.setitem(cast("dict[Preset, ModelForm]", PRESETS), Preset.yolo, replace(PRESETS[Preset.yolo], fill=0))
    assert proposer.inputs() != before
    assert replace(proposer, fill=114).inputs() == before


def test_a_description_makes_it_again_and_the_copy_is_used(tmp_path: Path) -> None:
    path = small_models.yolo_v8(tmp_path / "there" / "m.onnx")
    proposer = OnnxProposals(path=str(path), preset="yolo", input_size=(64, 64), mean=[1, 2, 3])
    again = proposer_of(json.loads(json.dumps(proposer.describe())))
    assert again == proposer
    assert proposer.kept_in(tmp_path) == proposer
    proposer.keep(tmp_path / "kept")
    path.unlink()
    kept = proposer.kept_in(tmp_path / "kept")
    kept.check()
    assert kept.describe()["path"] == str(tmp_path / "kept" / "proposer" / "m.onnx")


def with_external_data(path: Path, location: str) -> Path:
    model = onnx.load(small_models.yolo_v8(path))
    onnx.external_data_helper.convert_model_to_external_data(model, location="w.bin", size_threshold=100)
    onnx.save(model, path)
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    path.write_bytes(model.SerializeToString())
    return path


def test_external_data_beside_the_model_is_used_digested_and_kept(tmp_path: Path) -> None:
    path = with_external_data(tmp_path / "a" / "m.onnx", "w.bin")
    proposer = OnnxProposals(path=str(path), preset="yolo")
    assert set(proposer.inputs()) == {"m.onnx", "w.bin", "preset yolo"}
    image, box = red((64, 64))
    proposer.keep(tmp_path / "kept")
    assert proposer.kept_in(tmp_path / "kept")(image).boxes[0].tolist() == box
    (path.parent / "w.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"w\.bin"):
        proposer.check()


@pytest.mark.parametrize("kind", ["above", "absolute", "link"])
def test_external_data_elsewhere_is_refused(kind: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(10_000))
    location = {"above": "../secret", "absolute": str(tmp_path / "secret"), "link": "link"}[kind]
    path = with_external_data(tmp_path / "a" / "m.onnx", location)
    (path.parent / "link").symlink_to(tmp_path / "secret")
    for action in (lambda one: one.check(), lambda one: one.inputs(), lambda one: one.keep(tmp_path / "kept")):
        with pytest.raises(OnnxModelError, match=r"m\.onnx: expected external data in the model's folder"):
            action(OnnxProposals(path=str(path), preset="yolo"))
    assert not (tmp_path / "kept").exists()


def test_external_data_in_memory_is_refused(tmp_path: Path) -> None:
    """onnxruntime has a location for addresses in its own memory."""
    path = with_external_data(tmp_path / "m.onnx", "*/_ORT_MEM_ADDR_/*")
    with pytest.raises((OSError, ValueError), match="_ORT_MEM_ADDR_"):
        OnnxProposals(path=str(path), preset="yolo").check()


def test_external_data_in_a_branch_is_found(tmp_path: Path) -> None:
    """A tensor in the graph of an attribute of a node."""
    tensor = onnx.numpy_helper.from_array(np.zeros(3, np.float32), "t")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/hostname")
    inner = onnx.helper.make_graph([onnx.helper.make_node("Constant", [], ["t"], value=tensor)], "inner", [], [])
    outer = onnx.helper.make_node("If", ["c"], ["o"], then_branch=inner, else_branch=inner)
    model = onnx.helper.make_model(onnx.helper.make_graph([outer], "outer", [], []))
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(OnnxModelError, match="/etc/hostname"):
        OnnxProposals(path=str(tmp_path / "m.onnx"), preset="yolo").check()


WHOLE = "whole.onnx"


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "LFS"),
        (b"<!doctype html><html></html>", "HTML"),
        (b"PK\x03\x04 a zip file, as torch writes", "another format"),
        (b"\x80\x02}q\x00.", "another format"),
        (b"\x08\x08", "no graph"),
    ],
)
def test_other_files_give_one_sentence(content: bytes, cause: str, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises((OnnxModelError, InputFileError), match=cause) as caught:
        OnnxProposals(path=str(path), preset="yolo").check()
    assert "m.onnx" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_truncated_file_gives_one_sentence(tmp_path: Path) -> None:
    whole = small_models.yolo_v8(tmp_path / "m.onnx").read_bytes()
    for length in (3, len(whole) // 3, len(whole) // 2, len(whole) - 1):
        (tmp_path / "m.onnx").write_bytes(whole[:length])
        with pytest.raises(OnnxModelError, match=r"m\.onnx: expected an ONNX model, got a truncated file"):
            OnnxProposals(path=str(tmp_path / "m.onnx"), preset="yolo").check()


def test_damaged_bytes_give_one_sentence(tmp_path: Path) -> None:
    """Whatever the damage: the error of this module, or a model that is still usable."""
    whole, rng = small_models.yolo_v8(tmp_path / "m.onnx").read_bytes(), np.random.default_rng(0)
    path, image, errors = tmp_path / "broken.onnx", red((64, 64))[0], []
    for _ in range(60):
        broken = bytearray(whole)
        for place in rng.integers(0, len(whole), 3):
            broken[place] = rng.integers(0, 256)
        path.write_bytes(bytes(broken))
        try:
            OnnxProposals(path=str(path), preset="yolo")(image)
        except (OnnxModelError, OSError) as error:
            errors.append(str(error))
    assert len(errors) > 20
    assert [error for error in errors if "broken.onnx" not in error or "\n" in error] == []


def rows(row: list[float], path: Path, count: int) -> Path:
    """A model that always finds the same rows."""
    graph = small_models.Graph()
    graph("Identity", graph.constant(np.tile(row, (1, count, 1))), output="output0")
    return graph.save(path, {"images": small_models.PIXELS}, ["output0"])


@pytest.mark.parametrize(
    ("preset", "make", "more", "remedy"),
    [
        ("detr", small_models.rf_detr, {}, r"proposals\.(normalised=true|boxes_output|activation)"),
        ("rf_detr", small_models.rt_detr, {}, r"normalised=false|proposals\.preset"),
        ("yolo", small_models.rt_detr, {}, r"proposals\.preset"),
        ("yolo_nms", functools.partial(small_models.yolo_v8, below=3000), {}, r"proposals\.preset"),
        ("yolo_nms", small_models.yolo_v5, {}, r"without built-in NMS.*proposals\.preset"),
        ("yolo_nms", small_models.yolo_v7_nms, {}, r"proposals\.preset"),
        ("yolo_nms", small_models.paddle, {"boxes_output": "boxes"}, r"proposals\.preset"),
        ("yolo", small_models.yolox, {}, r"proposals\.preset=yolox"),
        ("yolo", functools.partial(rows, [1, 2, 3, 4, 0.5, 0.5, 0.5], count=101), {}, r"proposals\.preset=yolox"),
        ("yolox", functools.partial(rows, [9, 9, 500, 9, 0.5, 0.5], count=84), {}, r"proposals\.strides"),
        ("yolox", small_models.yolo_v5, {}, r"84 cells .*proposals\.strides"),
        ("yolo", functools.partial(rows, [9, 9, 20, 20, 0.5, 3], count=9), {}, r"proposals\.preset=yolo_nms"),
        ("yolo", functools.partial(rows, [9, 9, 20, 20, 0.5, 0.5, 31], count=9), {}, r"proposals\.classes=N"),
        ("detr", small_models.rt_detr_transformers, {}, r"proposals\.(activation|boxes_output)"),
        ("yolo_nms", functools.partial(rows, [30, 30, 9, 9, 0.5], count=9), {}, r"proposals\.box_form=cxcywh"),
        ("detr_transformers", small_models.rf_detr, {}, r"proposals\.fit=stretch"),
        ("yolo", small_models.yolo_v8, {"input_size": [32, 32]}, r"input_size=\[64, 64\]"),
        ("ssd", small_models.yolo_v8, {}, r"proposals\.fit=stretch"),
    ],
)
def test_a_wrong_preset_is_named(
    preset: str, make: Callable[[Path], Path], more: dict[str, Any], remedy: str, tmp_path: Path
) -> None:
    with pytest.raises(OnnxModelError, match=rf"m\.onnx: .*{remedy}"):
        OnnxProposals(path=str(make(tmp_path / "m.onnx")), preset=preset, **more)(red((64, 64))[0])


@pytest.mark.parametrize(
    ("layout", "row"),
    [
        ("rows", [9, 10, 30, 40, 0.75]),
        ("rows", [9, 10, 30, 40, 0.75, 3]),
        ("row_scores", [9, 10, 30, 40, 0.25, 0.75]),
        ("class_rows", [3, 0.75, 9, 10, 30, 40]),
        ("image_rows", [0, 9, 10, 30, 40, 0.75, 3]),
        ("image_class_rows", [0, 9, 10, 30, 40, 3, 0.75]),
    ],
)
def test_layouts_of_rows_by_hand(layout: str, row: list[float], tmp_path: Path) -> None:
    for count in (0, 1, 5):
        path = rows(row, tmp_path / f"{count}.onnx", count)
        found = OnnxProposals(path=str(path), preset="yolo_nms", layout=layout)(np.zeros((64, 64, 3), np.uint8))
        assert found.boxes.tolist() == [[9, 10, 30, 40]] * min(count, 1)
        assert found.scores.tolist() == [0.75] * min(count, 1)


@pytest.mark.parametrize(
    ("inputs", "cause"),
    [
        ({"x": ([4, 3, 64, 64], TensorProto.FLOAT)}, "batch of 1"),
        ({"x": ([1, 1, 64, 64], TensorProto.FLOAT)}, "3 channels"),
        ({"x": ([1, 64], TensorProto.FLOAT)}, "one input for an image"),
        ({"x": ([1, 3, 64, 64], TensorProto.INT64)}, "one input for an image"),
        ({"x": small_models.PIXELS, "y": small_models.PIXELS}, "one input for an image"),
        ({"x": ([1, 3, 64, 99999], TensorProto.FLOAT)}, "at most 8192 pixels"),
        ({}, "one input for an image"),
    ],
)
def test_wrong_inputs_are_named(inputs: Any, cause: str, tmp_path: Path) -> None:
    graph = small_models.Graph()
    graph("Identity", graph.constant(np.zeros((1, 9, 6))), output="output0")
    path = graph.save(tmp_path / "m.onnx", inputs, ["output0"])
    with pytest.raises(OnnxModelError, match=rf"m\.onnx: .*{cause}"):
        OnnxProposals(path=str(path), preset="yolo").check()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_none_are_named(value: float, tmp_path: Path) -> None:
    graph = small_models.Graph()
    graph("Identity", graph.constant([[[value, 0, 9, 9, 0.5, 0]]]), output="output0")
    path = graph.save(tmp_path / "m.onnx", {"images": small_models.PIXELS}, ["output0"])
    with pytest.raises(OnnxModelError, match=r"m\.onnx: expected finite"):
        OnnxProposals(path=str(path), preset="yolo_nms")(red((64, 64))[0])


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"input_size": [3]}, r"proposals\.input_size"),
        ({"input_size": [0, 3]}, r"proposals\.input_size"),
        ({"mean": [1, 2]}, r"proposals\.mean"),
        ({"std": [1, 0, 2]}, r"proposals\.std"),
        ({"fill": 256}, r"proposals\.fill"),
        ({"strides": [8, 0]}, r"proposals\.strides"),
        ({"classes": 0}, r"proposals\.classes"),
        ({"nms_iou": 1.5}, r"proposals\.nms_iou"),
    ],
)
def test_settings_are_checked(settings: Any, name: str) -> None:
    with pytest.raises(ValueError, match=name):
        OnnxProposals(**settings)


def test_path_and_preset_must_be_given(tmp_path: Path) -> None:
    with pytest.raises(OnnxModelError, match=r"proposals\.path=FILE"):
        OnnxProposals(preset="yolo").check()
    with pytest.raises(ValueError, match=r"proposals\.preset: expected yolo, .*fcos"):
        OnnxProposals(path=str(small_models.yolo_v8(tmp_path / "m.onnx"))).check()
    with pytest.raises(FileNotFoundError):
        OnnxProposals(path=str(tmp_path / "none.onnx"), preset="yolo").check()
