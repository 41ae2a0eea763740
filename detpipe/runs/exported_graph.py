"""The graph of an exported detector under onnxruntime or OpenVINO: an image and its proposals in, detections out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from detpipe.classify.export.description import ANY_IMAGE, BOXES, IMAGE, ExportDescription
from detpipe.proposals.onnx_models.model_file import OnnxModelError, model_files
from detpipe.structures import Detections, Float32Array, Image

Axes = tuple[str, int, str]
"""Name, number of axes and dtype of an input or output."""
Arrays = dict[str, npt.NDArray[Any]]
OUTPUTS = [str(one["name"]) for one in ANY_IMAGE.outputs(0)]
"""The names of boxes, scores and labels."""


class Runtime(StrEnum):
    """The library that runs a graph."""

    onnxruntime = "onnxruntime"
    openvino = "openvino"


class Session(Protocol):
    """A graph that a library has opened. Threads may share it."""

    inputs: list[Axes]
    outputs: list[Axes]

    def run(self, given: Arrays) -> list[npt.NDArray[Any]]:
        """The boxes, scores and labels."""


class ExportedGraph:
    """The graph in a file. Threads may share it; a forked process must open it again.

    described: the description beside it. threads: of one image; 0, one per core.
    Raises OnnxModelError for a file that is not a graph, or of other inputs and outputs; the errors of `open_input` for
    the file; ImportError without the library.
    """

    def __init__(self, path: Path, runtime: Runtime, described: ExportDescription, *, threads: int = 0) -> None:
        self._path, self._proposals, self._batch = path, described.needs_boxes, described.batch
        model_files(path)  # before a library opens them
        try:
            self._session: Session = (_OpenVino if runtime is Runtime.openvino else _OnnxRuntime)(path, threads)
        except ImportError as error:
            extra = {Runtime.onnxruntime: "onnx", Runtime.openvino: "openvino"}[runtime]
            raise ImportError(
                f"runtime: expected the package {runtime}, found none; pip install 'detpipe[{extra}]'"
            ) from error
        except Exception as error:  # the libraries' exceptions have no common base
            raise OnnxModelError(
                f"{path}: expected a detector that {runtime} runs, got: {_first_line(error)}; copy the folder again, "
                "or export it again"
            ) from error
        for what, found, wanted in (
            ("inputs", self._session.inputs, described.inputs),
            ("outputs", self._session.outputs, described.outputs),
        ):
            expected = [(str(one["name"]), len(one["shape"]), str(one["dtype"])) for one in wanted]
            if sorted(found) != sorted(expected):
                raise OnnxModelError(
                    f"{path}: expected the {what} {_listed(expected)}, got {_listed(found)}; give the folder that "
                    "`detpipe export` wrote, or export it again"
                )

    @property
    def most(self) -> int:
        """The number of images that a call takes at most."""
        return self._batch or 1

    def __call__(self, images: Sequence[tuple[Image, Float32Array]]) -> list[Detections]:
        """The detections in each image (H, W, 3). With it come its proposals (R, 4); a graph that proposes itself
        ignores them.

        A graph with a fixed batch computes it in any case. Raises OnnxModelError if the graph fails, or returns
        something else than detections.
        """
        given: Arrays = dict(zip((IMAGE, BOXES), images[0], strict=True))
        if self._batch is not None:
            given = _stacked(images, self._batch or len(images))
        if not self._proposals:
            del given[BOXES]
        try:
            found = self._session.run(given)
            if self._batch is None:
                return [Detections(*found)]
            rows = [labels > 0 for labels in found[2][: len(images)]]
            return [Detections(*(one[place][row] for one in found)) for place, row in enumerate(rows)]
        except Exception as error:  # as above; a ValueError of `Detections` for outputs that are none
            shapes = ", ".join(f"{image.shape} with {len(boxes)} proposals" for image, boxes in images)
            raise OnnxModelError(
                f"{self._path}: expected detections in images of {shapes:.200}, got: {_first_line(error)}; export it "
                "again"
            ) from error


def _stacked(images: Sequence[tuple[Image, Float32Array]], count: int) -> Arrays:
    """The inputs of a graph with a batch, filled up with black images, and with proposals without an area."""
    most = max(len(boxes) for _, boxes in images)
    pixels = np.zeros((count, *images[0][0].shape), np.uint8)
    proposals = np.zeros((count, most, 4), np.float32)
    for place, (image, boxes) in enumerate(images):
        pixels[place] = image
        proposals[place, : len(boxes)] = boxes
    return {IMAGE: pixels, BOXES: proposals}


class _OnnxRuntime:
    def __init__(self, path: Path, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 4  # what it says is in its exceptions
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.inputs, self.outputs = map(self._axes, (self._session.get_inputs(), self._session.get_outputs()))

    @staticmethod
    def _axes(values: Iterable[Any]) -> list[Axes]:
        names = {"tensor(float)": "float32"}
        return [
            (one.name, len(one.shape), names.get(one.type, one.type.removeprefix("tensor(").removesuffix(")")))
            for one in values
        ]

    def run(self, given: Arrays) -> list[npt.NDArray[Any]]:
        found: list[npt.NDArray[Any]] = self._session.run(OUTPUTS, given)
        return found


class _OpenVino:
    def __init__(self, path: Path, threads: int) -> None:
        import openvino

        # Without a hint it computes in bf16 where the processor can, and the scores differ from the detector's.
        settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}
        if threads:
            settings["INFERENCE_NUM_THREADS"] = threads
        self._model = openvino.Core().compile_model(path, "CPU", settings)
        self.inputs, self.outputs = map(self._axes, (self._model.inputs, self._model.outputs))

    @staticmethod
    def _axes(values: Iterable[Any]) -> list[Axes]:
        ours = {IMAGE, BOXES, *OUTPUTS}  # a value may have several names
        return [
            (
                min(one.names & ours, default=one.any_name),
                one.partial_shape.rank.get_length(),
                np.dtype(one.element_type.to_dtype()).name,
            )
            for one in values
        ]

    def run(self, given: Arrays) -> list[npt.NDArray[Any]]:
        # A request of its own for each image: one that runs takes no second image from another thread.
        found = self._model.create_infer_request().infer(given)
        return [np.array(found[name]) for name in OUTPUTS]


def _listed(axes: Iterable[Axes]) -> str:
    return ", ".join(f"{name} ({dtype}, {count} axes)" for name, count, dtype in axes)[:300] or "none"


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]
