"""The settings of a training: Caffe's SolverParameter with the same names, and newer options."""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from detpipe.solver.lr_policy import LrPolicy


class Regularization(enum.Enum):
    """Weight decay adds to the gradient: decay x w (l2, the gradient of decay |w|^2 / 2), or decay x sign(w) (l1)."""

    l1 = "l1"
    l2 = "l2"


class Optimizer(enum.Enum):
    """The update rule: torch's SGD and AdamW (Loshchilov & Hutter 2019), or one of Caffe's (see caffe_updates)."""

    sgd = "sgd"
    adamw = "adamw"
    caffe_sgd = "caffe_sgd"
    caffe_nesterov = "caffe_nesterov"
    caffe_adagrad = "caffe_adagrad"
    caffe_rmsprop = "caffe_rmsprop"
    caffe_adadelta = "caffe_adadelta"
    caffe_adam = "caffe_adam"
    caffe_adamw = "caffe_adamw"

    @property
    def of_caffe(self) -> bool:
        """Whether it is one of Caffe's rules."""
        return self.value.startswith("caffe_")


WITHOUT_MOMENTUM = (Optimizer.caffe_adagrad, Optimizer.caffe_rmsprop)


@dataclass(kw_only=True)
class SolverConfig:
    """Settings of the training loop, named as in Caffe's SolverParameter."""

    type: Optimizer = Optimizer.adamw
    """The optimiser: torch's SGD or AdamW, or one of Caffe's update rules."""
    max_iter: int = 300
    """Number of iterations of the training; 0 saves the network without training."""
    epochs: float | None = None
    """Number of passes over the data; if set, it replaces max_iter."""
    min_epochs: float = 0.0
    """Least number of passes over the data: with more data, max_iter grows and the schedule is stretched with it. It is
    ignored if solver.max_iter is on the command line, or if epochs is set."""
    base_lr: float = 5e-4
    """Base learning rate. It is multiplied by the schedule (`lr`) and by `new_lr_mult` and `lr_mult`."""
    lr: LrPolicy = field(default_factory=LrPolicy)
    """Schedule of the learning rate."""
    momentum: float = 0.9
    """Momentum of SGD and Nesterov; beta 1 of Adam and AdamW; rho of AdaDelta."""
    weight_decay: float = 1e-4
    """Weight decay. Biases and norm layers have none, unless decay_mult sets a factor for them."""
    new_lr_mult: float = 10.0
    """Learning rate of new layers, as a multiple of the rate of pretrained layers."""
    batch_size: int = 64
    """Number of examples in a batch."""
    iter_size: int = 1
    """Number of batches whose gradients are averaged for one update."""
    clip_gradients: float | None = None
    """Limit on the L2 norm of the gradient; null: none. Caffe's types clip the sum over iter_size batches."""
    display: int = 20
    """Iterations between two log entries."""
    test_interval: int = 200
    """Iterations between two validations; 0: validate only at the end."""
    snapshot: int = 100
    """Iterations between two snapshots; 0: only on a signal."""
    snapshot_keep: int = 2
    """Number of snapshots to keep on disk."""

    momentum2: float = 0.999
    """Beta 2 of Adam and AdamW."""
    rms_decay: float = 0.99
    """Decay rate of the squared gradients in caffe_rmsprop."""
    delta: float = 1e-8
    """Small constant that avoids division by 0 (Adam's epsilon)."""
    regularization_type: Regularization = Regularization.l2
    """Type of the weight decay, l2 or l1; l1 needs one of Caffe's optimisers."""
    lr_mult: dict[str, float] = field(default_factory=dict)
    """Learning rate factors by pattern of parameter names, such as {"*.bias": 2}; the last match is used."""
    decay_mult: dict[str, float] = field(default_factory=dict)
    """Weight decay factors by pattern of parameter names, also for biases and norm layers; the last match is used."""
    ema: float | None = None
    """Decay of the exponential moving average of weights, which is then validated and saved; null: no average."""
    test_iter: int | None = None
    """Number of batches in a validation; null: the default of the kind of training."""
    test_initialization: bool = False
    """Also validate before the first iteration."""
    average_loss: int = 1
    """If greater than 1, the log also contains the mean loss of the last `average_loss` iterations."""
    debug_info: bool = False
    """Log the mean absolute value of each layer's data, parameters and gradients in every iteration."""
    snapshot_prefix: str = ""
    """Prefix of snapshot file names. If it is a path, only its last part is used."""
    snapshot_after_train: bool = False
    """Write a snapshot after the last iteration."""
    snapshot_best: str | None = None
    """Validation result, such as val_accuracy or val_loss; the weights with its best value are kept in best.pt."""
    resume: str = "auto"
    """auto: resume from the newest snapshot. none: start again. Otherwise the snapshot file to resume from."""
    weights: str | None = None
    """File of initial weights: safetensors, a state dict, or a snapshot."""
    random_seed: int | None = None
    """Random seed of the training; null: the seed of the command."""
    prefetch_threads: int = 1
    """Number of threads that prefetch batches; it does not change the results."""
    prototxt: str | None = None
    """Caffe solver.prototxt to read the settings from. Settings on the command line override it."""

    def __post_init__(self) -> None:
        at_least = {"max_iter": 0, "batch_size": 1, "iter_size": 1, "display": 1, "test_interval": 0}
        at_least |= {"snapshot": 0, "snapshot_keep": 1, "weight_decay": 0, "new_lr_mult": 0, "average_loss": 1}
        at_least |= {"prefetch_threads": 1}
        for name, least in at_least.items():
            if not getattr(self, name) >= least:
                raise ValueError(f"solver.{name}: expected at least {least}, got {getattr(self, name)}")
        for name in ("momentum", "momentum2", "rms_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"solver.{name}: expected a share in [0, 1), got {getattr(self, name)}")
        if self.clip_gradients is not None and not self.clip_gradients > 0:
            raise ValueError(f"solver.clip_gradients: expected a positive norm or null, got {self.clip_gradients}")
        if self.epochs is not None and not 0 <= self.epochs < math.inf:
            raise ValueError(f"solver.epochs: expected a number of at least 0 or null, got {self.epochs}")
        if not 0 <= self.min_epochs < math.inf:
            raise ValueError(f"solver.min_epochs: expected a number of at least 0, got {self.min_epochs}")
        for name in ("base_lr", "delta"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"solver.{name}: expected a positive number, got {getattr(self, name)}")
        if math.isinf(self.weight_decay):
            raise ValueError(f"solver.weight_decay: expected a finite number, got {self.weight_decay}")
        if self.ema is not None and not 0 <= self.ema < 1:
            raise ValueError(f"solver.ema: expected a share in [0, 1) or null, got {self.ema}")
        if self.test_iter is not None and self.test_iter < 1:
            raise ValueError(f"solver.test_iter: expected at least 1 or null, got {self.test_iter}")
        if self.random_seed is not None and not 0 <= self.random_seed < 2**31:
            raise ValueError(f"solver.random_seed: expected a number in [0, 2^31) or null, got {self.random_seed}")
        self._check_multipliers()
        self._check_rule()
        if self.weights is not None and self.resume not in ("auto", "none"):
            raise ValueError(
                f"solver.resume={self.resume} and solver.weights={self.weights}: expected one of them, got both; "
                "give resume to continue a training (a snapshot contains its weights), weights to start one"
            )

    def _check_multipliers(self) -> None:
        for name in ("lr_mult", "decay_mult"):
            for pattern, factor in getattr(self, name).items():
                if not 0 <= factor < math.inf:
                    raise ValueError(f"solver.{name}: expected a factor of at least 0 for {pattern!r}, got {factor}")

    def _check_rule(self) -> None:
        if self.type in WITHOUT_MOMENTUM and self.momentum:
            raise ValueError(
                f"solver.momentum: expected 0 for {self.type.value}, which has no momentum, got {self.momentum}; "
                "give solver.momentum=0"
            )
        if self.regularization_type is not Regularization.l2 and not self.type.of_caffe:
            raise ValueError(
                f"solver.regularization_type: expected l2 for {self.type.value}, got {self.regularization_type.value}; "
                "set solver.type=caffe_sgd, or another of Caffe's types"
            )

    def iterations(self, examples: int) -> int:
        """The number of iterations over this many examples, rounded up: of `epochs` passes if set, else max_iter.

        min_epochs raises max_iter, unless that is 0.
        """
        if self.epochs is not None:
            return self.iterations_of(self.epochs, examples)
        return max(self.max_iter, self.iterations_of(self.min_epochs, examples)) if self.max_iter else 0

    def iterations_of(self, passes: float, examples: int) -> int:
        """The number of iterations of some passes over this many examples, rounded up."""
        return math.ceil(passes * examples / (self.batch_size * self.iter_size))

    def rate_factor(self, iteration: int, iterations: int) -> float:
        """The factor of the base rate at `iteration` (from 0) of `iterations`, which min_epochs may have raised."""
        raised = self.epochs is None and self.max_iter and iterations > self.max_iter
        return self.lr.factor(iteration, iterations, iterations / self.max_iter if raised else 1.0)

    def seed(self, default: int) -> int:
        """random_seed, or `default` if it is None."""
        return default if self.random_seed is None else self.random_seed


ELSEWHERE = frozenset({"resume", "weights", "random_seed", "prototxt"})
"""Fields that are in a key in another form (a file's digest, the seed), or that don't change the result."""
WATCHING = frozenset(
    {"display", "test_iter", "test_interval", "test_initialization", "average_loss", "debug_info", "prefetch_threads"}
    | {"snapshot", "snapshot_keep", "snapshot_prefix", "snapshot_after_train", "snapshot_best"}
)
"""Fields that change only how a training is monitored, not its result."""


def result_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The plain values of a SolverConfig that change the result of a training: its part of an artefact's key."""
    unused = WATCHING | ELSEWHERE if settings.get("min_epochs") else WATCHING | ELSEWHERE | {"min_epochs"}
    return {name: value for name, value in settings.items() if name not in unused}
