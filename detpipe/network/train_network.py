"""The training that all networks share: what is frozen, which layers learn faster, the solver."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from detpipe.backbone.backbone import Backbone
from detpipe.backbone.fine_tuning import FineTuningConfig
from detpipe.solver.parameter_groups import parameter_groups
from detpipe.solver.ranks import Ranks
from detpipe.solver.solver import Solver
from detpipe.solver.solver_config import SolverConfig, result_settings
from detpipe.solver.sync_batch_norm import synchronise_batch_norms

Batch = TypeVar("Batch")


@dataclass(frozen=True, eq=False)
class RunContext:
    """How and where a training runs."""

    solver: SolverConfig
    """How weights are updated, for how long, and how that is watched."""
    folder: Path
    """Of logs and snapshots."""
    key: str
    """Of what is trained: a snapshot with another key is refused."""
    seed: int
    """Of everything random."""
    device: torch.device
    """Where the network is trained."""
    bf16: bool
    """Whether passes are in bfloat16, where torch's autocast has it."""
    ranks: Ranks = field(default_factory=Ranks)
    """Which process this is of several, which end with the same weights; one by default."""


def train_network(
    network: nn.Module,
    *,
    new_modules: Sequence[nn.Module],
    examples: int,
    make_batch: Callable[[int], Batch],
    loss: Callable[[Batch], Mapping[str, Tensor]],
    validate: Callable[[], Mapping[str, float]] | None,
    learning: FineTuningConfig,
    context: RunContext,
) -> dict[str, float]:
    """Train `network`, which has a `backbone`, in place; returns the solver's summary.

    new_modules: those that start from nothing. examples: of one pass. learning: what of the backbone learns.
    make_batch, loss, validate: as the Solver takes them. Of several processes (session.ranks) each makes its own
    part of a batch.

    Raises Interrupted after a signal.
    """
    backbone = network.backbone
    assert isinstance(backbone, Backbone)
    solver, ranks = context.solver, context.ranks
    network.to(context.device).to(memory_format=torch.channels_last)
    backbone.freeze(learning.freeze_stages, depthwise=learning.freeze_depthwise, batch_norm=learning.freeze_batch_norm)
    backbone.use_fast_depthwise_backward()
    if learning.sync_batch_norm and ranks.size > 1 and not learning.freeze_batch_norm:
        synchronise_batch_norms(network)
    return Solver(
        config=solver,
        max_iter=solver.iterations(examples),
        module=network,
        groups=parameter_groups(
            network,
            new_modules=new_modules,
            new_lr_mult=solver.new_lr_mult,
            weight_decay=solver.weight_decay,
            lr_mult=solver.lr_mult,
            decay_mult=solver.decay_mult,
            stated={f"backbone.{name}": factors for name, factors in backbone.multipliers().items()},
        ),
        make_batch=make_batch,
        loss=loss,
        validate=validate,
        folder=context.folder,
        key=context.key,
        seed=context.seed,
        ranks=ranks,
    ).run()


def training_key(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings without those of "solver" that change how a training is watched, not what comes out of it.

    What came later is there only where it is not as it was before, so that older run folders stay valid.
    """
    key = {name: result_settings(value) if name == "solver" else value for name, value in settings.items()}
    key = _without_later(key)
    if "head" in key:
        key["head"] = {name: value for name, value in key["head"].items() if name not in LATER or value != LATER[name]}
    return key


LATER = {"sync_batch_norm": False, "box_loss_beta": 1.0}
"""Settings of a head that its first form had not, and what it did without them."""

LATER_ANYWHERE = {"box_loss": "smooth_l1", "cells": 6.0, "start_gain": 2.0, "coarser": True}
"""The same of heads that stand within the description of a network, too."""


def _without_later(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _without_later(value) if isinstance(value, Mapping) else value
        for name, value in settings.items()
        if name not in LATER_ANYWHERE or value != LATER_ANYWHERE[name]
    }
