"""Files of graphs, which run without detpipe: ONNX, and torch.export's .pt2. What is written gives the same numbers."""

from __future__ import annotations

import contextlib
import importlib.util
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

TOLERANCE = 1e-3
"""A file whose numbers differ by more from the network's is refused."""

ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")

Run = Callable[[Mapping[str, Tensor]], Sequence[Any]]
"""A graph at work: from inputs by name to its results, arrays."""


class ExportError(ValueError):
    """A network that can't be drawn as a graph, or whose graph gives other numbers."""


def check_onnx_packages() -> None:
    """Raise ImportError where one is missing."""
    missing = [name for name in ONNX_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(f"format=onnx: expected {', '.join(missing)}; pip install 'detpipe[export]', or format=torch")


def write_torch(graph: NetworkGraph, path: Path) -> float:
    """Write a .pt2, whole or not at all; the largest difference between its results and the network's.

    Raises ExportError where there is no such graph.
    """
    program = exported(graph)
    with replaced(path) as scratch, scratch.open("wb+") as file:
        torch.export.save(program, file)
        file.seek(0)
        module = torch.export.load(file).module()  # our own file, a moment old
        return largest_difference(graph, lambda example: _ran(module, example))


def write_onnx(graph: NetworkGraph, path: Path) -> float:
    """Write an .onnx, whole or not at all; the largest difference between onnxruntime's results and the network's.

    Raises ImportError where a package is missing, ExportError where there is no such graph.
    """
    check_onnx_packages()
    drawn = exported(graph)
    try:
        with _only_errors():
            program = torch.onnx.export(
                drawn,
                dynamo=True,
                input_names=list(graph.dynamic),
                output_names=list(graph.outputs),
                dynamic_shapes={name: dict(axes) for name, axes in graph.dynamic.items()},
                custom_translation_table={torch.ops.torchvision.roi_pool.default: _max_roi_pool},
                verbose=False,
            )
    except RuntimeError as error:  # torch's own errors of exporting are such
        raise ExportError(f"this network has no ONNX graph: {_first_line(error)}; format=torch may do") from error
    assert program is not None
    with replaced(path) as scratch:
        program.save(scratch)
        difference = largest_difference(graph, _session(scratch))
    return difference


def exported(graph: NetworkGraph) -> ExportedProgram:
    """The graph of a network, drawn from the first example. Raises ExportError where torch can't follow it."""
    any_length = {name: dict.fromkeys(axes, torch.export.Dim.DYNAMIC) for name, axes in graph.dynamic.items()}
    network = graph.network.to(memory_format=torch.contiguous_format)  # a .pt2 knows no channels_last
    try:
        with torch.no_grad(), _only_errors():
            return torch.export.export(
                network, tuple(graph.examples[0].values()), dynamic_shapes=any_length, strict=False
            )
    except RuntimeError as error:
        raise ExportError(f"this network has no graph with sides of any length: {_first_line(error)}") from error


def largest_difference(graph: NetworkGraph, run: Run) -> float:
    """The largest difference between a graph and its network over all examples. Raises ExportError above TOLERANCE."""
    differences = [0.0]
    for example in graph.examples:
        with torch.no_grad():
            wanted = _arrays(graph.network(*example.values()))
        for ours, theirs in zip(wanted, run(example), strict=True):
            if ours.shape != theirs.shape:
                raise ExportError(f"the graph is wrong: expected results of shape {ours.shape}, got {theirs.shape}")
            differences.append(float(np.abs(ours - theirs).max(initial=0.0)))
    largest = float(np.max(differences))  # NaN where one is, which Python's max would pass over
    if not largest <= TOLERANCE:
        raise ExportError(f"the graph is wrong: its results differ by {largest:.2g}, more than {TOLERANCE}")
    return largest


@contextlib.contextmanager
def _only_errors() -> Iterator[None]:
    """Torch warns with pages of traceback of each inequality of sizes that it leaves as it is: all sides are meant.

    onnxscript tells of each node that it makes simpler.
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
    """The results of torch's program. Raises ExportError where it was drawn for other lengths than these."""
    try:
        return _arrays(module(*example.values()))
    except (RuntimeError, AssertionError) as error:  # what its guards raise
        raise ExportError(f"the graph fails at {_shapes(example)}: {_first_line(error)}") from error


def _session(path: Path) -> Run:
    """A file at work under onnxruntime. It, and what it gives, raise ExportError where onnxruntime refuses."""
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as errors

    refusals = (errors.Fail, errors.InvalidGraph, errors.NotImplemented, errors.RuntimeException)
    try:
        context = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    except refusals as error:
        raise ExportError(f"onnxruntime refuses the graph: {_first_line(error)}; format=torch may do") from error

    def run(example: Mapping[str, Tensor]) -> Sequence[Any]:
        try:
            results: Sequence[Any] = context.run(None, {name: tensor.numpy() for name, tensor in example.items()})
        except refusals as error:
            raise ExportError(f"the graph fails at {_shapes(example)}: {_first_line(error)}") from error
        return results

    return run


def _shapes(example: Mapping[str, Tensor]) -> str:
    return ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in example.items())


def _max_roi_pool(feature_map: Any, regions: Any, scale: float, height: int, width: int) -> tuple[Any, Any]:
    """RoIPool as ONNX has it. torchvision's second result, where each maximum was found, has no counterpart."""
    from onnxscript import opset18

    pooled = opset18.MaxRoiPool(feature_map, regions, pooled_shape=(height, width), spatial_scale=scale)
    return pooled, opset18.Identity(pooled)


def _arrays(tensors: Sequence[Tensor]) -> list[Any]:
    return [tensor.detach().numpy() for tensor in tensors]


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
