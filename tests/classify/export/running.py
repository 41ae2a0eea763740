"""Run a small graph under onnxruntime and OpenVINO."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from detpipe.classify.export.onnx_graph import Graph, Value

Inputs = dict[str, npt.NDArray[Any]]


def model_of(inputs: Inputs, build: Callable[..., Sequence[Value]]) -> bytes:
    """The model of `build(graph, *inputs)`; all axes of its inputs have any length."""
    graph = Graph()
    values = [
        graph.input(name, one.dtype, [f"{name}{axis}" for axis in range(one.ndim)]) for name, one in inputs.items()
    ]
    for number, result in enumerate(build(graph, *values)):
        graph.output(result, f"result{number}", None)
    serialized: bytes = graph.model({}).SerializeToString()
    return serialized


def ran(inputs: Inputs, build: Callable[..., Sequence[Value]]) -> list[npt.NDArray[Any]]:
    """The results under onnxruntime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(model_of(inputs, build), providers=["CPUExecutionProvider"])
    found: list[npt.NDArray[Any]] = session.run(None, inputs)
    return found


def some_boxes(count: int, height: int, width: int, seed: int = 0) -> npt.NDArray[np.float32]:
    """(count, 4) float32. Each side is between 1/32 and all of the image's."""
    generator = np.random.default_rng(seed)
    size = np.array([width, height])
    sides = size * 2.0 ** generator.uniform(-5, 0, (count, 2))
    corner = generator.uniform(0, 1, (count, 2)) * (size - sides)
    return np.concatenate([corner, corner + sides], axis=1).astype(np.float32)


def smooth(height: int, width: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """(height, width, 3) uint8: smooth colours, as in a photo."""
    import cv2

    small = np.random.default_rng(seed).integers(0, 256, (height // 8 + 2, width // 8 + 2, 3)).astype(np.uint8)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)).reshape(height, width, 3)
