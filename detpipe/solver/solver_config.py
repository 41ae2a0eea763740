"""The settings of a training: Caffe's SolverParameter under its own names, and what came after Caffe."""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

from detpipe.solver.lr_policy import LrPolicy


class Regularization(enum.Enum):
    """What weight decay adds to a gradient: decay x w (the gradient of decay |w|^2 / 2), or decay x sign(w)."""

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
        """Whether it is one of Caffe's formulas."""
        return self.value.startswith("caffe_")


WITHOUT_MOMENTUM = (Optimizer.caffe_adagrad, Optimizer.caffe_rmsprop)


@dataclass(kw_only=True)
class SolverConfig:
    """Caffe's SolverParameter, as far as it is used."""

    type: Optimizer = Optimizer.adamw
    """The update rule."""
    max_iter: int = 300
    """Iterations of the whole training; 0 saves the network as it starts."""
    epochs: float | None = None
    """Passes over the data; where given, converted to iterations in place of max_iter."""
    base_lr: float = 5e-4
    """The learning rate, before the policy and the groups' multipliers."""
    lr: LrPolicy = field(default_factory=LrPolicy)
    """How the rate falls."""
    momentum: float = 0.9
    """Of SGD and Nesterov; Adam's beta 1; AdaDelta's rho."""
    weight_decay: float = 1e-4
    """On weights; biases and norms don't decay, unless decay_mult says so."""
    new_lr_mult: float = 10.0
    """Learning rate of layers that start from nothing, over that of pretrained ones."""
    batch_size: int = 64
    """Examples of one batch."""
    iter_size: int = 1
    """Batches whose gradients are averaged for one update."""
    clip_gradients: float | None = None
    """The largest L2 norm of the gradient; larger ones are scaled down to it. Caffe's types: of iter_size's sum."""
    display: int = 20
    """Iterations between two rows of the log."""
    test_interval: int = 200
    """Iterations between two validations; 0 for none but the last."""
    snapshot: int = 100
    """Iterations between two snapshots; 0 for none but on a signal."""
    snapshot_keep: int = 2
    """How many snapshots stay on disk."""

    momentum2: float = 0.999
    """Adam's and AdamW's beta 2."""
    rms_decay: float = 0.99
    """caffe_rmsprop: the share of the history that is kept."""
    delta: float = 1e-8
    """What is added so that nothing is divided by 0 (Adam's epsilon)."""
    regularization_type: Regularization = Regularization.l2
    """Caffe's types: weight decay towards 0 by the weight's size (l2) or its sign (l1)."""
    lr_mult: dict[str, float] = field(default_factory=dict)
    """Pattern of parameters' names -> factor of their rate; of several that match, the last counts."""
    decay_mult: dict[str, float] = field(default_factory=dict)
    """Pattern of parameters' names -> factor of their decay; also of biases and norms."""
    ema: float | None = None
    """Share of the running average of weights that an update keeps; it is then what is validated and saved."""
    test_iter: int | None = None
    """Batches of a validation; none for what the training takes by itself."""
    test_initialization: bool = False
    """Validate before the first iteration."""
    average_loss: int = 1
    """More than 1: the log also has the mean loss of so many iterations."""
    debug_info: bool = False
    """Log the mean size of each layer's data, parameters and gradients, every iteration."""
    snapshot_prefix: str = ""
    """In front of a snapshot's name; of a path the last part counts, as snapshots stay in the run folder."""
    snapshot_after_train: bool = False
    """Write a snapshot after the last iteration."""
    snapshot_best: str | None = None
    """A number of the validation, as val_accuracy or val_loss: the weights with the best one stay as best.pt."""
    resume: str = "auto"
    """auto takes up the newest snapshot, none starts anew, else the snapshot to go on from."""
    weights: str | None = None
    """A file of weights to start from: safetensors, a state dict, or a snapshot."""
    random_seed: int | None = None
    """Where given, in place of the command's seed."""
    prefetch_threads: int = 1
    """Threads that make batches ahead; the order does not depend on them."""
    prototxt: str | None = None
    """Caffe's solver.prototxt, read by the command line; what stands on the line itself wins."""

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
            raise ValueError(f"solver.clip_gradients: expected a positive norm or none, got {self.clip_gradients}")
        if self.epochs is not None and not self.epochs >= 0:
            raise ValueError(f"solver.epochs: expected at least 0, got {self.epochs}")
        for name in ("base_lr", "delta"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"solver.{name}: expected a positive number, got {getattr(self, name)}")
        if math.isinf(self.weight_decay):
            raise ValueError(f"solver.weight_decay: expected a finite number, got {self.weight_decay}")
        if self.ema is not None and not 0 <= self.ema < 1:
            raise ValueError(f"solver.ema: expected a share in [0, 1) or none, got {self.ema}")
        if self.test_iter is not None and self.test_iter < 1:
            raise ValueError(f"solver.test_iter: expected at least 1 or none, got {self.test_iter}")
        if self.random_seed is not None and not 0 <= self.random_seed < 2**31:
            raise ValueError(f"solver.random_seed: expected a number in [0, 2^31) or none, got {self.random_seed}")
        self._check_multipliers()
        self._check_rule()
        if self.weights is not None and self.resume not in ("auto", "none"):
            raise ValueError(
                f"solver.resume={self.resume} and solver.weights={self.weights}: expected one of them: "
                "a snapshot has weights of its own; give resume to go on with a training, weights to begin one"
            )

    def _check_multipliers(self) -> None:
        for name in ("lr_mult", "decay_mult"):
            for pattern, factor in getattr(self, name).items():
                if not 0 <= factor < math.inf:
                    raise ValueError(f"solver.{name}: expected a factor of at least 0 of {pattern!r}, got {factor}")

    def _check_rule(self) -> None:
        if self.type in WITHOUT_MOMENTUM and self.momentum:
            raise ValueError(
                f"solver.momentum: {self.type.value} has none, got {self.momentum}; give solver.momentum=0"
            )
        if self.regularization_type is not Regularization.l2 and not self.type.of_caffe:
            raise ValueError(
                f"solver.regularization_type: {self.type.value} has l2 alone, got {self.regularization_type.value}; "
                "take one of the types caffe_..."
            )

    def iterations(self, examples: int) -> int:
        """max_iter, or `epochs` over this many examples in iterations, rounded up."""
        if self.epochs is None:
            return self.max_iter
        return math.ceil(self.epochs * examples / (self.batch_size * self.iter_size))

    def seed(self, default: int) -> int:
        """random_seed, or `default` where there is none."""
        return default if self.random_seed is None else self.random_seed


ELSEWHERE = frozenset({"resume", "weights", "random_seed", "prototxt"})
"""Fields that a key holds in another form (a file's digest, the seed), or that say where a training came from."""
WATCHING = frozenset(
    {"display", "test_iter", "test_interval", "test_initialization", "average_loss", "debug_info", "prefetch_threads"}
    | {"snapshot", "snapshot_keep", "snapshot_prefix", "snapshot_after_train", "snapshot_best"}
)
"""Fields that change how a training is watched, not what comes out of it."""
LATER = frozenset({"momentum2", "rms_decay", "delta", "regularization_type", "lr_mult", "decay_mult", "ema"})
"""Fields that the first form of SolverConfig had not: at their default they stand in no key, so that old runs fit."""


def result_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Of a SolverConfig's plain values those that change what a training makes: its part of an artefact's key."""
    return {
        name: value
        for name, value in settings.items()
        if name not in WATCHING | ELSEWHERE and not (name in LATER and value == plain_defaults()[name])
    }


def plain_defaults() -> dict[str, Any]:
    """The default of each field that came later, as JSON has it."""
    found: dict[str, Any] = {}
    for one in fields(SolverConfig):
        if one.name in LATER:
            value = one.default if one.default_factory is MISSING else one.default_factory()
            found[one.name] = value.value if isinstance(value, enum.Enum) else value
    return found
