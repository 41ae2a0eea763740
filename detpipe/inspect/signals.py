"""Statistics of weights, activations and gradients of each layer in one forward and backward pass.

No weight is changed. N: number of images. C: channels or units of a layer's output.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from detpipe.inspect.layers import Call, watching
from detpipe.inspect.tensor_statistics import TensorStatistics, tensor_statistics


@dataclass
class LayerSignal:
    """The statistics of one layer.

    kind: the layer's type. shape: of its output, N first. activation: of its output, before another layer changes it
    in place. dead: the share of the C channels that are 0 in every cell of every image; None for an output with one
    axis. gradient: of the loss with respect to the output; None if the loss does not depend on it. weight,
    weight_gradient: of the kernel or matrix; None for a layer without weights.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    activation: TensorStatistics
    dead: float | None
    weight: TensorStatistics | None
    gradient: TensorStatistics | None = None
    weight_gradient: TensorStatistics | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain containers."""
        numbers = {
            name: None if one is None else one.to_json()
            for name, one in (
                ("activation", self.activation),
                ("gradient", self.gradient),
                ("weight", self.weight),
                ("weight_gradient", self.weight_gradient),
            )
        }
        return {"name": self.name, "kind": self.kind, "shape": list(self.shape), "dead": self.dead, **numbers}


@dataclass(frozen=True)
class Signals:
    """loss: of the pass. data: statistics of the first layer's input. layers: in the order of execution."""

    loss: float
    data: TensorStatistics
    layers: tuple[LayerSignal, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain containers; None for a loss of NaN or infinity."""
        loss = self.loss if abs(self.loss) < float("inf") else None
        return {"loss": loss, "data": self.data.to_json(), "layers": [layer.to_json() for layer in self.layers]}


def measure_signals(network: nn.Module, loss: Callable[[], Tensor]) -> Signals:
    """Run `loss`, a forward pass to a scalar, and its backward pass once. Existing gradients are cleared.

    Raises ValueError if no layer ran, or if none returned a floating-point tensor.
    """
    layers: dict[str, LayerSignal] = {}
    parameters: dict[str, nn.Parameter] = {}
    data: list[TensorStatistics] = []

    def before(_call: Call, inputs: tuple[Tensor, ...]) -> None:
        if not data and inputs:
            data.append(tensor_statistics(inputs[0]))

    def after(call: Call, _inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...]) -> None:
        output = next((one for one in outputs if one.is_floating_point()), None)
        if output is None:
            return
        weight = call.weight if call.turn == 1 else None
        signal = layers[call.name] = LayerSignal(
            name=call.name,
            kind=call.kind,
            shape=tuple(output.shape),
            activation=tensor_statistics(output),
            dead=dead_share(output),
            weight=None if weight is None else tensor_statistics(weight),
        )
        if weight is not None:
            parameters[call.name] = weight
        if output.requires_grad:
            output.register_hook(lambda gradient: setattr(signal, "gradient", tensor_statistics(gradient)))

    network.zero_grad(set_to_none=True)
    with watching(network, before, after):
        value = loss()
    if not layers:
        raise ValueError("expected a network with a layer that returns floating-point tensors, got none")
    value.backward()
    for name, weight in parameters.items():
        if weight.grad is not None:
            layers[name].weight_gradient = tensor_statistics(weight.grad)
    network.zero_grad(set_to_none=True)
    return Signals(loss=float(value.detach()), data=data[0], layers=tuple(layers.values()))


def dead_share(output: Tensor) -> float | None:
    """The share of channels (axis 1) of (N, C, ...) that are 0 everywhere; None for one axis or an empty tensor."""
    if output.ndim < 2 or not output.numel():
        return None
    alive = (output.detach() != 0).transpose(0, 1).flatten(1).any(1)
    return 1 - float(alive.double().mean())


def feature_maps(network: nn.Module, run: Callable[[], object], names: Collection[str]) -> dict[str, Tensor]:
    """The outputs (C, H, W) of the named layers for the first image of a pass, in the order of `names`.

    They are float32, on the CPU. Raises ValueError for an unknown layer, or one whose output is not (N, C, H, W).
    """
    found: dict[str, Tensor] = {}

    def after(call: Call, _inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...]) -> None:
        if call.name in names and outputs and outputs[0].ndim == 4 and len(outputs[0]):
            found[call.name] = outputs[0][0].detach().float().cpu().clone()

    with torch.no_grad(), watching(network, after=after):
        run()
    missing = [name for name in names if name not in found]
    if missing:
        raise ValueError(f"expected layers with outputs (N, C, H, W), got {', '.join(missing)}")
    return {name: found[name] for name in names}
