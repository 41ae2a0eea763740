"""The graph of an exported detector under onnxruntime or OpenVINO: an image and its proposals in, detections out."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from detpipe.classify.export.description import BOXES, IMAGE, inputs_of, outputs_of
from detpipe.proposals.onnx_models.model_file import OnnxModelError, model_files
from detpipe.structures import Detections, Float32Array, Image

Axes = tuple[str, int, str]
"""Name, number of axes and dtype of an input or output."""
Arrays = dict[str, npt.NDArray[Any]]


class Runtime(StrEnum):
    """The library that runs a graph."""

    onnxruntime = "onnxruntime"
    openvino = "openvino"


class Session(Protocol):
    """A graph that a library has opened. Threads may share it."""

    inputs: list[Axes]
    outputs: list[Axes]

    def run(self, given: Arrays) -> list[npt.NDArray[Any]]:
        """The outputs, in the order of `outputs_of`."""


class ExportedGraph:
    """The graph in a file. Threads may share it; a forked process must open it again.

    proposals: whether it has this input. threads: of one image; 0, one per core.
    Raises OnnxModelError for a file that is no graph, or of other inputs and outputs; the errors of `open_input` for
    the file; ImportError without the library.
    """

    def __init__(self, path: Path, runtime: Runtime, *, proposals: bool, threads: int = 0) -> None:
        self._path, self._proposals = path, proposals
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
            ("inputs", self._session.inputs, inputs_of(proposals=proposals)),
            ("outputs", self._session.outputs, outputs_of()),
        ):
            expected = [(str(one["name"]), len(one["shape"]), str(one["dtype"])) for one in wanted]  # type: ignore[arg-type]
            if sorted(found) != sorted(expected):
                raise OnnxModelError(
                    f"{path}: expected the {what} {_listed(expected)}, got {_listed(found)}; give the folder that "
                    "`detpipe export` wrote, or export it again"
                )

    def __call__(self, image: Image, boxes: Float32Array) -> Detections:
        """The detections in an image (H, W, 3). boxes: its proposals (R, 4); a graph that proposes itself ignores them.

        Raises OnnxModelError if the graph fails, or returns something else than detections.
        """
        given: Arrays = {IMAGE: image, BOXES: boxes} if self._proposals else {IMAGE: image}
        try:
            return Detections(*self._session.run(given))
        except Exception as error:  # as above; a ValueError of `Detections` for outputs that are none
            raise OnnxModelError(
                f"{self._path}: expected detections in an image {image.shape} with {len(boxes)} proposals, got: "
                f"{_first_line(error)}; export it again"
            ) from error


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
        found: list[npt.NDArray[Any]] = self._session.run([str(one["name"]) for one in outputs_of()], given)
        return found


class _OpenVino:
    def __init__(self, path: Path, threads: int) -> None:
        import openvino

        # Without a hint it computes in bf16 where the processor can, and the scores differ from those of the detector.
        settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}
        if threads:
            settings["INFERENCE_NUM_THREADS"] = threads
        self._model = openvino.Core().compile_model(path, "CPU", settings)
        self.inputs, self.outputs = map(self._axes, (self._model.inputs, self._model.outputs))

    @staticmethod
    def _axes(values: Iterable[Any]) -> list[Axes]:
        ours = {
            str(one["name"]) for one in (*inputs_of(proposals=True), *outputs_of())
        }  # a value may have several names
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
        return [np.array(found[str(one["name"])]) for one in outputs_of()]


def _listed(axes: Iterable[Axes]) -> str:
    return ", ".join(f"{name} ({dtype}, {count} axes)" for name, count, dtype in axes)[:300] or "none"


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]
