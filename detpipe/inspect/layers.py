"""The layers of a network, and a look at each as data flows through it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

WHOLE = (nn.MultiheadAttention,)
"""Modules that do the work of the modules inside them by themselves, without calling them."""


@dataclass(frozen=True)
class Call:
    """One layer at work. name: the layer's path in the network. turn: 1 where it works for the first time in a pass;
    from the second on, it stands behind the name: "relu (2)"."""

    name: str
    module: nn.Module
    turn: int

    @property
    def kind(self) -> str:
        """What the layer is: Conv2d."""
        return type(self.module).__name__

    @property
    def weight(self) -> nn.Parameter | None:
        """The layer's first parameter of two or more axes: kernel or matrix. Scales, shifts and biases have one."""
        return next((parameter for parameter in self.module.parameters() if parameter.ndim > 1), None)


Before = Callable[[Call, tuple[Tensor, ...]], None]
After = Callable[[Call, tuple[Tensor, ...], tuple[Tensor, ...]], None]


def layers_of(network: nn.Module) -> dict[str, nn.Module]:
    """The modules that do the work, by name: those without modules inside, and WHOLE.

    What a network computes between them (the sum of a residual block) belongs to none.
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
    """Within the block, call `before` and `after` around the work of each layer; for one forward pass.

    They are given the layer's input tensors, and `after` its outputs too. A layer that works in place has changed its
    input by then.
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
    """The tensors of a layer's arguments or result, in containers or alone; others are passed over."""
    if isinstance(value, Tensor):
        return (value,)
    if isinstance(value, dict):
        value = tuple(value.values())
    return tuple(tensor for one in value for tensor in tensors_in(one)) if isinstance(value, tuple | list) else ()
