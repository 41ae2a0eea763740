"""Write a graph as an .onnx file and run it; and compare its detections with the detector's.

R: regions. D, E: detections.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from detpipe import boxes as geometry
from detpipe.classify.export.traced_part import ExportError, first_line
from detpipe.storage.atomic import replaced
from detpipe.storage.tensor_file import disk_error
from detpipe.structures import BoolArray, Detections, Float32Array, Image

TOLERANCE = 1e-3
"""Largest difference of the scores of the same detection."""

SAME_BOX = 0.95
"""Smallest IoU of the boxes of the same detection."""

LEAST_AGREEMENT = 0.95
"""Smallest share of the detections that must be the same. Where an IoU or a score is at a threshold, the last bit of a
sum decides which detection stays, so a few may differ."""

Run = Callable[[Image, Float32Array], Detections]
"""Runs a detector on an image (H, W, 3) and its proposals (R, 4); a graph that proposes itself ignores these."""


@dataclass(frozen=True)
class Agreement:
    """How far two detectors agree. detections: of both together. same: of these, those that the other one has too.

    scores, pixels: the largest difference of the scores, and of the corners of the boxes, of the same detections.
    """

    detections: int
    same: int
    scores: float
    pixels: float

    @property
    def share(self) -> float:
        """The share of the detections that are the same; 1 without any."""
        return self.same / self.detections if self.detections else 1.0


def compare(pairs: Iterable[tuple[Detections, Detections]]) -> Agreement:
    """Compare the detections of two detectors, image by image, by class and box, whatever their order."""
    detections = same = 0
    scores = pixels = 0.0
    for ours, theirs in pairs:
        detections += len(ours) + len(theirs)
        is_same, difference, distance = _matrix(ours, theirs)
        same += int(is_same.any(axis=1).sum() + is_same.any(axis=0).sum())
        scores = max(scores, float(difference[is_same].max(initial=0.0)))
        pixels = max(pixels, float(distance[is_same].max(initial=0.0)))
    return Agreement(detections, same, scores, pixels)


def _matrix(ours: Detections, theirs: Detections) -> tuple[BoolArray, Float32Array, Float32Array]:
    """(D, E): whether two detections are the same, the difference of their scores, and of their corners."""
    difference = np.abs(ours.scores[:, None] - theirs.scores[None])
    distance = np.abs(ours.boxes[:, None] - theirs.boxes[None]).max(axis=2, initial=0)
    near = geometry.iou(ours.boxes, theirs.boxes) >= SAME_BOX
    return near & (difference <= TOLERANCE) & (ours.labels[:, None] == theirs.labels[None]), difference, distance


def check_onnx_packages(names: Iterable[str] = ("onnx", "onnxscript", "onnxruntime")) -> None:
    """Raise ImportError if a package for ONNX is missing."""
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(
            f"export: expected the packages {', '.join(missing)}, got none; pip install 'detpipe[export]'"
        )


def write_onnx(
    model: onnx.ModelProto, path: Path, check: Callable[[Run], Agreement], *, least: float = LEAST_AGREEMENT
) -> Agreement:
    """Write a model atomically, after `check` has run the written file. Returns the result of `check`.

    least: smallest share of the detections that must be the same.

    Raises ExportError if onnxruntime rejects the graph, or if too few detections are the same, and OSError if the disk
    is full. Then no file is written.
    """
    with replaced(path) as scratch:
        try:
            onnx.save(model, scratch)
        except OSError as error:
            raise disk_error(path, error) from error
        agreement = check(session(scratch))
        if not agreement.share >= least:
            raise ExportError(
                f"the graph is wrong: expected the detections of the detector, got {agreement.same} of "
                f"{agreement.detections} with the same class, box and score; please report it"
            )
    return agreement


def session(path: Path, *, threads: int = 0) -> Run:
    """Open a file in onnxruntime, on the CPU. threads: 0, one per core. A graph with a batch gets the same image in it.

    Opening and running raise ExportError if it rejects the graph.
    """
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as errors

    rejections = (errors.Fail, errors.InvalidGraph, errors.NotImplemented, errors.RuntimeException)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # only errors: it warns of the shapes that depend on values
    try:
        context = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except rejections as error:
        raise ExportError(f"onnxruntime rejects the graph: {first_line(error)}") from error
    names = [one.name for one in context.get_inputs()]
    first = context.get_inputs()[0].shape
    batch = None if len(first) == 3 else first[0] if isinstance(first[0], int) else 1

    def run(image: Image, boxes: Float32Array) -> Detections:
        given: dict[str, npt.NDArray[Any]] = {"image": np.ascontiguousarray(image), "proposals": boxes}
        if batch is not None:
            given = {name: np.stack([value] * batch) for name, value in given.items()}
        try:
            found, scores, labels = context.run(["boxes", "scores", "labels"], {name: given[name] for name in names})
        except rejections as error:
            raise ExportError(f"the graph fails at {image.shape}, {boxes.shape}: {first_line(error)}") from error
        if batch is not None:
            rows = labels[-1] > 0
            found, scores, labels = found[-1][rows], scores[-1][rows], labels[-1][rows]
        return Detections(found, scores, labels)

    return run
