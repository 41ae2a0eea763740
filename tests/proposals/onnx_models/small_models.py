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
    graph("Concat", rows_of(graph, box, 0.75, 1), graph.constant(np.zeros((1, 1, 6))), axis=1, output="output0")
    return graph.save(path, {"images": PIXELS}, ["output0"])


def yolo_v7_nms(path: Path) -> Path:
    """(N, 7): number of the image, x1 y1 x2 y2, class, score."""
    graph = Graph()
    box, _ = red_box(graph, "images", above=RED)
    graph("Concat", graph.constant([[0]]), box, graph.constant([[3, 0.75]]), axis=1, output="output")
    return graph.save(path, {"images": PIXELS}, ["output"])


def yolox(path: Path) -> Path:
    """(1, 84, 5 + C) for 84 cells: offsets and logarithms of sizes in cells, objectness, scores; BGR, 0 to 255."""
    graph = Graph()
    box, _ = red_box(graph, "images", channel=2, above=140)
    centre, size = graph("Split", graph("Div", centre_form(graph, box), graph.constant(8)), axis=1), "size"
    graph.nodes[-1].output.append(size)
    relative = graph("Concat", centre, graph("Log", size), axis=1)
    row = graph("Concat", relative, graph.constant([[0.5, 0.25, 0.75]]), axis=1)
    rows = graph("Concat", row, graph.constant(np.zeros((83, 7))), axis=0)
    graph("Unsqueeze", rows, graph.constant([0], np.int64), output="output")
    return graph.save(path, {"images": PIXELS}, ["output"])


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


def detr_transformers(path: Path) -> Path:
    """logits (1, N, C + 1), no object last, and pred_boxes as shares; any size, less ImageNet's mean, and a mask."""
    graph = Graph()
    box, size = red_box(graph, "pixel_values", above=(140 - 123.675) / 58.395)
    graph("Unsqueeze", graph("Div", centre_form(graph, box), size), graph.constant([0], np.int64), output="pred_boxes")
    whole = graph("ReduceMin", graph("Cast", "pixel_mask", to=TensorProto.FLOAT), keepdims=0)
    logits = graph.constant([[[-3.0, np.log(3.0), 0.0]]])  # e^-3 is 0.05
    graph("Mul", logits, whole, output="logits")
    inputs = {
        "pixel_values": (["b", "c", "h", "w"], TensorProto.FLOAT),
        "pixel_mask": (["b", "h", "w"], TensorProto.INT64),
    }
    return graph.save(path, inputs, ["logits", "pred_boxes"])


def rt_detr_transformers(path: Path) -> Path:
    """logits (1, N, C), pred_boxes as shares, and a hidden state; the input is 0 to 1."""
    graph = Graph()
    box, size = red_box(graph, "pixel_values", above=RED)
    graph("Unsqueeze", graph("Div", centre_form(graph, box), size), graph.constant([0], np.int64), output="pred_boxes")
    graph("Identity", graph.constant([[[-3.0, np.log(3.0)]]]), output="logits")
    graph("Identity", graph.constant(np.zeros((1, 1, 4))), output="last_hidden_state")
    return graph.save(path, {"pixel_values": PIXELS}, ["logits", "pred_boxes", "last_hidden_state"])


def rt_detr_ultralytics(path: Path) -> Path:
    """(1, N, 6): centre, width, height as shares, score, class."""
    graph = Graph()
    box, size = red_box(graph, "images", above=RED)
    graph("Identity", rows_of(graph, graph("Div", centre_form(graph, box), size), 0.75, 3, below=0), output="output0")
    return graph.save(path, {"images": PIXELS}, ["output0"])


def paddle(path: Path) -> Path:
    """(N, 6): class, score, x1 y1 x2 y2 in pixels over scale_factor, with a row of -1; and the number of boxes."""
    graph = Graph()
    box, _ = red_box(graph, "image", above=RED)
    scale = graph("Tile", "scale_factor", graph.constant([1, 2], np.int64))
    row = graph("Concat", graph.constant([[3, 0.75]]), graph("Div", box, scale), axis=1)
    graph("Concat", row, graph.constant(np.full((1, 6), -1)), axis=0, output="boxes")
    graph("Identity", graph.constant([1], np.int32), output="count")
    inputs = {"image": PIXELS, "scale_factor": ([1, 2], TensorProto.FLOAT)}
    return graph.save(path, inputs, ["boxes", ("count", TensorProto.INT32)])


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
