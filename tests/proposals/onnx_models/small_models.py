"""Small ONNX models in the layouts of known projects. They find the one red rectangle of their input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
RED = 140 / 255
"""Between the red rectangle and what is around it, also halfway between both, and above the fill of YOLO, 114."""


class Graph:
    """A graph under construction. Each method adds a node and returns the name of its output."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def __call__(self, op: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        name = output or f"{op}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], **attributes))
        return name

    def constant(self, value: Any, dtype: type = np.float32) -> str:
        name = f"weight_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def save(
        self,
        path: Path,
        inputs: Mapping[str, tuple[Sequence[Any], int]],
        outputs: Sequence[str | tuple[str, int]],
        shapes: Mapping[str, Any] | None = None,
    ) -> Path:
        """inputs: name -> (shape, type). outputs: names of floats, or (name, type). shapes: of outputs, if stated."""
        named = [one if isinstance(one, tuple) else (one, TensorProto.FLOAT) for one in outputs]
        graph = helper.make_graph(
            self.nodes,
            "small",
            [helper.make_tensor_value_info(name, kind, shape) for name, (shape, kind) in inputs.items()],
            [helper.make_tensor_value_info(name, kind, (shapes or {}).get(name)) for name, kind in named],
            self.weights,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
        path.parent.mkdir(parents=True, exist_ok=True)
        onnx.save(model, path)
        return path


def red_box(graph: Graph, image: str, *, channel: int = 0, above: float, last: bool = False) -> tuple[str, str]:
    """Add nodes that find the rectangle in a channel whose values are above a number.

    image: (1, 3, H, W), or (1, H, W, 3) if `last`. Returns the box (1, 4), x1 y1 x2 y2 in pixels of the input, and its
    input size (4), W H W H.
    """
    if last:
        image = graph("Transpose", graph("Cast", image, to=TensorProto.FLOAT), perm=[0, 3, 1, 2])
    one = graph("Gather", image, graph.constant(channel, np.int64), axis=1)  # (1, H, W)
    mask = graph("Cast", graph("Greater", one, graph.constant(above)), to=TensorProto.FLOAT)
    shape = graph("Cast", graph("Shape", mask), to=TensorProto.FLOAT)
    sides = {axis: graph("Gather", shape, graph.constant(axis, np.int64), axis=0) for axis in (1, 2)}
    ends = []
    for axis, other in ((2, 1), (1, 2)):  # x, then y
        profile = graph("ReduceMax", mask, axes=[0, other], keepdims=0)
        ones = graph("Add", graph("Mul", profile, graph.constant(0)), graph.constant(1))
        behind = graph("CumSum", ones, graph.constant(0, np.int64))
        from_end = graph("CumSum", ones, graph.constant(0, np.int64), reverse=1)
        far = graph("ReduceMax", graph("Mul", profile, behind), keepdims=1)
        near = graph("Sub", sides[axis], graph("ReduceMax", graph("Mul", profile, from_end), keepdims=1))
        ends.append((near, far))
    box = graph("Concat", ends[0][0], ends[1][0], ends[0][1], ends[1][1], axis=0)
    size = graph("Gather", shape, graph.constant([2, 1, 2, 1], np.int64), axis=0)
    return graph("Unsqueeze", box, graph.constant([0], np.int64)), size


def centre_form(graph: Graph, box: str) -> str:
    """(1, 4) corners -> (1, 4) centre and size."""
    first, second = graph("Split", box, axis=1), f"{box}_second"
    graph.nodes[-1].output.append(second)
    centre = graph("Mul", graph("Add", first, second), graph.constant(0.5))
    return graph("Concat", centre, graph("Sub", second, first), axis=1)


def rows_of(graph: Graph, box: str, *numbers: float, below: int = 3) -> str:
    """(1, 4) -> (1, 1 + below, 4 + numbers): the box with numbers behind it, and rows of small scores below."""
    row = graph("Concat", box, graph.constant([numbers]), axis=1)
    rest = np.zeros((below, 4 + len(numbers)), np.float32)
    rest[:, :4] = [2, 2, 6, 6]
    return graph("Unsqueeze", graph("Concat", row, graph.constant(rest), axis=0), graph.constant([0], np.int64))


PIXELS = ([1, 3, 64, 64], TensorProto.FLOAT)


def yolo_v8(path: Path, shape: Sequence[Any] = PIXELS[0], classes: int = 2, below: int = 9) -> Path:
    """(1, 4 + classes, N): cx cy w h in pixels, then scores."""
    graph = Graph()
    box, _ = red_box(graph, "images", above=RED)
    rows = rows_of(graph, centre_form(graph, box), 0.25, 0.75, *[0.0] * (classes - 2), below=below)
    graph("Transpose", rows, output="output0", perm=[0, 2, 1])
    return graph.save(path, {"images": (shape, TensorProto.FLOAT)}, ["output0"])


def yolo_v5(path: Path) -> Path:
    """(1, N, 5 + classes): cx cy w h, objectness, scores."""
    graph = Graph()
    box, _ = red_box(graph, "images", above=RED)
    graph("Identity", rows_of(graph, centre_form(graph, box), 0.5, 0.25, 0.75, below=9), output="output0")
    return graph.save(path, {"images": PIXELS}, ["output0"])


def yolo_v10(path: Path) -> Path:
    """(1, N, 6): x1 y1 x2 y2 score class; empty rows are zeros."""
    graph = Graph()
    box, _ = red_box(graph, "images", above=RED)
    row = graph("Concat", box, graph.constant([[0.75, 1]]), graph.constant(np.zeros((1, 6))), axis=-1)
    graph("Reshape", row, graph.constant([1, 2, 6], np.int64), output="output0")
    return graph.save(path, {"images": PIXELS}, ["output0"])


def rt_detr(path: Path) -> Path:
    """labels (1, N), boxes (1, N, 4) in pixels of orig_target_sizes (width, height), scores (1, N)."""
    graph = Graph()
    box, size = red_box(graph, "images", above=RED)
    target = graph("Cast", graph("Tile", "orig_target_sizes", graph.constant([1, 2], np.int64)), to=TensorProto.FLOAT)
    scaled = graph("Mul", graph("Div", box, size), target)
    graph("Unsqueeze", scaled, graph.constant([0], np.int64), output="boxes")
    graph("Identity", graph.constant([[3]], np.int64), output="labels")
    graph("Identity", graph.constant([[0.75]]), output="scores")
    inputs = {"images": (["N", 3, 64, 64], TensorProto.FLOAT), "orig_target_sizes": (["N", 2], TensorProto.INT64)}
    return graph.save(path, inputs, [("labels", TensorProto.INT64), "boxes", "scores"])


def rf_detr(path: Path) -> Path:
    """dets (1, N, 4) as shares cx cy w h, labels (1, N, C) logits; the input is normalised as ImageNet's."""
    graph = Graph()
    box, size = red_box(graph, "input", above=(140 - 123.675) / 58.395)
    shares = graph("Div", centre_form(graph, box), size)
    graph("Unsqueeze", shares, graph.constant([0], np.int64), output="dets")
    graph("Identity", graph.constant([[[-3.0, np.log(3.0)]]]), output="labels")
    return graph.save(path, {"input": PIXELS}, ["dets", "labels"])


def torchvision_ssd(path: Path) -> Path:
    """boxes (N, 4) in pixels, scores (N,), labels (N,); the input is one image (3, H, W) of any size, 0 to 1."""
    graph = Graph()
    image = graph("Unsqueeze", "image", graph.constant([0], np.int64))
    box, _ = red_box(graph, image, above=RED)
    graph("Identity", box, output="boxes")
    graph("Identity", graph.constant([0.75]), output="scores")
    graph("Identity", graph.constant([3], np.int64), output="labels")
    return graph.save(
        path, {"image": ([3, "H", "W"], TensorProto.FLOAT)}, ["boxes", ("labels", TensorProto.INT64), "scores"]
    )


def tensorflow_ssd(path: Path) -> Path:
    """detection_boxes (1, N, 4) as shares y1 x1 y2 x2, detection_scores (1, N); the input is bytes (1, H, W, 3)."""
    graph = Graph()
    box, size = red_box(graph, "input_tensor", above=140, last=True)
    shares = graph("Gather", graph("Div", box, size), graph.constant([1, 0, 3, 2], np.int64), axis=1)
    graph("Unsqueeze", shares, graph.constant([0], np.int64), output="detection_boxes")
    graph("Identity", graph.constant([[0.75]]), output="detection_scores")
    graph("Identity", graph.constant([[3.0]]), output="detection_classes")
    graph("Identity", graph.constant([1.0]), output="num_detections")
    outputs = ["detection_boxes", "detection_classes", "detection_scores", "num_detections"]
    return graph.save(path, {"input_tensor": ([1, "H", "W", 3], TensorProto.UINT8)}, outputs)


def mmdet_fcos(path: Path) -> Path:
    """dets (1, N, 5): x1 y1 x2 y2 score in pixels of the input, labels (1, N); the input is BGR less a mean."""
    graph = Graph()
    box, _ = red_box(graph, "input", channel=2, above=140 - 122.7717)
    graph("Identity", rows_of(graph, box, 0.75), output="dets")
    graph("Identity", graph.constant([[3, 0, 0, 0]], np.int64), output="labels")
    return graph.save(
        path, {"input": ([1, 3, "height", "width"], TensorProto.FLOAT)}, ["dets", ("labels", TensorProto.INT64)]
    )
