"""Snapshots: the state of a training after an iteration, from which it goes on to the same bytes as an unbroken one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from detpipe.solver.training_log import SmoothedLoss
from detpipe.storage.atomic import replaced

_NAME = re.compile(r"(?:[^.].*_)?iter_(\d+)\.pt")


class SnapshotError(ValueError):
    """A snapshot that can't be read, or belongs to another training."""


def snapshot_path(folder: Path, iteration: int, prefix: str = "") -> Path:
    """The file of the snapshot after `iteration` iterations; of a prefix that is a path the last part counts."""
    return folder / f"{_front(prefix)}iter_{iteration:07d}.pt"


def best_path(folder: Path, prefix: str = "") -> Path:
    """The file of the weights that validated best."""
    return folder / f"{_front(prefix)}best.pt"


def _front(prefix: str) -> str:
    name = Path(prefix).name
    return f"{name}_" if name else ""


def iteration_of(path: Path) -> int:
    """The number in a snapshot's name. Raises ValueError for another name."""
    match = _NAME.fullmatch(path.name)
    if match is None:
        raise ValueError(f"{path}: expected the name of a snapshot, as iter_0000100.pt")
    return int(match[1])


def find_snapshots(folder: Path) -> list[Path]:
    """The snapshots in `folder`, oldest first, whatever their prefix; a folder that is not there has none."""
    found = [path for path in folder.glob("*.pt") if _NAME.fullmatch(path.name)]
    return sorted(found, key=lambda path: (iteration_of(path), path.name))


def save_snapshot(folder: Path, iteration: int, state: dict[str, Any], *, keep: int, prefix: str = "") -> Path:
    """Write `state` whole or not at all, then delete all but the `keep` newest. Returns the path.

    state: tensors, numbers, strings and containers of them: what torch.load(weights_only=True) gives back.
    """
    path = snapshot_path(folder, iteration, prefix)
    with replaced(path) as scratch:
        torch.save(state, scratch)
    for old in find_snapshots(folder)[:-keep]:
        old.unlink()
    return path


def drop_snapshots_after(folder: Path, iteration: int) -> None:
    """Delete the snapshots after `iteration`: a training that goes on from there makes its own."""
    for path in find_snapshots(folder):
        if iteration_of(path) > iteration:
            path.unlink()


def load_snapshot(path: Path) -> dict[str, Any]:
    """The state in a snapshot, on the CPU. Raises SnapshotError naming the file where it can't be read."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises whatever its zip and pickle readers do
        # Its own words advise to load the file with weights_only=False, which would run what is in it.
        raise SnapshotError(
            f"{path}: expected a snapshot, got a file that can't be read ({type(error).__name__}); "
            "delete it to go on from the one before"
        ) from error
    if not isinstance(state, dict) or "iteration" not in state:
        raise SnapshotError(f"{path}: expected a snapshot of detpipe's solver, got another file; delete it")
    return state


@dataclass(kw_only=True)
class TrainingState:
    """All of a training that changes from iteration to iteration: what a snapshot holds.

    average and smoothed: None where the training has none. best: the best number of a validation so far, or None.
    """

    module: nn.Module
    optimizer: torch.optim.Optimizer
    average: AveragedModel | None
    smoothed: SmoothedLoss | None
    best: float | None = None

    def state(self) -> dict[str, Any]:
        """As a snapshot holds it; a training without average, smoothed loss and best has the two first alone."""
        state: dict[str, Any] = {"model": self.module.state_dict(), "optimizer": self.optimizer.state_dict()}
        if self.average is not None:
            state["average"] = self.average.state_dict()
        if self.smoothed is not None:
            state["losses"] = self.smoothed.state()
        if self.best is not None:
            state["best"] = self.best
        return state

    def load(self, state: dict[str, Any]) -> None:
        """Take up what a snapshot held. What is only watched may have been off when it was written."""
        self.module.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        if self.smoothed is not None:
            self.smoothed.load(state.get("losses", []))
        self.best = state.get("best")
