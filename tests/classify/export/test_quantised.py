"""INT8: a smaller file whose detections are near those of float32, as far as it was calibrated on such images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest

from detpipe.boxes import iou
from detpipe.class_path import load_class
from detpipe.classify.classifier_folder import RegionSpec
from detpipe.classify.export.detector_graph import DetectorExport
from detpipe.classify.export.graph_file import session
from detpipe.classify.kinds import KINDS
from detpipe.classify.settings import DetectConfig
from detpipe.structures import Detections, Image
from tests.classify.export.running import smooth, some_boxes
from tests.classify.export.test_detectors import fast_rcnn, rcnn

quantiser = pytest.importorskip("detpipe.classify.export.quantised")

IMAGES = [smooth(96, 128, seed) for seed in range(4)]
BOXES = some_boxes(40, 96, 128)


def exporting(kind: str) -> DetectorExport:
    network, spec = fast_rcnn(merge_width=64) if kind == "fast_rcnn" else rcnn()
    (of_kind,) = (one for one in KINDS if one.spec is type(spec))
    assert of_kind.export is not None
    assert isinstance(spec, RegionSpec)
    made: DetectorExport = load_class(of_kind.export)(network, spec, DetectConfig(max_proposals=40))
    return made


def int8(export: DetectorExport, images: Sequence[Image]) -> onnx.ModelProto:
    """The whole graph with quantised convolutions."""
    samples = (one for image in images for one in export.samples(image, BOXES))
    export.parts[export.CONVOLUTIONS] = quantiser.quantised(export.parts[export.CONVOLUTIONS], samples)
    return export.model()


def detections(model: onnx.ModelProto, path: Path) -> list[Detections]:
    onnx.save(model, path)
    run = session(path, threads=1)
    return [run(image, BOXES) for image in IMAGES]


def found_again(wanted: Sequence[Detections], found: Sequence[Detections]) -> float:
    """The share of detections with another one of their class, an IoU of at least 0.9 and a score within 0.01."""
    same = [
        (iou(one.boxes, two.boxes) >= 0.9)
        & (one.labels[:, None] == two.labels[None])
        & (np.abs(one.scores[:, None] - two.scores[None]) <= 0.01)
        for one, two in zip(wanted, found, strict=True)
    ]
    return float(np.concatenate([one.any(axis=1) for one in same]).mean())


def test_int8_is_smaller_and_near_float32(tmp_path: Path) -> None:
    export = exporting("fast_rcnn")
    plain, unquantised = export.model(), export.parts[export.CONVOLUTIONS]
    model = int8(export, IMAGES)
    assert model.ByteSize() < 0.6 * plain.ByteSize()
    wanted = detections(plain, tmp_path / "float.onnx")
    assert min(map(len, wanted)) > 0
    near = found_again(wanted, detections(model, tmp_path / "int8.onnx"))
    # Without contrast the ranges are too small, so the activations of the images are cut.
    export.parts[export.CONVOLUTIONS] = unquantised
    grey = int8(export, [np.full_like(IMAGES[0], 120)])
    assert near > 0.9 > found_again(wanted, detections(grey, tmp_path / "grey.onnx"))


def test_the_convolutions_are_quantised_and_nothing_else() -> None:
    export = exporting("rcnn")
    plain = {node.op_type for node in export.model().graph.node}
    model = int8(export, IMAGES[:1])
    body = next(node for node in model.graph.node if node.op_type == "Loop").attribute[0].g
    made = {name: node.op_type for node in body.node for name in node.output}
    convolutions = [node for node in body.node if node.op_type == "Conv"]
    assert convolutions
    for node in convolutions:
        assert {made[name] for name in node.input[:2]} == {"DequantizeLinear"}
    assert {node.op_type for node in model.graph.node} == plain


def test_no_images_to_calibrate_on() -> None:
    with pytest.raises(ValueError, match="calibration: expected images"):
        int8(exporting("rcnn"), [])
