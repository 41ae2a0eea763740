"""What the graphs of all kinds of detectors share: their inputs, regions and outputs.

Inputs: `image` (H, W, 3) uint8 RGB of any size, and for detectors that don't propose themselves `proposals` (R, 4)
float32 in its pixels, best first. (Not `boxes`: an input and an output can't share a name.) Outputs: `boxes` (N, 4)
float32 in pixels of the image, `scores` (N,) float32, `labels` (N,) int64 from 1 to K, best first.

With a batch, all have a first axis B, and the outputs max_detections rows for each image, of which unused ones are 0.
Proposals without an area are left out, so they can fill up an image's list. The images are computed one by one.
"""

from __future__ import annotations

import abc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import onnx

from detpipe.classify.export.description import ANY_IMAGE, GraphForm
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
    config: DetectConfig
    proposes: bool = False
    """Whether the network proposes itself."""

    @abc.abstractmethod
    def detections(self, graph: Graph, image: Value, proposals: Value | None) -> Found:
        """Boxes (N, 4), scores (N,) and labels (N,) of an image (H, W, 3). proposals: (R, 4), None if it proposes."""

    @abc.abstractmethod
    def samples(self, image: Image, boxes: Float32Array) -> Iterator[npt.NDArray[np.uint8]]:
        """Inputs of the part CONVOLUTIONS for an image and its proposals, to calibrate a quantised one."""

    def model(self, form: GraphForm = ANY_IMAGE) -> onnx.ModelProto:
        """The whole graph, for images of these sizes."""
        graph, most = Graph(), self.config.max_detections
        inputs = [
            graph.input(one["name"], one["dtype"], one["shape"]) for one in form.inputs(proposals=not self.proposes)
        ]

        def found_by(graph: Graph, given: Sequence[Value]) -> Found:
            return self.detections(graph, given[0], given[1] if len(given) > 1 else None)

        def of_one(inner: Graph, index: Value) -> list[Value]:
            given = [inner.use(one).take(index) for one in inputs]
            return filled_up(inner, found_by(inner, given), most)

        found = found_by(graph, inputs) if form.batch is None else graph.loop(inputs[0].size(0), of_one)
        for value, one in zip(found, form.outputs(most), strict=True):
            graph.output(value, one["name"], one["shape"])
        return graph.model({})


Found = tuple[Value, Value, Value]
"""Boxes (N, 4), scores (N,) and labels (N,)."""


def filled_up(graph: Graph, found: Found, most: int) -> list[Value]:
    """Detections with rows of 0 at the end: (most, 4), (most,), (most,)."""
    boxes, scores, labels = found
    missing = graph.value(most, np.int64) - scores.size(0)
    pads = graph.shape(0, missing)
    return [
        graph.op("Pad", boxes, graph.shape(0, 0, missing, 0)).reshape(most, 4),
        graph.op("Pad", scores, pads).reshape(most),
        graph.op("Pad", labels, pads).reshape(most),
    ]


@dataclass(frozen=True, eq=False)
class Regions:
    """The regions of an image, and a spare one at the end, the whole image. It is never detected; no tensor is empty.

    boxes: (R, 4), with the spare one. count: R - 1, int64, a scalar. real: (R,) bool, false for the spare one.
    """

    boxes: Value
    count: Value
    real: Value


def given_regions(graph: Graph, proposals: Value, most: Value, count: int) -> Regions:
    """The proposals (R, 4): the parts within the image, the first `count` that have an area, and the spare one."""
    boxes = clipped(proposals, most)
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
) -> Found:
    """The detections of scored regions. moved: (R, K, 4); None without box regression."""
    probabilities = graph.where(regions.real.unsqueeze(1), probabilities, -1.0)
    boxes = regions.boxes.unsqueeze(1) if moved is None else moved
    return select(graph, boxes, probabilities, most, config)
