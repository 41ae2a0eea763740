"""What a step costs, layer by layer: time, parameters, multiply-adds and memory, in one row each."""

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
    """A row: of one layer, or the sum of several.

    kind: its type. shape: of its output, N first. parameters: how many, counted where they work first. forward,
    backward: medians in seconds. mean: of forward and backward together. output, kept: bytes, see LayerMemory.
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
        """Forward and backward."""
        return self.forward + self.backward


@dataclass(frozen=True, kw_only=True)
class StepCost:
    """layers: in the order in which they work. whole, watched: of steps without and with hooks. peak: bytes.

    parameters: of the whole network, each once.
    """

    layers: tuple[LayerCost, ...]
    whole: Seconds
    watched: Seconds
    peak: int
    parameters: int

    def by_kind(self) -> dict[str, tuple[int, LayerCost]]:
        """Of each type how many layers there are, and their sum; the slowest type first."""
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
    """Of `step`, a forward pass to a scalar, and with `backward` its gradient. Arguments are those of `measure_times`.

    Work and memory are counted in passes of their own, which are not timed.
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
    """The sum of several rows; of none, zeros."""
    numbers = ("parameters", "multiply_adds", "forward", "backward", "mean", "output", "kept")
    return LayerCost(name=name, **{number: sum(getattr(layer, number) for layer in layers) for number in numbers})


def _work(network: nn.Module, step: Callable[[], Tensor]) -> dict[str, dict[str, Any]]:
    """By the name of the call, the fields of its row that need no measurement."""
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
    """Multiplications with an addition of one pass, all images together; 0 for layers without a kernel or matrix.

    Convolutions and matrix products are nearly all the work there is. A convolution takes, for each number of its
    output, one for each number of a filter; a transposed one, for each of its input. A matrix product likewise.
    """
    weight = call.weight
    if weight is None or not inputs or not outputs:
        return 0
    if isinstance(call.module, DECONVOLUTIONS):
        return inputs[0].numel() * weight[0].numel()
    if isinstance(call.module, InnerProduct) and call.module.transposed:
        return outputs[0].numel() * weight.shape[0]
    return outputs[0].numel() * weight[0].numel()
