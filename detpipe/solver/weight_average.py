"""Exponential moving average of the weights, often more accurate than the last weights (Polyak & Juditsky 1992)."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

Tensors = list[Tensor] | tuple[Tensor, ...]


def moving_average(module: nn.Module, decay: float) -> AveragedModel:
    """A copy of the module with averaged weights. `update_parameters(module)` sets a = decay a + (1 - decay) w.

    It starts with a = w. Running statistics are averaged like weights. Integer buffers are copied, because torch would
    average and truncate them, which changes an index of 3 to 2 (decay 0.9).
    """
    average_floats = get_ema_multi_avg_fn(decay)

    def update(averaged: Tensors, current: Tensors, count: Tensor | int) -> None:
        """torch calls this with tensors of one dtype at a time."""
        if averaged[0].is_floating_point():
            average_floats(averaged, current, count)
        else:
            torch._foreach_copy_(averaged, current)

    average = AveragedModel(module, multi_avg_fn=update, use_buffers=True)
    average.update_parameters(module)  # the first call copies
    return average


@contextlib.contextmanager
def averaged_weights(module: nn.Module, average: AveragedModel | None) -> Iterator[None]:
    """Use the averaged weights in the module within the block, then restore its own exactly. None: do nothing."""
    if average is None:
        yield
        return
    own = copy.deepcopy(module.state_dict())
    module.load_state_dict(average.module.state_dict())
    try:
        yield
    finally:
        module.load_state_dict(own)
