"""The training loop on iterations, in the manner of Caffe's solver.cpp; it knows nothing of images or detection.

An iteration is one update of the weights, made of `iter_size` batches. Everything that is random in it comes from
(seed, iteration), so a training that was killed and resumed ends with the same bytes as an unbroken one.
"""

from __future__ import annotations

import enum
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from tqdm import tqdm

from detpipe.solver.interrupt import Interrupted, stop_on_signal
from detpipe.solver.lr_policy import LrPolicy
from detpipe.solver.prefetch import Prefetcher
from detpipe.solver.snapshot import SnapshotError, find_snapshots, load_snapshot, save_snapshot
from detpipe.solver.training_log import TrainingLog

logger = logging.getLogger(__name__)

Batch = TypeVar("Batch")


class Optimizer(enum.Enum):
    """The update rule: SGD with momentum, or AdamW (Loshchilov & Hutter 2019)."""

    sgd = "sgd"
    adamw = "adamw"


class DivergedError(RuntimeError):
    """The loss is no number any more."""


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
    """SGD's momentum; AdamW's beta 1."""
    weight_decay: float = 1e-4
    """On weights; biases and norms don't decay."""
    new_lr_mult: float = 10.0
    """Learning rate of layers that start from nothing, over that of pretrained ones."""
    batch_size: int = 64
    """Examples of one batch."""
    iter_size: int = 1
    """Batches whose gradients are averaged for one update."""
    clip_gradients: float | None = None
    """The largest L2 norm of the gradient; larger ones are scaled down to it."""
    display: int = 20
    """Iterations between two rows of the log."""
    test_interval: int = 200
    """Iterations between two validations; 0 for none but the last."""
    snapshot: int = 100
    """Iterations between two snapshots; 0 for none but on a signal."""
    snapshot_keep: int = 2
    """How many snapshots stay on disk."""

    def __post_init__(self) -> None:
        at_least = {"max_iter": 0, "batch_size": 1, "iter_size": 1, "display": 1, "test_interval": 0}
        at_least |= {"snapshot": 0, "snapshot_keep": 1, "weight_decay": 0, "new_lr_mult": 0}
        for name, least in at_least.items():
            if not getattr(self, name) >= least:
                raise ValueError(f"solver.{name}: wanted at least {least}, got {getattr(self, name)}")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"solver.momentum: wanted a share in [0, 1), got {self.momentum}")
        if self.clip_gradients is not None and not self.clip_gradients > 0:
            raise ValueError(f"solver.clip_gradients: wanted a positive norm or none, got {self.clip_gradients}")
        if self.epochs is not None and self.epochs < 0:
            raise ValueError(f"solver.epochs: wanted at least 0, got {self.epochs}")
        if not self.base_lr > 0:
            raise ValueError(f"solver.base_lr: wanted a positive number, got {self.base_lr}")

    def iterations(self, examples: int) -> int:
        """max_iter, or `epochs` over this many examples in iterations, rounded up."""
        if self.epochs is None:
            return self.max_iter
        return math.ceil(self.epochs * examples / (self.batch_size * self.iter_size))


@dataclass(kw_only=True)
class Solver(Generic[Batch]):
    """One training: what is trained, on what, by which loss.

    groups: of torch's optimiser, each with "lr_mult" (see parameter_groups). make_batch: from the number of a batch
    (0, 1, ...) to the batch, a pure function. loss: named scalars of a batch; "loss" is what is minimised.
    validate: named numbers for the log, or None. folder: of snapshots and logs. key: digest of everything that makes
    this training what it is; a snapshot with another key is refused.
    """

    config: SolverConfig
    max_iter: int
    module: nn.Module
    groups: list[dict[str, Any]]
    make_batch: Callable[[int], Batch]
    loss: Callable[[Batch], Mapping[str, Tensor]]
    validate: Callable[[], Mapping[str, float]] | None
    folder: Path
    key: str
    seed: int = 0

    def run(self) -> dict[str, float]:
        """Train to max_iter, from the newest snapshot in `folder` where there is one.

        Returns the summary: iterations, seconds and examples_per_second of this process, waiting (the share of time
        spent waiting for data). Raises Interrupted after SIGINT or SIGTERM, with a snapshot written, and
        DivergedError when the loss is not finite.
        """
        optimizer = self._optimizer()
        start = self._resume(optimizer)
        log = TrainingLog(self.folder, resume_at=start)
        batches = Prefetcher(self.make_batch, start * self.config.iter_size, self.max_iter * self.config.iter_size)
        begun = time.perf_counter()
        try:
            with (
                stop_on_signal() as stop,
                tqdm(total=self.max_iter, initial=start, desc="train", unit="it", disable=None) as progress,
            ):
                stream = iter(batches)
                for iteration in range(start, self.max_iter):
                    losses = self._step(optimizer, iteration, stream)
                    done = iteration + 1
                    self._log(log, progress, done, losses, batches, begun, start)
                    last = done == self.max_iter
                    if stop or (self.config.snapshot and done % self.config.snapshot == 0 and not last):
                        check_finite(losses, done)  # a snapshot of NaN would diverge again at every restart
                        path = self._snapshot(optimizer, done)
                        if stop:
                            assert stop.signal is not None
                            raise Interrupted(f"{stop.signal.name}: snapshot written to {path}")
        finally:
            batches.close()
        log.write_csv()
        seconds = max(time.perf_counter() - begun, 1e-9)
        examples = (self.max_iter - start) * self.config.iter_size * self.config.batch_size
        return {
            "iterations": float(self.max_iter),
            "seconds": round(seconds, 2),
            "examples_per_second": round(examples / seconds, 1),
            "waiting": round(batches.waited / seconds, 4),
        }

    def _step(self, optimizer: torch.optim.Optimizer, iteration: int, stream: Any) -> dict[str, Tensor]:
        """One update; returns the mean of each loss over its batches."""
        # Dropout takes no generator of its own: the global one is set, for this iteration alone.
        torch.manual_seed(self.seed * 1_000_003 + iteration)
        self.module.train()
        factor = self.config.lr.factor(iteration, self.max_iter)
        for group in optimizer.param_groups:
            group["lr"] = self.config.base_lr * group["lr_mult"] * factor
        optimizer.zero_grad(set_to_none=True)
        totals: dict[str, Tensor] = {}
        for _ in range(self.config.iter_size):
            losses = self.loss(next(stream))
            (losses["loss"] / self.config.iter_size).backward()
            for name, value in losses.items():
                totals[name] = totals.get(name, torch.zeros_like(value.detach())) + value.detach()
        if self.config.clip_gradients is not None:
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            nn.utils.clip_grad_norm_(parameters, self.config.clip_gradients)
        optimizer.step()
        return {name: total / self.config.iter_size for name, total in totals.items()}

    def _log(
        self,
        log: TrainingLog,
        progress: tqdm[Any],
        done: int,
        losses: Mapping[str, Tensor],
        batches: Prefetcher[Batch],
        begun: float,
        start: int,
    ) -> None:
        """A row every `display` iterations, with the validation's numbers where one is due."""
        progress.update(1)
        last = done == self.max_iter
        tests = self.validate is not None and (
            last or (self.config.test_interval > 0 and done % self.config.test_interval == 0)
        )
        if not (tests or last or done % self.config.display == 0):
            return
        numbers = {name: round(float(value), 6) for name, value in losses.items()}
        check_finite(losses, done)
        elapsed = max(time.perf_counter() - begun, 1e-9)
        rate = (done - start) * self.config.iter_size * self.config.batch_size / elapsed
        row = {
            "iteration": done,
            "lr": self.config.base_lr * self.config.lr.factor(done - 1, self.max_iter),
            **numbers,
        }
        if tests and self.validate is not None:
            self.module.eval()
            row.update({name: round(value, 6) for name, value in self.validate().items()})
        row.update({"examples_per_second": round(rate, 1), "waiting": round(batches.waited / elapsed, 4)})
        log.append(row)
        progress.set_postfix_str(f"loss {numbers['loss']:.3f}, {rate:.0f} examples/s, waiting {row['waiting']:.1%}")
        logger.info("train %s", ", ".join(f"{name} {value:g}" for name, value in row.items()))

    def _optimizer(self) -> torch.optim.Optimizer:
        groups = [{"lr": self.config.base_lr * group["lr_mult"], **group} for group in self.groups]
        if self.config.type is Optimizer.sgd:
            return torch.optim.SGD(groups, lr=self.config.base_lr, momentum=self.config.momentum)
        return torch.optim.AdamW(groups, lr=self.config.base_lr, betas=(self.config.momentum, 0.999))

    def _snapshot(self, optimizer: torch.optim.Optimizer, iteration: int) -> Path:
        state = {
            "iteration": iteration,
            "key": self.key,
            "model": self.module.state_dict(),
            "optimizer": optimizer.state_dict(),
        }
        path = save_snapshot(self.folder / "snapshots", iteration, state, keep=self.config.snapshot_keep)
        logger.info("snapshot after iteration %d: %s", iteration, path)
        return path

    def _resume(self, optimizer: torch.optim.Optimizer) -> int:
        """Take up the newest snapshot; returns the iterations that are done (0 without one)."""
        snapshots = find_snapshots(self.folder / "snapshots")
        if not snapshots:
            return 0
        state = load_snapshot(snapshots[-1])
        if state.get("key") != self.key:
            raise SnapshotError(
                f"{snapshots[-1]}: belongs to another training; delete {snapshots[-1].parent} to start anew"
            )
        self.module.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        logger.info("resumed after iteration %d from %s", state["iteration"], snapshots[-1])
        return int(state["iteration"])


def check_finite(losses: Mapping[str, Tensor], done: int) -> None:
    """Raise DivergedError where the loss after `done` iterations is no number any more."""
    loss = float(losses["loss"])
    if not math.isfinite(loss):
        raise DivergedError(f"iteration {done}: the loss is {loss}; lower solver.base_lr")
