"""The progress of a whole run: a line at the start of each stage, with the time that is left by an estimate."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence

from detpipe.commands.run_budget import Budget, first_seconds
from detpipe.commands.run_settings import Run
from detpipe.progress import roughly
from detpipe.runs.kept_recipe import kept_recipe
from detpipe.runs.recipe import COSTS

logger = logging.getLogger(__name__)


class RunProgress:
    """Counts the stages of a run.

    stages: their names, in order. seconds: estimates by name; empty without estimates. begun: the start of the run,
    by time.perf_counter.
    """

    def __init__(self, stages: Sequence[str], seconds: Mapping[str, float], begun: float) -> None:
        self.stages, self.seconds, self.begun = stages, seconds, begun
        self.started = 0

    def begin(self, stage: str) -> None:
        """Log the number of the stage, and about how long it and those after it take."""
        left = sum(self.seconds.get(name, 0.0) for name in self.stages[self.started :])
        self.started += 1
        where = f"run: stage {self.started} of {len(self.stages)} ({stage})"
        if left <= 0:
            logger.info("%s", where)
            return
        total = time.perf_counter() - self.begun + left
        logger.info("%s, about %s left of %s", where, roughly(left), roughly(total))


def estimated_stages(config: Run, budget: Budget | None) -> Mapping[str, float]:
    """The estimated seconds of the stages by name: from the trial of a budget, else from the costs of a chosen recipe.

    Empty where there is neither.
    """
    if budget is not None:
        trial = budget.kept.trial
        training = budget.kept.budget - trial.trial - sum(trial.stages.values()) - first_seconds(config)
        return {"train-cls": max(training, 0.0), **trial.stages}
    kept = kept_recipe(config.folder) if config.chosen_recipe is not None else None
    if kept is None:
        return {}
    solver = config.solver
    steps = solver.max_iter if solver.epochs is None and not solver.min_epochs else None
    return COSTS[kept.experiment].seconds(kept.facts, steps)
