"""The cost of a step by layer: time, parameters, multiply-adds and memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from detpipe.backbone.caffe.convolution import DECONVOLUTIONS
from detpipe.backbone.caffe.inner_product import InnerProduct
from detpipe.inspect.layers import Call, watching
from detpipe.inspect.step_memory import measure_memory
from detpipe.inspect.step_time import Clock, Seconds, measure_times


@dataclass(frozen=True, kw_only=True)
class LayerCost:
    """The cost of one layer, or the sum of several.

    kind: the layer's type. shape: of its output, N first. parameters: their number; shared ones are counted at the
    first call only. forward, backward: median time in seconds. mean: mean time of both in seconds. output, kept:
    bytes, see LayerMemory.
    """

    name: str
    kind: str = ""
    shape: tuple[int, ...] = ()
    parameters: int = 0
    multiply_adds: int = 0
    forward: float = 0.0
    backward: float = 0.0
    mean: float = 0.0
    output: int = 0
    kept: int = 0

    @property
    def seconds(self) -> float:
        """Time of forward and backward pass together."""
        return self.forward + self.backward


@dataclass(frozen=True, kw_only=True)
class StepCost:
    """layers: in the order of execution. whole, watched: times of steps without and with hooks. peak: bytes.

    parameters: the number of parameters of the network.
    """

    layers: tuple[LayerCost, ...]
    whole: Seconds
    watched: Seconds
    peak: int
    parameters: int

    def by_kind(self) -> dict[str, tuple[int, LayerCost]]:
        """The number of layers of each type and their sum; the slowest type first."""
        kinds: dict[str, list[LayerCost]] = {}
        for layer in self.layers:
            kinds.setdefault(layer.kind, []).append(layer)
        sums = {kind: (len(layers), total(kind, layers)) for kind, layers in kinds.items()}
        return dict(sorted(sums.items(), key=lambda item: -item[1][1].seconds))

    def slowest(self) -> list[LayerCost]:
        """The layers, the slowest first."""
        return sorted(self.layers, key=lambda layer: -layer.seconds)

    def to_json(self) -> dict[str, Any]:
        """Plain containers; seconds and bytes."""
        return asdict(self)


def measure_cost(
    network: nn.Module,
    step: Callable[[], Tensor],
    *,
    iterations: int,
    warm_up: int,
    backward: bool,
    clock: Clock = time.perf_counter,
) -> StepCost:
    """Measure `step`, a forward pass to a scalar, and with `backward` its backward pass too.

    The arguments are as in `measure_times`. Multiply-adds and memory are counted in separate passes, which are not
    timed.
    """
    rows = _work(network, step)
    times = measure_times(network, step, iterations=iterations, warm_up=warm_up, backward=backward, clock=clock)
    memory = measure_memory(network, step, backward=backward)
    layers = []
    for name, seconds in times.layers.items():
        timed = dict(zip(("forward", "backward"), seconds.median, strict=True), mean=sum(seconds.mean))
        layers.append(LayerCost(**{**rows[name], **timed, **asdict(memory.layers[name])}))
    return StepCost(
        layers=tuple(layers),
        whole=times.whole,
        watched=times.watched,
        peak=memory.peak,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
    )


def total(name: str, layers: Sequence[LayerCost]) -> LayerCost:
    """The sum of several layers; zeros for no layers."""
    numbers = ("parameters", "multiply_adds", "forward", "backward", "mean", "output", "kept")
    return LayerCost(name=name, **{number: sum(getattr(layer, number) for layer in layers) for number in numbers})


def _work(network: nn.Module, step: Callable[[], Tensor]) -> dict[str, dict[str, Any]]:
    """The fields of LayerCost that need no timing, by the name of the call."""
    rows: dict[str, dict[str, Any]] = {}
    seen: set[nn.Parameter] = set()

    def after(call: Call, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...]) -> None:
        own = set(call.module.parameters()) - seen
        seen.update(own)
        rows[call.name] = {
            "name": call.name,
            "kind": call.kind,
            "shape": tuple(outputs[0].shape) if outputs else (),
            "parameters": sum(parameter.numel() for parameter in own),
            "multiply_adds": multiply_adds(call, inputs, outputs),
        }

    with torch.no_grad(), watching(network, after=after):
        step()
    return rows


def multiply_adds(call: Call, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...]) -> int:
    """The multiply-adds of a forward pass, all images together; 0 for layers without a kernel or matrix.

    Convolutions and matrix products are almost all of the work. A convolution or matrix product needs, for each output
    element, one multiply-add per element of a filter; a transposed convolution needs that for each input element.
    """
    weight = call.weight
    if weight is None or not inputs or not outputs:
        return 0
    if isinstance(call.module, DECONVOLUTIONS):
        return inputs[0].numel() * weight[0].numel()
    if isinstance(call.module, InnerProduct) and call.module.transposed:
        return outputs[0].numel() * weight.shape[0]
    return outputs[0].numel() * weight[0].numel()
