"""Log lines of Caffe's debug_info: mean absolute values of each layer's data, parameters and gradients (net.cpp).

The mean absolute value is Caffe's asum / count. [Forward] lines are for the output of a layer, [Backward] lines for the
gradient of this output, [Update] lines for a parameter and its gradient, and for the norms of all parameters.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn


class DebugInfo:
    """Collects the lines of each iteration."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._forward: list[str] = []
        self._backward: list[str] = []

    @contextlib.contextmanager
    def watching(self) -> Iterator[DebugInfo]:
        """Record the outputs of the module's leaf layers, and their gradients, within the block."""
        handles = [
            layer.register_forward_hook(self._hook(name or type(layer).__name__))
            for name, layer in self._module.named_modules()
            if not any(True for _ in layer.children())
        ]
        try:
            yield self
        finally:
            for handle in handles:
                handle.remove()

    def _hook(self, name: str) -> Any:
        def note(_layer: nn.Module, _inputs: Any, output: Any) -> None:
            if not isinstance(output, Tensor) or not self._module.training:
                return
            self._forward.append(f"[Forward] layer {name}, data: {mean_size(output):.6g}")
            if output.requires_grad:
                output.register_hook(
                    lambda gradient: self._backward.append(
                        f"[Backward] layer {name}, gradient: {mean_size(gradient):.6g}"
                    )
                )

        return note

    def take(self) -> list[str]:
        """The lines since the last call, and lines of the current parameters and gradients."""
        parameters = [(name, p) for name, p in self._module.named_parameters() if p.requires_grad]
        lines = [
            f"[Update] {name}, data: {mean_size(p):.6g}; gradient: {mean_size(p.grad):.6g}" for name, p in parameters
        ]
        data = [p.detach() for _, p in parameters]
        gradients = [p.grad for _, p in parameters if p.grad is not None]
        lines.append(
            f"[Update] all parameters (data, gradient): L1 norm = ({l1_norm(data):.6g}, {l1_norm(gradients):.6g}); "
            f"L2 norm = ({l2_norm(data):.6g}, {l2_norm(gradients):.6g})"
        )
        lines = [*self._forward, *self._backward, *lines]
        self._forward, self._backward = [], []
        return lines


def mean_size(tensor: Tensor | None) -> float:
    """The mean of the absolute values; 0 for None or an empty tensor."""
    return float(tensor.detach().double().abs().mean()) if tensor is not None and tensor.numel() else 0.0


def l1_norm(tensors: list[Tensor]) -> float:
    """The sum of all absolute values; 0 for an empty list."""
    return sum((float(tensor.double().abs().sum()) for tensor in tensors), 0.0)


def l2_norm(tensors: list[Tensor]) -> float:
    """The root of the sum of all squares; 0 for an empty list."""
    return math.sqrt(sum((float(tensor.double().square().sum()) for tensor in tensors), 0.0))
