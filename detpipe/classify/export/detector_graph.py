"""What the graphs of all kinds of detectors share: their inputs, regions and outputs.

Inputs: `image` (H, W, 3) uint8 RGB of any size, and for detectors that don't propose themselves `proposals` (R, 4)
float32 in its pixels, best first. (Not `boxes`: an input and an output can't share a name.) Outputs: `boxes` (N, 4)
float32 in pixels of the image, `scores` (N,) float32, `labels` (N,) int64 from 1 to K, best first.
"""

from __future__ import annotations

import abc
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import onnx

from detpipe.classify.export.description import BOXES, inputs_of, outputs_of
from detpipe.classify.export.onnx_graph import Graph, Value
from detpipe.classify.export.selection import area, clipped, select
from detpipe.classify.settings import DetectConfig
from detpipe.structures import Float32Array, Image


class DetectorExport(abc.ABC):
    """The export of one kind of detector. parts: its traced parts by name; a part may be replaced by a quantised one.

    The constructor takes network, description and settings of detection, and traces the parts. Raises ExportError for a
    network that cannot be traced.
    """

    CONVOLUTIONS: ClassVar[str]
    """Name of the part with the backbone, the one that is quantised. It has one input."""
    parts: dict[str, onnx.ModelProto]

    @abc.abstractmethod
    def model(self) -> onnx.ModelProto:
        """The whole graph."""

    @abc.abstractmethod
    def samples(self, image: Image, boxes: Float32Array) -> Iterator[npt.NDArray[np.uint8]]:
        """Inputs of the part CONVOLUTIONS for an image and its proposals, to calibrate a quantised one."""


@dataclass(frozen=True, eq=False)
class Regions:
    """The regions of an image, and a spare one at the end, the whole image. It is never detected; no tensor is empty.

    boxes: (R, 4), with the spare one. count: R - 1, int64, a scalar. real: (R,) bool, false for the spare one.
    """

    boxes: Value
    count: Value
    real: Value


def opened(*, proposals: bool) -> tuple[Graph, Value]:
    """A new graph and its image. proposals: whether it has this input."""
    graph = Graph()
    image, *_ = (
        graph.input(str(one["name"]), str(one["dtype"]), one["shape"])  # type: ignore[arg-type]
        for one in inputs_of(proposals=proposals)
    )
    return graph, image


def given_regions(graph: Graph, most: Value, count: int) -> Regions:
    """The input `proposals`: the parts within the image, the first `count` that have an area, and the spare one."""
    boxes = clipped(Value(graph, BOXES, np.dtype(np.float32)), most)
    # The spare box comes first into the choice of rows, so that no tensor is empty.
    spare = graph.concat([graph.value([0.0, 0.0], np.float32), most.part(2, 4, 0)], axis=0).unsqueeze(0)
    rows = (area(graph.concat([boxes, spare], axis=0)) > 0.0).where()
    rows = rows.part(0, rows.size(0) - 1, 0).part(0, count, 0)
    return with_spare(graph, boxes.take(rows), most)


def with_spare(graph: Graph, boxes: Value, most: Value) -> Regions:
    """Boxes (R - 1, 4) followed by the spare one. most: the limits of the image, (4,)."""
    spare = graph.concat([graph.value([0.0, 0.0], np.float32), most.part(2, 4, 0)], axis=0).unsqueeze(0)
    count = boxes.size(0)
    return Regions(graph.concat([boxes, spare], axis=0), count, graph.range(count + 1) < count)


def finished(
    graph: Graph, regions: Regions, moved: Value | None, probabilities: Value, most: Value, config: DetectConfig
) -> onnx.ModelProto:
    """The model with the detections of scored regions as outputs. moved: (R, K, 4); None without box regression."""
    probabilities = graph.where(regions.real.unsqueeze(1), probabilities, -1.0)
    boxes = regions.boxes.unsqueeze(1) if moved is None else moved
    boxes, scores, labels = select(graph, boxes, probabilities, most, config)
    for value, one in zip((boxes, scores, labels), outputs_of(), strict=True):
        graph.output(value, str(one["name"]), one["shape"])  # type: ignore[arg-type]
    return graph.model({})
