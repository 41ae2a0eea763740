"""All of a training that changes from iteration to iteration: what a snapshot holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from detpipe.solver.smoothed_loss import SmoothedLoss
from detpipe.solver.weight_average import WeightAverage


@dataclass(kw_only=True)
class TrainingState:
    """average and smoothed: None where the training has none. best: the best number of a validation so far, or None."""

    module: nn.Module
    optimizer: torch.optim.Optimizer
    average: WeightAverage | None
    smoothed: SmoothedLoss | None
    best: float | None = None

    def state(self) -> dict[str, Any]:
        """As a snapshot holds it; a training without average, smoothed loss and best has the two first alone."""
        state: dict[str, Any] = {"model": self.module.state_dict(), "optimizer": self.optimizer.state_dict()}
        if self.average is not None:
            state["average"] = self.average.state()
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
            self.average.load(state["average"])
        if self.smoothed is not None:
            self.smoothed.load(state.get("losses", []))
        self.best = state.get("best")
