"""Layers of a network as a part of a graph: traced by PyTorch's exporter, with axes of any length.

The weights are stored in the part, and only standard operators are used.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import onnx
import torch
from torch import nn

from detpipe.classify.export.onnx_graph import OPSET


class ExportError(ValueError):
    """A detector that cannot be exported, or whose graph gives different results."""


def traced(module: nn.Module, examples: Mapping[str, Any], dynamic: Mapping[str, Any]) -> onnx.ModelProto:
    """Trace a module on examples by the name of its arguments, in their order.

    examples: tensors, or lists of tensors. dynamic: for each argument `{axis: multiple}`, the axes whose length may be
    any multiple of a number, or a list of these; in the example, such an axis must be longer than its multiple. Raises
    ExportError if the exporter fails.
    """
    names = itertools.count()

    def lengths(axes: Any) -> Any:
        if isinstance(axes, list):
            return [lengths(one) for one in axes]
        return {
            axis: torch.export.Dim.DYNAMIC if multiple == 1 else multiple * torch.export.Dim(f"n{next(names)}", min=1)
            for axis, multiple in axes.items()
        }

    shapes = {name: lengths(dynamic[name]) for name in examples}
    module = module.eval().to(memory_format=torch.contiguous_format)
    try:
        with torch.no_grad(), _only_errors():
            program = torch.export.export(module, (), dict(examples), dynamic_shapes=shapes, strict=False)
            converted = torch.onnx.export(
                program,
                dynamo=True,
                opset_version=OPSET,
                custom_translation_table={torch.ops.torchvision.roi_pool.default: _max_roi_pool},
                verbose=False,
            )
    except RuntimeError as error:  # the base class of torch's export errors
        raise ExportError(f"this network cannot be exported to ONNX: {first_line(error)}") from error
    assert converted is not None
    part: onnx.ModelProto = converted.model_proto
    used = [one.domain for one in part.opset_import if one.domain not in ("", "pkg.onnxscript.torch_lib.common")]
    if part.functions or used:
        raise ExportError(f"this network cannot be exported to ONNX: it needs operators of {', '.join(used)}")
    return part


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
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _max_roi_pool(feature_map: Any, regions: Any, scale: float, height: int, width: int) -> tuple[Any, Any]:
    """RoIPool in ONNX. torchvision's second result, the index of each maximum, does not exist there."""
    from onnxscript import opset18

    pooled = opset18.MaxRoiPool(feature_map, regions, pooled_shape=(height, width), spatial_scale=scale)
    return pooled, opset18.Identity(pooled)


def first_line(error: Exception) -> str:
    """The first line of an error's message."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
