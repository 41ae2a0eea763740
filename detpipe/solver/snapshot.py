"""Snapshots of a training. A training that resumes from one produces the same bytes as an uninterrupted one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from detpipe.solver.training_log import SmoothedLoss
from detpipe.storage.input_file import InputFileError, check_input
from detpipe.storage.tensor_file import write_pt

_NAME = re.compile(r"(?:[^.].*_)?iter_(\d+)\.pt")


class SnapshotError(ValueError):
    """A snapshot can't be read, or belongs to another training."""


def snapshot_path(folder: Path, iteration: int, prefix: str = "") -> Path:
    """The file of the snapshot after `iteration` iterations. If the prefix is a path, its last part is used."""
    return folder / f"{_name_prefix(prefix)}iter_{iteration:07d}.pt"


def best_path(folder: Path, prefix: str = "") -> Path:
    """The file of the weights with the best validation result."""
    return folder / f"{_name_prefix(prefix)}best.pt"


def _name_prefix(prefix: str) -> str:
    name = Path(prefix).name
    return f"{name}_" if name else ""


def iteration_of(path: Path) -> int:
    """The iteration in a snapshot's file name. Raises ValueError for any other name."""
    match = _NAME.fullmatch(path.name)
    if match is None:
        raise ValueError(f"{path}: expected the name of a snapshot such as iter_0000100.pt, got {path.name}")
    return int(match[1])


def find_snapshots(folder: Path) -> list[Path]:
    """The snapshots in `folder` with any prefix, oldest first; a missing folder has none."""
    found = [path for path in folder.glob("*.pt") if _NAME.fullmatch(path.name)]
    return sorted(found, key=lambda path: (iteration_of(path), path.name))


def save_snapshot(folder: Path, iteration: int, state: dict[str, Any], *, keep: int, prefix: str = "") -> Path:
    """Write `state` atomically, then delete all but the `keep` newest snapshots. Returns the path.

    state: tensors, numbers, strings and containers of them, as torch.load(weights_only=True) can read.
    """
    path = snapshot_path(folder, iteration, prefix)
    write_pt(path, state)
    for old in find_snapshots(folder)[:-keep]:
        old.unlink()
    return path


def drop_snapshots_after(folder: Path, iteration: int) -> None:
    """Delete the snapshots after `iteration`, because a training that resumes there writes its own."""
    for path in find_snapshots(folder):
        if iteration_of(path) > iteration:
            path.unlink()


def load_snapshot(path: Path) -> dict[str, Any]:
    """The state in a snapshot, on the CPU. Raises SnapshotError, which names the file, if it can't be read."""
    try:
        check_input(path, "a snapshot")
    except FileNotFoundError as error:
        raise SnapshotError(f"{path}: expected a snapshot, got no such file; correct the path") from error
    except InputFileError as error:
        raise SnapshotError(f"{error}, or delete it to resume from the one before") from error
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load passes on any error of its zip and pickle readers
        # torch's message is not shown: it advises weights_only=False, which would run code from the file.
        raise SnapshotError(
            f"{path}: expected a snapshot, got a file that can't be read ({type(error).__name__}); "
            "delete it to resume from the one before"
        ) from error
    if not isinstance(state, dict) or "iteration" not in state:
        raise SnapshotError(f"{path}: expected a snapshot of detpipe's solver, got another file; delete it")
    return state


@dataclass(kw_only=True)
class TrainingState:
    """The state of a training that changes with each iteration, as stored in a snapshot.

    average and smoothed: None if the training has none. best: the best validation result so far, or None.
    """

    module: nn.Module
    optimizer: torch.optim.Optimizer
    average: AveragedModel | None
    smoothed: SmoothedLoss | None
    best: float | None = None

    def state(self) -> dict[str, Any]:
        """The content of a snapshot: "model" and "optimizer"; "average", "losses" and "best" if they exist."""
        state: dict[str, Any] = {"model": self.module.state_dict(), "optimizer": self.optimizer.state_dict()}
        if self.average is not None:
            state["average"] = self.average.state_dict()
        if self.smoothed is not None:
            state["losses"] = self.smoothed.state()
        if self.best is not None:
            state["best"] = self.best
        return state

    def load(self, state: dict[str, Any]) -> None:
        """Load the content of a snapshot. "losses" and "best" may be missing, if they were off when it was written."""
        self.module.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        if self.smoothed is not None:
            self.smoothed.load(state.get("losses", []))
        self.best = state.get("best")
