"""Training shared by all networks: freezing, learning rates of new layers, and the solver."""

from __future__ import annotations

import logging
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
from detpipe.solver.solver import FEW_PASSES, Solver
from detpipe.solver.solver_config import SolverConfig, result_settings
from detpipe.solver.sync_batch_norm import synchronise_batch_norms

logger = logging.getLogger(__name__)

Batch = TypeVar("Batch")


@dataclass(frozen=True, eq=False)
class RunContext:
    """How and where a training runs."""

    solver: SolverConfig
    """Optimiser, number of iterations, and logging."""
    folder: Path
    """The folder of logs and snapshots."""
    key: str
    """The digest of the settings that decide the result. A snapshot with another key is refused."""
    seed: int
    """The seed of all random numbers."""
    device: torch.device
    """The device on which the network is trained."""
    bf16: bool
    """Whether to train in bfloat16 with torch's autocast."""
    ranks: Ranks = field(default_factory=Ranks)
    """The processes of a distributed training and the rank of this one; a single process by default."""


def train_network(
    network: nn.Module,
    *,
    new_modules: Sequence[nn.Module],
    examples: int,
    data: str,
    few_passes: float = FEW_PASSES,
    make_batch: Callable[[int], Batch],
    loss: Callable[[Batch], Mapping[str, Tensor]],
    validate: Callable[[], Mapping[str, float]] | None,
    learning: FineTuningConfig,
    context: RunContext,
) -> dict[str, float]:
    """Train `network`, which has a `backbone`, in place. Returns the solver's summary.

    new_modules: modules with random initial weights; they learn at a higher rate. examples: number of examples in one
    epoch. data: what they are, as "160 images", for messages. learning: which parts of the backbone are frozen.
    few_passes, make_batch, loss, validate: see `Solver`. With several processes (context.ranks) each process makes its
    own part of a batch.

    Raises Interrupted after a signal.
    """
    backbone = network.backbone
    assert isinstance(backbone, Backbone)
    solver, ranks = context.solver, context.ranks
    network.to(context.device).to(memory_format=torch.channels_last)
    freeze(backbone, learning, has_weights=solver.weights is not None)
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
        examples=examples,
        data=data,
        few_passes=few_passes,
        ranks=ranks,
    ).run()


def freeze(backbone: Backbone, learning: FineTuningConfig, *, has_weights: bool) -> None:
    """Freeze parts of the backbone. Random weights are never frozen, because nothing could be learned from them.

    has_weights: whether the network has weights from another file than the backbone's.
    """
    stages, depthwise = learning.freeze_stages, learning.freeze_depthwise
    if backbone.has_random_weights and not has_weights and (stages or depthwise):
        logger.warning(
            "backbone.weights=none: the network has random weights, so all of it is trained, also its frozen parts (%d "
            "stages%s)",
            stages,
            " and the depthwise kernels" if depthwise else "",
        )
        stages, depthwise = 0, False
    backbone.freeze(stages, depthwise=depthwise, batch_norm=learning.freeze_batch_norm)


def training_key(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that decide the result of a training: without the settings of "solver" that only affect logging."""
    return {name: result_settings(value) if name == "solver" else value for name, value in settings.items()}
