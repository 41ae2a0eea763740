"""A noisy linear problem and a training on it, for the tests of solvers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detpipe.solver.parameter_groups import parameter_groups
from detpipe.solver.ranks import Ranks
from detpipe.solver.solver import FEW_PASSES, Solver
from detpipe.solver.solver_config import SolverConfig
from detpipe.solver.training_log import read_log

Batch = tuple[Tensor, Tensor]
Array = npt.NDArray[np.float64]

WIDTH = 4


def draw_batch(number: int, *, seed: int = 7, size: int = 8) -> Batch:
    """Batch `number` of a noisy linear problem: (size, 4) and (size, 1)."""
    generator = torch.Generator().manual_seed(1000 * seed + number)
    x = torch.randn(size, WIDTH, generator=generator)
    t = x @ torch.tensor([[1.0], [-2.0], [0.5], [0.0]]) + 0.3 + 0.1 * torch.randn(size, 1, generator=generator)
    return x, t


class DropoutNetwork(nn.Module):
    """All that a resume has to bring back: weights, running statistics, dropout's random numbers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.hidden = nn.Linear(WIDTH, 16)
        self.norm = nn.BatchNorm1d(16)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(16, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.dropout(torch.relu(self.norm(self.hidden(x)))))
        return y


@dataclass
class Training:
    """One training of a network on the linear problem."""

    folder: Path
    network: nn.Module
    config: SolverConfig
    key: str = "key"
    seed: int = 0
    max_iter: int | None = None
    make_batch: Callable[[int], Batch] = draw_batch
    on_batch: Callable[[int], None] = lambda number: None
    groups: list[dict[str, Any]] | None = None
    examples: int = 0
    data: str = ""
    few_passes: float = FEW_PASSES
    ranks: Ranks = field(default_factory=Ranks)
    batches: int = field(default=0, init=False)

    def loss(self, batch: Batch) -> Mapping[str, Tensor]:
        self.on_batch(self.batches)
        self.batches += 1
        x, t = batch
        error = self.network(x) - t
        return {"loss": error.square().mean() / 2, "largest": error.abs().max()}

    def validate(self) -> Mapping[str, float]:
        assert not self.network.training
        x, t = self.make_batch(10_000)
        with torch.no_grad():
            return {"val_loss": float(F.mse_loss(self.network(x), t))}

    def run(self) -> dict[str, float]:
        groups = self.groups or parameter_groups(
            self.network, new_modules=[], new_lr_mult=1, weight_decay=self.config.weight_decay
        )
        return Solver(
            config=self.config,
            max_iter=self.config.max_iter if self.max_iter is None else self.max_iter,
            module=self.network,
            groups=groups,
            make_batch=self.make_batch,
            loss=self.loss,
            validate=self.validate,
            folder=self.folder,
            key=self.key,
            seed=self.seed,
            examples=self.examples,
            data=self.data,
            few_passes=self.few_passes,
            ranks=self.ranks,
        ).run()

    def rows(self) -> list[dict[str, Any]]:
        """The log without its columns of time."""
        timing = {"examples_per_second", "waiting"}
        return [{k: v for k, v in row.items() if k not in timing} for row in read_log(self.folder / "log.jsonl")]

    def state(self) -> dict[str, bytes]:
        return {name: tensor.numpy().tobytes() for name, tensor in self.network.state_dict().items()}


def solver_config(**values: Any) -> SolverConfig:
    return SolverConfig(
        **{"max_iter": 40, "base_lr": 0.01, "display": 5, "test_interval": 10, "snapshot": 10, **values}
    )


def linear() -> nn.Linear:
    torch.manual_seed(5)
    return nn.Linear(WIDTH, 1).double()


def doubles(number: int) -> Batch:
    x, t = draw_batch(number)
    return x.double(), t.double()


def gradient(w: Array, b: Array, batches: list[Batch]) -> tuple[Array, Array]:
    """Of the mean over batches of |x w + b - t|^2 / 2, mean over the batch."""
    parts_w, parts_b = [], []
    for x, t in batches:
        error = x.numpy() @ w + b - t.numpy()
        parts_w.append(x.numpy().T @ error / len(x))
        parts_b.append(error.mean(axis=0))
    return np.mean(parts_w, axis=0), np.mean(parts_b, axis=0)
