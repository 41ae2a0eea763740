"""Write graphs that run without detpipe: ONNX files, and the .pt2 files of torch.export.

A written file is run and compared with the network.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from detpipe.classify.export.network_graph import NetworkGraph
from detpipe.storage.atomic import replaced
from detpipe.storage.tensor_file import disk_error, write_buffer

TOLERANCE = 1e-3
"""Largest difference allowed between the results of a file and of the network."""

ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")

Run = Callable[[Mapping[str, Tensor]], Sequence[Any]]
"""Runs a graph: takes inputs by name, returns results as arrays."""


class ExportError(ValueError):
    """A network that cannot be exported as a graph, or whose graph gives different results."""


def check_onnx_packages() -> None:
    """Raise ImportError if a package for ONNX is missing."""
    missing = [name for name in ONNX_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(
            f"format=onnx: expected {', '.join(missing)}, got none; pip install 'detpipe[export]', or use format=torch"
        )


def write_torch(graph: NetworkGraph, path: Path) -> float:
    """Write a .pt2 file atomically. Returns the largest difference between its results and the network's.

    Raises ExportError if the network cannot be exported.
    """
    program = exported(graph)
    # To memory first: on a full disk, torch's own writer ends the process with a signal.
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    module = torch.export.load(file).module()  # safe: our own file
    difference = largest_difference(graph, lambda example: _ran(module, example))
    write_buffer(path, file)
    return difference


def write_onnx(graph: NetworkGraph, path: Path) -> float:
    """Write an .onnx file atomically. Returns the largest difference between onnxruntime's results and the network's.

    Raises ImportError if a package is missing, and ExportError if the network cannot be exported.
    """
    check_onnx_packages()
    torch_program = exported(graph)
    try:
        with _only_errors():
            program = torch.onnx.export(
                torch_program,
                dynamo=True,
                input_names=list(graph.dynamic),
                output_names=list(graph.outputs),
                dynamic_shapes={name: dict(axes) for name, axes in graph.dynamic.items()},
                custom_translation_table={torch.ops.torchvision.roi_pool.default: _max_roi_pool},
                verbose=False,
            )
    except RuntimeError as error:  # the base class of torch's export errors
        raise ExportError(f"this network cannot be exported to ONNX: {_first_line(error)}; try format=torch") from error
    assert program is not None
    with replaced(path) as scratch:
        try:
            program.save(scratch)
        except OSError as error:
            raise disk_error(path, error) from error
        difference = largest_difference(graph, _session(scratch))
    return difference


def exported(graph: NetworkGraph) -> ExportedProgram:
    """Trace the network on the first example. Raises ExportError if torch.export fails."""
    any_length = {name: dict.fromkeys(axes, torch.export.Dim.DYNAMIC) for name, axes in graph.dynamic.items()}
    network = graph.network.to(memory_format=torch.contiguous_format)  # a .pt2 file does not store channels_last
    try:
        with torch.no_grad(), _only_errors():
            return torch.export.export(
                network, tuple(graph.examples[0].values()), dynamic_shapes=any_length, strict=False
            )
    except RuntimeError as error:
        raise ExportError(f"this network cannot be exported with dynamic sizes: {_first_line(error)}") from error


def largest_difference(graph: NetworkGraph, run: Run) -> float:
    """The largest difference between the results of graph and network over all examples.

    Raises ExportError for a difference above TOLERANCE, and for results of different shapes.
    """
    differences = [0.0]
    for example in graph.examples:
        with torch.no_grad():
            expected = _arrays(graph.network(*example.values()))
        for ours, theirs in zip(expected, run(example), strict=True):
            if ours.shape != theirs.shape:
                raise ExportError(f"the graph is wrong: expected results of shape {ours.shape}, got {theirs.shape}")
            differences.append(float(np.abs(ours - theirs).max(initial=0.0)))
    largest = float(np.max(differences))  # np.max returns NaN if there is one; Python's max may skip it
    if not largest <= TOLERANCE:
        raise ExportError(f"the graph is wrong: its results differ by {largest:.2g}, more than {TOLERANCE}")
    return largest


@contextlib.contextmanager
def _only_errors() -> Iterator[None]:
    """Show only errors of torch.export and onnxscript.

    torch warns, with a long traceback, of each size comparison that it cannot resolve; our dynamic axes cause them.
    onnxscript logs each node that it simplifies.
    """
    loggers = [logging.getLogger(name) for name in ("torch.fx.experimental.symbolic_shapes", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _ran(module: nn.Module, example: Mapping[str, Tensor]) -> Sequence[Any]:
    """The results of torch's program. Raises ExportError if its guards reject the shapes of the example."""
    try:
        return _arrays(module(*example.values()))
    except (RuntimeError, AssertionError) as error:  # raised by its guards
        raise ExportError(f"the graph fails at {_shapes(example)}: {_first_line(error)}") from error


def _session(path: Path) -> Run:
    """Open a file in onnxruntime. Opening and running raise ExportError if onnxruntime rejects the graph."""
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as errors

    rejections = (errors.Fail, errors.InvalidGraph, errors.NotImplemented, errors.RuntimeException)
    try:
        context = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    except rejections as error:
        raise ExportError(f"onnxruntime rejects the graph: {_first_line(error)}; try format=torch") from error

    def run(example: Mapping[str, Tensor]) -> Sequence[Any]:
        try:
            results: Sequence[Any] = context.run(None, {name: tensor.numpy() for name, tensor in example.items()})
        except rejections as error:
            raise ExportError(f"the graph fails at {_shapes(example)}: {_first_line(error)}") from error
        return results

    return run


def _shapes(example: Mapping[str, Tensor]) -> str:
    return ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in example.items())


def _max_roi_pool(feature_map: Any, regions: Any, scale: float, height: int, width: int) -> tuple[Any, Any]:
    """RoIPool in ONNX. torchvision's second result, the index of each maximum, does not exist there."""
    from onnxscript import opset18

    pooled = opset18.MaxRoiPool(feature_map, regions, pooled_shape=(height, width), spatial_scale=scale)
    return pooled, opset18.Identity(pooled)


def _arrays(tensors: Sequence[Tensor]) -> list[Any]:
    return [tensor.detach().numpy() for tensor in tensors]


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
