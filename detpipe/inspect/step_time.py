"""The forward and backward time of each layer and of the whole step.

Forward time is measured by hooks around each layer. Backward time is measured for each autograd node that the layer's
forward pass created. Backward hooks on modules are not used, because they do not allow layers that work in place.
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
"""Returns the time in seconds; for an asynchronous device it waits until the device has finished."""


@dataclass(frozen=True)
class Seconds:
    """The times of one layer or step in each iteration, in seconds; `backward` is empty if it was not timed."""

    forward: tuple[float, ...]
    backward: tuple[float, ...]

    @property
    def median(self) -> tuple[float, float]:
        """The median of forward and of backward; 0 if not timed."""
        return statistics.median(self.forward or [0.0]), statistics.median(self.backward or [0.0])

    @property
    def mean(self) -> tuple[float, float]:
        """The mean of forward and of backward; 0 if not timed."""
        return statistics.fmean(self.forward or [0.0]), statistics.fmean(self.backward or [0.0])


@dataclass(frozen=True)
class StepTime:
    """whole: steps without hooks. watched: steps with hooks. layers: from the steps with hooks, by name of the call."""

    whole: Seconds
    watched: Seconds
    layers: dict[str, Seconds]


@dataclass
class Lap:
    """The times of one step and of its layers, in seconds."""

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
    """Time `step`, a forward pass to a scalar, and with `backward` its backward pass, for `iterations` iterations.

    warm_up: number of iterations before these, which are not counted. Steps without and with hooks alternate, so that
    changes of the computer's speed affect both. clock: must wait for the device if it is asynchronous.
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
        # Noted before the call: a layer that works in place gives its input another node.
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
    """The autograd nodes from the outputs down to the inputs' nodes, without the latter."""
    stack = [tensor.grad_fn for tensor in outputs]
    seen = set(below)
    while stack:
        node = stack.pop()
        if node is not None and node not in seen:
            seen.add(node)
            yield node
            stack += [one for one, _ in node.next_functions]


def _time_node(node: Node, name: str, seconds: dict[str, float], clock: Clock) -> None:
    """Add hooks that add the node's time in the backward pass to the time of its layer."""
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
