"""The layers of a network, and hooks that observe each layer during a forward pass."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

WHOLE = (nn.MultiheadAttention,)
"""Modules that compute with the parameters of their submodules without calling them."""


@dataclass(frozen=True)
class Call:
    """One call of a layer in a forward pass.

    name: the layer's path in the network, followed by the number of the call from the second on: "relu (2)".
    turn: the number of the call, from 1.
    """

    name: str
    module: nn.Module
    turn: int

    @property
    def kind(self) -> str:
        """The layer's type, for example Conv2d."""
        return type(self.module).__name__

    @property
    def weight(self) -> nn.Parameter | None:
        """The layer's kernel or matrix: its first parameter with two or more axes. Biases and scales have one axis."""
        return next((parameter for parameter in self.module.parameters() if parameter.ndim > 1), None)


Before = Callable[[Call, tuple[Tensor, ...]], None]
After = Callable[[Call, tuple[Tensor, ...], tuple[Tensor, ...]], None]


def layers_of(network: nn.Module) -> dict[str, nn.Module]:
    """The layers by name: modules without submodules, and those in WHOLE.

    Operations between the modules, such as the addition in a residual block, belong to no layer.
    """
    found: dict[str, nn.Module] = {}
    inside: set[nn.Module] = set()
    for name, module in network.named_modules():
        if module in inside:
            continue
        if isinstance(module, WHOLE):
            inside.update(module.modules())
        if isinstance(module, WHOLE) or not any(True for _ in module.children()):
            found[name or type(module).__name__] = module
    return found


@contextlib.contextmanager
def watching(network: nn.Module, before: Before | None = None, after: After | None = None) -> Iterator[None]:
    """A context for one forward pass, in which `before` and `after` are called around each layer.

    Both get the layer's input tensors; `after` also gets its outputs. A layer that works in place has already changed
    its input then.
    """
    handles, counts = [], dict[str, int]()
    running = dict[nn.Module, Call]()

    def begin(name: str) -> Callable[[nn.Module, Any], None]:
        def hook(module: nn.Module, inputs: Any) -> None:
            turn = counts[name] = counts.get(name, 0) + 1
            running[module] = Call(name if turn == 1 else f"{name} ({turn})", module, turn)
            if before is not None:
                before(running[module], tensors_in(inputs))

        return hook

    def end(module: nn.Module, inputs: Any, output: Any) -> None:
        if after is not None:
            after(running[module], tensors_in(inputs), tensors_in(output))

    try:
        for name, module in layers_of(network).items():
            handles += [module.register_forward_pre_hook(begin(name)), module.register_forward_hook(end)]
        yield
    finally:
        for handle in handles:
            handle.remove()


def tensors_in(value: Any) -> tuple[Tensor, ...]:
    """The tensors in a layer's arguments or result, which may be nested containers; other values are skipped."""
    if isinstance(value, Tensor):
        return (value,)
    if isinstance(value, dict):
        value = tuple(value.values())
    return tuple(tensor for one in value for tensor in tensors_in(one)) if isinstance(value, tuple | list) else ()
