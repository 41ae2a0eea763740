"""The time of each layer, forward and backward, beside that of the whole step.

Forward, a layer is timed by hooks around it. Backward, the nodes that its forward pass put into autograd's graph are
timed one by one. Hooks on whole modules would forbid layers that work in place, which many networks have.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

from detpipe.inspect.layers import Call, watching

Clock = Callable[[], float]
"""Seconds, when all that was begun is done."""


@dataclass(frozen=True)
class Seconds:
    """Of one thing, once in each iteration."""

    forward: tuple[float, ...]
    backward: tuple[float, ...]

    @property
    def median(self) -> tuple[float, float]:
        """Forward and backward; 0 where it wasn't timed."""
        return _median(self.forward), _median(self.backward)

    @property
    def mean(self) -> tuple[float, float]:
        """Forward and backward; 0 where it wasn't timed."""
        return _mean(self.forward), _mean(self.backward)


@dataclass(frozen=True)
class StepTime:
    """whole: of steps without a hook. watched: of steps with them. layers: of these, by the name of the call."""

    whole: Seconds
    watched: Seconds
    layers: dict[str, Seconds]


@dataclass
class Lap:
    """The seconds of one step: whole, and by layer."""

    forward: float = 0.0
    backward: float = 0.0
    layers_forward: dict[str, float] = field(default_factory=dict)
    layers_backward: dict[str, float] = field(default_factory=dict)


def measure_times(
    network: nn.Module,
    step: Callable[[], Tensor],
    *,
    iterations: int,
    warm_up: int,
    backward: bool,
    clock: Clock = time.perf_counter,
) -> StepTime:
    """Time `step`, a forward pass to a scalar, and with `backward` its gradient, so many times after the warm-up.

    Steps without and with hooks take turns, so that a machine that becomes slower does so for both. clock: of a device
    that works on its own, one that waits for it.
    """
    plain, watched = list[Lap](), list[Lap]()
    for number in range(warm_up + iterations):
        laps = (_plain_lap(network, step, backward, clock), _watched_lap(network, step, backward, clock))
        if number >= warm_up:
            plain.append(laps[0])
            watched.append(laps[1])
    names = list(watched[0].layers_forward) if watched else []
    return StepTime(
        whole=_whole(plain, backward),
        watched=_whole(watched, backward),
        layers={
            name: Seconds(
                tuple(lap.layers_forward.get(name, 0.0) for lap in watched),
                tuple(lap.layers_backward.get(name, 0.0) for lap in watched) if backward else (),
            )
            for name in names
        },
    )


def _plain_lap(network: nn.Module, step: Callable[[], Tensor], backward: bool, clock: Clock) -> Lap:
    network.zero_grad(set_to_none=True)
    lap = Lap()
    begun = clock()
    with torch.set_grad_enabled(backward):
        loss = step()
    middle = clock()
    lap.forward = middle - begun
    if backward:
        loss.backward()
        lap.backward = clock() - middle
    return lap


def _watched_lap(network: nn.Module, step: Callable[[], Tensor], backward: bool, clock: Clock) -> Lap:
    network.zero_grad(set_to_none=True)
    lap, owners = Lap(), dict[Node, str]()
    begun: dict[str, float] = {}
    below: dict[str, set[Node]] = {}

    def before(call: Call, inputs: tuple[Tensor, ...]) -> None:
        # Now: a layer that works in place gives its input another node.
        below[call.name] = {tensor.grad_fn for tensor in inputs if tensor.grad_fn is not None}
        begun[call.name] = clock()

    def after(call: Call, _inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...]) -> None:
        lap.layers_forward[call.name] = clock() - begun[call.name]
        for node in _nodes(outputs, below[call.name]):
            owners.setdefault(node, call.name)

    start = clock()
    with watching(network, before, after), torch.set_grad_enabled(backward):
        loss = step()
    lap.forward = clock() - start
    if backward:
        for node, name in owners.items():
            _time_node(node, name, lap.layers_backward, clock)
        middle = clock()
        loss.backward()
        lap.backward = clock() - middle
    return lap


def _nodes(outputs: Sequence[Tensor], below: set[Node]) -> Iterator[Node]:
    """The nodes of autograd's graph from the outputs down to those of the inputs, without these."""
    stack = [tensor.grad_fn for tensor in outputs]
    seen = set(below)
    while stack:
        node = stack.pop()
        if node is not None and node not in seen:
            seen.add(node)
            yield node
            stack += [one for one, _ in node.next_functions]


def _time_node(node: Node, name: str, seconds: dict[str, float], clock: Clock) -> None:
    """Add the time of the node, when it will work, to its layer's."""
    begun = 0.0

    def before(_gradients: object) -> None:
        nonlocal begun
        begun = clock()

    def after(_inputs: object, _outputs: object) -> None:
        seconds[name] = seconds.get(name, 0.0) + clock() - begun

    node.register_prehook(before)
    node.register_hook(after)


def _whole(laps: Sequence[Lap], backward: bool) -> Seconds:
    return Seconds(
        tuple(lap.forward for lap in laps),
        tuple(lap.backward for lap in laps) if backward else (),
    )


def _median(values: Sequence[float]) -> float:
    return statistics.median(values) if values else 0.0


def _mean(values: Sequence[float]) -> float:
    return statistics.fmean(values) if values else 0.0
