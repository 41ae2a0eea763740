"""The start of a training from a network whose confidences were calibrated: it learns from logits as they are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from torch import Tensor, nn

from detpipe.network.train_network import RunContext
from detpipe.solver.initial_weights import take_weights


def uncalibrated_start(network: nn.Module, lines: Tensor, examples: int, context: RunContext) -> RunContext:
    """Give the network the weights to start from, and lines of 1 and 0; the session of it as it is now.

    lines: (A, 2), the network's own slopes and offsets from logits to confidences. examples: of one pass. A training of
    no iterations saves the network as it starts, and leaves them. A snapshot brings its own. Raises as `take_weights`.
    """
    if context.solver.weights is not None:
        take_weights(network, Path(context.solver.weights))
        context = replace(context, solver=replace(context.solver, weights=None))
    if context.solver.iterations(examples):
        lines.copy_(lines.new_tensor([1.0, 0.0]))
    return context
