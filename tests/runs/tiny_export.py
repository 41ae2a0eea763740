"""Folders as `detpipe export` writes them, with graphs of a few operators."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from onnx import TensorProto

from detpipe.classify.export.description import (
    ANY_IMAGE,
    DESCRIPTION,
    GRAPH,
    ExportDescription,
    GraphForm,
    ImageForm,
)
from detpipe.storage.atomic import write_json
from tests.proposals.onnx_models.small_models import Graph


def write_graph(path: Path, *, needs_boxes: bool, label: int = 1) -> Path:
    """Without proposals it finds one object: the whole image, with the mean of its levels / 255 as the score.

    With proposals, each one is an object with a score of 0.5.
    """
    graph = Graph()
    inputs: dict[str, Any] = {"image": (["height", "width", 3], TensorProto.UINT8)}
    if needs_boxes:
        inputs["proposals"] = (["regions", 4], TensorProto.FLOAT)
        graph("Identity", "proposals", output="boxes")
        count = graph("Slice", graph("Shape", "proposals"), *(graph.constant([at], int) for at in (0, 1)))
        graph("Expand", graph.constant([0.5]), count, output="scores")
        graph("Expand", graph.constant([label], int), count, output="labels")
    else:
        sides = graph("Gather", graph("Shape", "image"), graph.constant([1, 0], int))
        corner = graph("Cast", sides, to=TensorProto.FLOAT)
        box = graph("Concat", graph.constant([0, 0]), corner, axis=0)
        graph("Reshape", box, graph.constant([1, 4], int), output="boxes")
        levels = graph("Div", graph("Cast", "image", to=TensorProto.FLOAT), graph.constant(255))
        graph("Reshape", graph("ReduceMean", levels, keepdims=0), graph.constant([1], int), output="scores")
        graph("Identity", graph.constant([label], int), output="labels")
    shapes = {str(one["name"]): one["shape"] for one in ANY_IMAGE.outputs(0)}
    return graph.save(path, inputs, ["boxes", "scores", ("labels", TensorProto.INT64)], shapes)


MOST = 3
"""The largest number of detections."""


def write_batched(path: Path, form: GraphForm) -> Path:
    """With proposals: the first MOST of an image are its detections, with the mean of its levels / 255 as the score."""
    graph = Graph()
    boxes, scores, labels = form.outputs(MOST)
    start, end, axis = (graph.constant([at], int) for at in (0, MOST, 1))
    graph("Slice", "proposals", start, end, axis, output="boxes")
    levels = graph("Div", graph("Cast", "image", to=TensorProto.FLOAT), graph.constant(255))
    mean = graph("Reshape", graph("ReduceMean", levels, axes=[1, 2, 3]), graph.constant([-1, 1], int))
    there = graph("Greater", graph("ReduceMax", "boxes", axes=[2], keepdims=0), graph.constant(0))
    graph("Mul", mean, graph("Cast", there, to=TensorProto.FLOAT), output="scores")
    graph("Cast", there, to=TensorProto.INT64, output="labels")
    inputs = {one["name"]: (one["shape"], kind) for one, kind in zip(form.inputs(proposals=True), KINDS, strict=True)}
    shapes = {one["name"]: one["shape"] for one in (boxes, scores, labels)}
    return graph.save(path, inputs, ["boxes", "scores", ("labels", TensorProto.INT64)], shapes)


KINDS = (TensorProto.UINT8, TensorProto.FLOAT)
"""Of the elements of the inputs."""


def write_export(folder: Path, *, needs_boxes: bool = False, label: int = 1, **changed: Any) -> Path:
    """The folder of an export with the classes cat and dog. changed: other values of detector.json."""
    form = GraphForm(changed["image"].size if "image" in changed else None, changed.get("batch"))
    values: dict[str, Any] = {
        "opset": 17,
        "kind": "tiny",
        "classes": ("cat", "dog"),
        "category_ids": (1, 2),
        "needs_boxes": needs_boxes,
        "inputs": form.inputs(proposals=needs_boxes),
        "outputs": form.outputs(MOST),
        "image": ImageForm(),
        "proposals": {"method": "SlidingWindow", "max_proposals": 5} if needs_boxes else None,
        "detect": {"max_proposals": 3, "max_detections": MOST},
        "precision": "float32",
        "quantize": "none",
    }
    if form.batch is None:
        write_graph(folder / GRAPH, needs_boxes=needs_boxes, label=label)
    else:
        write_batched(folder / GRAPH, form)
    write_json(folder / DESCRIPTION, ExportDescription(**{**values, **changed}).to_json())
    return folder
