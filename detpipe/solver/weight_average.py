"""A running average of the weights, which often classifies better than the last ones (Polyak & Juditsky 1992)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn


class WeightAverage:
    """a = decay a + (1 - decay) w after each update, from a = w at first, over all floating tensors of a module.

    Running statistics are averaged like weights; counters are taken over as they are.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._module = module
        self._decay = decay
        self._average = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights after an update."""
        for name, tensor in self._module.state_dict().items():
            if tensor.is_floating_point():
                self._average[name].mul_(self._decay).add_(tensor, alpha=1 - self._decay)
            else:
                self._average[name].copy_(tensor)

    def state(self) -> dict[str, Tensor]:
        """The average by the module's names."""
        return self._average

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take up a state that a snapshot held."""
        for name, tensor in self._average.items():
            tensor.copy_(state[name])

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """The module has the average inside of the block, and its own weights, to the bit, after it."""
        own = {name: tensor.detach().clone() for name, tensor in self._module.state_dict().items()}
        self._module.load_state_dict(self._average)
        try:
            yield
        finally:
            self._module.load_state_dict(own)

    def take_over(self) -> None:
        """Give the module the average for good."""
        self._module.load_state_dict(self._average)
