"""The number of iterations with which a whole run takes a given time, from the times of a trial on a few images.

budget.json keeps it, so that a run that was killed continues with the same number, and gives the same bytes.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from detpipe.runs.run_folder import RunFolder
from detpipe.solver.solver_config import SolverConfig
from detpipe.storage.atomic import write_json
from detpipe.storage.dataclass_json import read_dataclass

LEAST_SHARE = 0.1
"""The least number of iterations, as a share of the recipe's own: with fewer the result would tell nothing."""
WARM_UP, MEASURED = 8, 16
"""Iterations of the trial: the first ones are slow and are not counted. All are thrown away: the training of the run
starts from its seed, so its bytes depend on the number of iterations alone."""
REMEDY = "delete it, or give overwrite=true"


@dataclass(frozen=True, kw_only=True)
class TrialTimes:
    """What a trial measured, in seconds.

    trial: the trial itself. step: an iteration. validation: one, with all its images. fixed: the rest of the training's
    stage. stages: the estimates of the other stages for all images, by name, in the order of the run.
    """

    trial: float
    step: float
    validation: float
    fixed: float
    stages: dict[str, float]

    def training(self, iterations: int, test_interval: int) -> float:
        """The estimated seconds of a training. The validation at its end is among the fixed ones."""
        validations = (iterations - 1) // test_interval if test_interval and iterations else 0
        return self.fixed + iterations * self.step + validations * self.validation

    def iterations(self, seconds: float, test_interval: int) -> int:
        """The largest number of iterations that takes at most so many seconds; 0 where not one does."""
        most = max(0, math.floor((seconds - self.fixed) / self.step))
        fitting = bisect_right(range(most + 1), seconds, key=lambda number: self.training(number, test_interval))
        return max(0, fitting - 1)


@dataclass(frozen=True, kw_only=True)
class KeptBudget:
    """The content of budget.json. budget: in seconds. iterations: of the training; null before it begins."""

    budget: float
    trial: TrialTimes
    iterations: int | None = None


def keep_budget(folder: RunFolder, kept: KeptBudget) -> None:
    """Write the budget into the run folder."""
    write_json(folder.budget, asdict(kept))


def kept_budget(folder: RunFolder, budget: float) -> KeptBudget | None:
    """The content of budget.json; None without it, or for another `budget`. Raises DataclassJsonError for damage."""
    if not folder.budget.is_file():
        return None
    kept = read_dataclass(folder.budget, KeptBudget, REMEDY)
    return kept if kept.budget == budget else None


def least_iterations(solver: SolverConfig) -> int:
    """The least number of iterations of a training with a budget."""
    return max(1, math.ceil(LEAST_SHARE * solver.max_iter))


def with_iterations(solver: SolverConfig, iterations: int) -> SolverConfig:
    """The solver with this number of iterations, and its schedule stretched to them. The warm-up stays."""
    stretch = iterations / solver.max_iter if solver.max_iter and solver.epochs is None else 1.0
    return replace(solver, max_iter=iterations, epochs=None, min_epochs=0.0, lr=solver.lr.stretched(stretch))


def step_seconds(rows: Sequence[Mapping[str, Any]], examples_per_step: int) -> float:
    """Seconds of an iteration after the first row of a log. rows: two or more."""
    first, last = (rows[0], rows[-1])
    elapsed = [row["iteration"] * examples_per_step / row["examples_per_second"] for row in (first, last)]
    return max(float(elapsed[1] - elapsed[0]) / int(last["iteration"] - first["iteration"]), 1e-6)


def scaled(stage: float, counted: float, few: int, images: int) -> float:
    """Seconds of a stage for all images. stage: on `few` images. counted: the part of it that grows with the images."""
    counted = min(counted, stage)
    return stage - counted + counted * images / max(few, 1)
