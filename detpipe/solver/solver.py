"""The training loop by iterations, modelled on Caffe's solver.cpp. It does not depend on images or detection.

An iteration is one update of the weights from `iter_size` batches. All random numbers in it depend only on the seed and
the iteration, so a training that was killed and resumed produces the same bytes as an uninterrupted one.
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from tqdm import tqdm

from detpipe.progress import SILENCE, pace
from detpipe.solver.caffe_updates import clip_summed_gradients
from detpipe.solver.debug_info import DebugInfo
from detpipe.solver.initial_weights import take_weights
from detpipe.solver.parameter_groups import make_optimizer
from detpipe.solver.prefetch import Prefetcher
from detpipe.solver.ranks import Ranks
from detpipe.solver.snapshot import (
    SnapshotError,
    TrainingState,
    best_path,
    drop_snapshots_after,
    find_snapshots,
    load_snapshot,
    save_snapshot,
    snapshot_path,
)
from detpipe.solver.solver_config import Optimizer, SolverConfig
from detpipe.solver.training_log import SmoothedLoss, TrainingLog
from detpipe.solver.weight_average import averaged_weights, moving_average
from detpipe.storage.interrupt import Interrupted, SaveRequest, StopRequest, save_on_hangup, stop_on_signal
from detpipe.storage.remote_folder import push_finished
from detpipe.storage.tensor_file import write_pt

__all__ = ["DivergedError", "Optimizer", "Solver", "SolverConfig", "check_finite"]

logger = logging.getLogger(__name__)

Batch = TypeVar("Batch")

FEW_PASSES = 2.0
"""Fewer passes over the data than this give a warning, unless the caller states another number."""
NOT_SHOWN = ("iteration", "examples_per_second", "waiting")
"""Values of a row that a line of progress has in another form, or that only the log file has."""


class DivergedError(RuntimeError):
    """The loss is NaN or infinite."""


@dataclass(kw_only=True)
class Solver(Generic[Batch]):
    """One training of a module.

    groups: parameter groups of torch's optimiser, each with "lr_mult" (see parameter_groups). make_batch: a pure
    function from the index of a batch (0, 1, ...) to the batch; it must be thread-safe if prefetch_threads > 1. loss:
    named scalars of a batch; "loss" is minimised. validate: returns named numbers for the log, or None. folder: of
    snapshots and logs. key: digest of all settings and inputs of the training; a snapshot with another key is refused.
    seed: of random numbers in the iterations; config.random_seed overrides it. examples: number of examples in one pass
    over the data, 0 if unknown; data: what these are, as "160 images", for messages. few_passes: fewer passes than this
    give a warning. ranks: of a distributed training; each rank makes its own part of a batch, and the losses are means
    over parts of equal size.
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
    examples: int = 0
    data: str = ""
    few_passes: float = FEW_PASSES
    ranks: Ranks = field(default_factory=Ranks)
    _shown: float = field(default=0.0, init=False)

    def run(self) -> dict[str, float]:
        """Train to max_iter, and first resume from a snapshot if config.resume says so.

        Returns a summary: iterations, seconds and examples_per_second of this process, and waiting (the share of time
        spent waiting for data, 0 to 1). Raises Interrupted after SIGINT or SIGTERM, when a snapshot has been written,
        and DivergedError if the loss is not finite.
        """
        self._check()
        if self.ranks.is_first:
            self._announce()
        state = self._fresh_state()
        start = self._start(state)
        step = self.ranks.parallel(LossModule(self.module, self.loss))
        log = TrainingLog(self.folder, resume_at=start) if self.ranks.is_first else None
        if log and start == 0 and self.max_iter and self.config.test_initialization and self.validate is not None:
            log.append({"iteration": 0, **self._validated(state, 0)})
        batches = Prefetcher(
            self.make_batch,
            start * self.config.iter_size,
            self.max_iter * self.config.iter_size,
            threads=self.config.prefetch_threads,
        )
        begun = self._shown = time.perf_counter()
        try:
            with (
                kept_generators(),
                stop_on_signal() as stop,
                save_on_hangup() as save,
                tqdm(total=self.max_iter, initial=start, desc="train", unit="it", disable=self._is_silent) as progress,
            ):
                stream = iter(batches)
                for iteration in range(start, self.max_iter):
                    losses = self._step(state, step, iteration, stream)
                    done = iteration + 1
                    self._log(log, progress, done, losses, state, batches, begun, start)
                    self._save(state, done, losses, stop, save)
        finally:
            batches.close()
        if state.average is not None:
            self.module.load_state_dict(state.average.module.state_dict())
        if log:
            log.write_csv()
        seconds = max(time.perf_counter() - begun, 1e-9)
        examples = (self.max_iter - start) * self.config.iter_size * self.config.batch_size
        return {
            "iterations": float(self.max_iter),
            "seconds": round(seconds, 2),
            "examples_per_second": round(examples / seconds, 1),
            "waiting": round(batches.waited / seconds, 4),
        }

    def _check(self) -> None:
        """Check for errors that would otherwise be raised after hours."""
        if self.config.prototxt is not None:
            raise ValueError(
                f"solver.prototxt={self.config.prototxt}: expected null, because the solver does not read the file; in "
                "Python, use read_solver_prototxt"
            )
        if self.config.snapshot_best is not None and self.validate is None:
            raise ValueError("solver.snapshot_best: expected a validation set, got none; set solver.snapshot_best=null")
        if self.max_iter:
            self.config.rate_factor(0, self.max_iter)
            self.config.rate_factor(self.max_iter - 1, self.max_iter)

    def _announce(self) -> None:
        """Log the length of the training in passes over the data, and warn if they are few."""
        if not self.max_iter or not self.examples:
            return
        passes = self._passes(self.max_iter)
        logger.info("train: %s iterations = %s passes over %s", f"{self.max_iter:,}", _short(passes), self.data)
        if passes < 0.99 * self.few_passes:
            logger.warning(
                "train: fewer than %g passes may be too few to learn from all of the data; give solver.epochs=%g (%s "
                "iterations) or more",
                self.few_passes,
                self.few_passes,
                f"{self.config.iterations_of(self.few_passes, self.examples):,}",
            )

    def _passes(self, iterations: int) -> float:
        """The number of passes over the data in so many iterations."""
        return iterations * self.config.batch_size * self.config.iter_size / self.examples

    @property
    def _is_silent(self) -> bool | None:
        """Value of tqdm's `disable`; None shows the bar only on a terminal."""
        return None if self.ranks.is_first else True

    def _fresh_state(self) -> TrainingState:
        if self.config.weights is not None:
            take_weights(self.module, Path(self.config.weights))
        return TrainingState(
            module=self.module,
            optimizer=make_optimizer(self.config, self.groups),
            average=moving_average(self.module, self.config.ema) if self.config.ema is not None else None,
            smoothed=SmoothedLoss(self.config.average_loss) if self.config.average_loss > 1 else None,
        )

    def _step(
        self, state: TrainingState, step: nn.Module, iteration: int, stream: Iterator[Batch]
    ) -> dict[str, Tensor]:
        """Make one update. Returns the mean of each loss over its batches and all ranks."""
        # torch's dropout has no generator argument, so the global generators are seeded. Each rank has another seed.
        seed_generators((self.config.seed(self.seed) + 7919 * self.ranks.rank) * 1_000_003 + iteration)
        self.module.train()
        optimizer = state.optimizer
        factor = self.config.rate_factor(iteration, self.max_iter)
        for group in optimizer.param_groups:
            group["lr"] = self.config.base_lr * group["lr_mult"] * factor
        optimizer.zero_grad(set_to_none=True)
        totals: dict[str, Tensor] = {}
        with self._logging_debug_info(iteration):
            for part in range(self.config.iter_size):
                losses = self._backward(step, next(stream), last=part == self.config.iter_size - 1)
                for name, value in losses.items():
                    totals[name] = totals.get(name, torch.zeros_like(value.detach())) + value.detach()
        self._clip(optimizer)
        optimizer.step()
        if state.average is not None:
            state.average.update_parameters(self.module)
        means = self.ranks.mean({name: total / self.config.iter_size for name, total in totals.items()})
        if state.smoothed is not None:
            state.smoothed.add(float(means["loss"]))
        return means

    def _backward(self, step: nn.Module, batch: Batch, *, last: bool) -> Mapping[str, Tensor]:
        """Add the gradients of a batch and return its losses. Ranks average gradients only with the last batch."""
        local: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
        if isinstance(step, nn.parallel.DistributedDataParallel) and not last:
            local = step.no_sync()
        with self.ranks.translating_errors(), local:
            losses: Mapping[str, Tensor] = step(batch)
            (losses["loss"] / self.config.iter_size).backward()
        return losses

    @contextlib.contextmanager
    def _logging_debug_info(self, iteration: int) -> Iterator[None]:
        """With debug_info, log mean absolute values of the forward and backward passes in the block."""
        if not self.config.debug_info:
            yield
            return
        with DebugInfo(self.module).watching() as info:
            yield
        for line in info.take():
            logger.info("iteration %d %s", iteration + 1, line)

    def _clip(self, optimizer: torch.optim.Optimizer) -> None:
        if self.config.clip_gradients is None:
            return
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        if self.config.type.of_caffe:
            clip_summed_gradients(parameters, self.config.clip_gradients, self.config.iter_size)
        else:
            nn.utils.clip_grad_norm_(parameters, self.config.clip_gradients)

    def _log(
        self,
        log: TrainingLog | None,
        progress: tqdm[Any],
        done: int,
        losses: Mapping[str, Tensor],
        state: TrainingState,
        batches: Prefetcher[Batch],
        begun: float,
        start: int,
    ) -> None:
        """Log a row every `display` iterations and after each validation."""
        progress.update(1)
        last = done == self.max_iter
        validates = self.validate is not None and (
            last or (self.config.test_interval > 0 and done % self.config.test_interval == 0)
        )
        if not (validates or last or done % self.config.display == 0):
            if log is not None and progress.disable and time.perf_counter() - self._shown >= SILENCE:
                self._show(progress, done, start, time.perf_counter() - begun, f"loss {float(losses['loss']):.4g}")
            return
        numbers = {name: round(float(value), 6) for name, value in losses.items()}
        check_finite(losses, done)
        if log is None:
            return
        elapsed = max(time.perf_counter() - begun, 1e-9)
        rate = (done - start) * self.config.iter_size * self.config.batch_size / elapsed
        row = {
            "iteration": done,
            "lr": self.config.base_lr * self.config.rate_factor(done - 1, self.max_iter),
            **numbers,
        }
        if state.smoothed is not None:
            row["smoothed_loss"] = round(state.smoothed.mean, 6)
        if validates:
            row.update(self._validated(state, done))
        row.update({"examples_per_second": round(rate, 1), "waiting": round(batches.waited / elapsed, 4)})
        log.append(row)
        shown = [f"{name} {value:.4g}" for name, value in row.items() if name not in NOT_SHOWN]
        self._show(progress, done, start, elapsed, ", ".join(shown))

    def _show(self, progress: tqdm[Any], done: int, start: int, seconds: float, numbers: str) -> None:
        """Log iterations, passes, rate, time left and the numbers; a terminal has the first ones in its bar."""
        self._shown = time.perf_counter()
        passes = (
            f" ({_short(self._passes(done))} of {_short(self._passes(self.max_iter))} passes)" if self.examples else ""
        )
        if progress.disable:
            line = pace(done, self.max_iter, seconds, "iterations", earlier=start)
            logger.info("train: %s", f"{line.replace('iterations', f'iterations{passes}', 1)}; {numbers}")
        else:
            progress.clear()  # else the text would continue the bar's line
            logger.info("train: iteration %d%s; %s", done, passes, numbers)
            progress.refresh()

    def _validated(self, state: TrainingState, done: int) -> dict[str, float]:
        """Validate the averaged weights, or the current ones without an average, and keep the best on disk."""
        assert self.validate is not None
        with averaged_weights(self.module, state.average):
            self.module.eval()
            numbers = {name: round(value, 6) for name, value in self.validate().items()}
            self._keep_best(state, done, numbers)
        return numbers

    def _keep_best(self, state: TrainingState, done: int, numbers: Mapping[str, float]) -> None:
        name = self.config.snapshot_best
        if name is None:
            return
        if name not in numbers:
            raise ValueError(f"solver.snapshot_best: expected one of {', '.join(numbers)}, got {name}")
        value = numbers[name]
        if state.best is not None and not (value < state.best if name.endswith("loss") else value > state.best):
            return
        state.best = value
        path = best_path(self.folder / "snapshots", self.config.snapshot_prefix)
        write_pt(path, {"iteration": done, "key": self.key, "model": self.module.state_dict(), name: value})
        logger.info("best %s so far: %g after iteration %d, saved to %s", name, value, done, path)

    def _save(
        self, state: TrainingState, done: int, losses: Mapping[str, Tensor], stop: StopRequest, save: SaveRequest
    ) -> None:
        """Write a snapshot if it is due or a signal requests it. Raises Interrupted if a signal requests to stop."""
        last = done == self.max_iter
        due = self.config.snapshot and done % self.config.snapshot == 0 and not last
        due = due or (last and self.config.snapshot_after_train)
        # A signal may reach only one of the ranks.
        requested, stopped = self.ranks.any(save.take()), self.ranks.any(bool(stop))
        if not (stopped or due or requested):
            return
        check_finite(losses, done)  # a training would diverge again after each resume from a snapshot with NaN
        folder, prefix = self.folder / "snapshots", self.config.snapshot_prefix
        if self.ranks.is_first:
            content = {"iteration": done, "key": self.key, **state.state()}
            save_snapshot(folder, done, content, keep=self.config.snapshot_keep, prefix=prefix)
            push_finished(self.folder)
        path = snapshot_path(folder, done, prefix)
        logger.info("snapshot after iteration %d saved to %s", done, path)
        if stopped:
            name = stop.signal.name if stop.signal is not None else "a signal to another rank"
            raise Interrupted(f"{name}: snapshot written to {path}")

    def _start(self, state: TrainingState) -> int:
        """Resume from the snapshot that config.resume selects. Returns its iteration, or 0 without a snapshot."""
        folder, done = self.folder / "snapshots", 0
        path = self._snapshot_to_resume(folder)
        if path is not None:
            content = load_snapshot(path)
            if content.get("key") != self.key:
                advice = (
                    f"delete {path.parent} to start again"
                    if self.config.resume == "auto"
                    else "set solver.resume to one of its own"
                )
                raise SnapshotError(f"{path}: expected a snapshot of this training, got one of another; {advice}")
            state.load(content)
            done = int(content["iteration"])
            logger.info("resumed from iteration %d of %s", done, path)
        self.ranks.wait()  # no rank may delete snapshots before all ranks have read theirs
        if self.ranks.is_first and self.config.resume != "auto":
            drop_snapshots_after(folder, done)
            if self.config.resume == "none":
                best_path(folder, self.config.snapshot_prefix).unlink(missing_ok=True)
        return done

    def _snapshot_to_resume(self, folder: Path) -> Path | None:
        match self.config.resume:
            case "none":
                return None
            case "auto":
                snapshots = find_snapshots(folder)
                return snapshots[-1] if snapshots else None
            case file:
                return Path(file)


def _short(number: float) -> str:
    """A number of passes: 0.06, 7.5, 12."""
    return f"{number:.1f}" if 0.95 <= number < 99.5 else f"{number:.2g}" if number < 1 else f"{number:.0f}"


@contextlib.contextmanager
def kept_generators() -> Iterator[None]:
    """A context that restores torch's global generators at its end: a training seeds them in each iteration."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        yield


def seed_generators(seed: int) -> None:
    """Seed the CPU generator, and CUDA's generators if CUDA is in use.

    Before CUDA is initialised, torch.manual_seed stores the seed and a traceback in every call, which costs memory and
    about a millisecond.
    """
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)


class LossModule(nn.Module):
    """A network and its loss as one module, from a batch to named scalars, for DistributedDataParallel."""

    def __init__(self, module: nn.Module, loss: Callable[[Any], Mapping[str, Tensor]]) -> None:
        super().__init__()
        self.module = module
        self._loss = loss

    def forward(self, batch: Any) -> dict[str, Tensor]:
        """The losses of a batch; "loss" is minimised."""
        return dict(self._loss(batch))


def check_finite(losses: Mapping[str, Tensor], done: int) -> None:
    """Raise DivergedError if the loss after `done` iterations is NaN or infinite."""
    loss = float(losses["loss"])
    if not math.isfinite(loss):
        raise DivergedError(f"iteration {done}: expected a finite loss, got {loss}; lower solver.base_lr")
