"""`detpipe run budget=5min`: a trial of the run on a few images, and the number of iterations that fits the time."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from detpipe.classify.kinds import LearnsFrom, kind_of_head
from detpipe.commands.evaluate import manifests
from detpipe.commands.run_settings import Run
from detpipe.console import RESULT, silent
from detpipe.datasets.source import Split
from detpipe.duration import seconds_of
from detpipe.parallel import resolve_workers
from detpipe.progress import as_time, counted_seconds
from detpipe.runs.budget import (
    MEASURED,
    WARM_UP,
    KeptBudget,
    TrialTimes,
    keep_budget,
    kept_budget,
    least_iterations,
    scaled,
    step_seconds,
    with_iterations,
)
from detpipe.runs.few_images import FewImages
from detpipe.runs.run_folder import RunFolder
from detpipe.solver.solver_config import SolverConfig
from detpipe.solver.training_log import read_log
from detpipe.storage.dataclass_json import from_json, read_object
from detpipe.storage.manifest import find_manifest
from detpipe.tracking.tracker import NoTracker

logger = logging.getLogger(__name__)

FEW_TRAIN, FEW_OTHERS = 16, 8
"""Images of the trial: of training, and of each other split; more on a machine with more cores."""
VALIDATION_IMAGES = 32
"""The most images of a validation, as in the trainings."""
AFTER = ("propose", "detect", "eval")
"""Stages after the training. `propose` is one of them only for a head that proposes itself."""


@dataclass(frozen=True, eq=False)
class Budget:
    """The budget of a run. begun: of the run, by time.perf_counter. kept: the trial, and what it gave."""

    begun: float
    kept: KeptBudget

    @classmethod
    def of(cls, config: Run, make: Callable[..., None], begun: float) -> Budget:
        """Measure a trial by `make`, all stages of a run, unless the run folder has one for this budget.

        begun: of the run, by time.perf_counter. make: as `detpipe.commands.run.make`. Raises ValueError if the budget
        is too small, with what is possible.
        """
        assert config.budget is not None
        budget = seconds_of(config.budget, "budget")
        kept = None if config.overwrite else kept_budget(config.folder, budget)
        if kept is None:
            kept = KeptBudget(budget=budget, trial=tried(config, make))
            refuse_too_small(config, kept)
            keep_budget(config.folder, kept)
        return cls(begun, kept)

    def spare(self, config: Run) -> float:
        """The seconds of the budget that the least run leaves."""
        return self.kept.budget - needed_seconds(config, self.kept.trial)

    def limited(self, config: Run) -> Run:
        """The settings with the number of iterations; it is fixed and kept at once, when the first process asks.

        A head on stored features has no iterations, so its settings stay.
        """
        if kind_of_head(config.head).learns_from is LearnsFrom.features:
            return config
        iterations, trial = self.kept.iterations, self.kept.trial
        if iterations is None:
            before = sum(stage_seconds(config).values()) + trial.trial + first_seconds(config)
            after = sum(later_stages(config, trial).values())
            used = max(time.perf_counter() - self.begun, before)
            interval = config.solver.test_interval
            iterations = trial.iterations(self.kept.budget - used - after, interval)
            least = least_iterations(config.solver)
            if iterations < least:
                logger.warning("budget=%s: the stages before the training took longer than in the trial", config.budget)
                iterations = least
            keep_budget(config.folder, replace(self.kept, iterations=iterations))
            logger.log(
                RESULT,
                "budget=%s: %d iterations of %.2f s; %s are used, and %s are for the stages after the training",
                *(config.budget, iterations, trial.step, as_time(used), as_time(after)),
            )
        return replace(config, solver=with_iterations(config.solver, iterations))


def later_stages(config: Run, trial: TrialTimes) -> dict[str, float]:
    """The estimated seconds of the stages after the training, by name."""
    proposes = kind_of_head(config.head).proposes
    return {name: trial.stages[name] for name in AFTER if name in trial.stages and (name != "propose" or proposes)}


def stage_seconds(config: Run) -> dict[str, float]:
    """Seconds of the stages before the training, by the manifests in the run folder."""
    folder = config.folder
    paths = (folder.multibox, folder.crops, *(folder.features(split) for split in Split))
    if not kind_of_head(config.head).proposes:
        paths = (*paths, folder.proposals)
    return {str(path): found.seconds for path in paths if (found := find_manifest(path)) is not None}


def first_seconds(config: Run) -> float:
    """Seconds of the first result, by its manifests; 0 without one."""
    paths = manifests(RunFolder(config.folder.first_result))
    return sum(one.seconds for one in paths.values())


def needed_seconds(config: Run, trial: TrialTimes) -> float:
    """The estimated seconds of the trial and of the run with the least number of iterations."""
    seconds = trial.trial + sum(trial.stages.values())
    if kind_of_head(config.head).learns_from is LearnsFrom.features:
        return seconds
    return seconds + trial.training(least_iterations(config.solver), config.solver.test_interval)


def refuse_too_small(config: Run, kept: KeptBudget) -> None:
    """Raise ValueError if not even the least run takes at most the budget. Says so where a budget changes nothing."""
    trial = kept.trial
    others = sum(trial.stages.values())
    learns = kind_of_head(config.head).learns_from is not LearnsFrom.features
    least = least_iterations(config.solver) if learns else 0
    needed = needed_seconds(config, trial)
    if needed > kept.budget:
        what = f"{least} iterations and {as_time(others)} for the other stages" if learns else "it has no iterations"
        raise ValueError(
            f"budget={config.budget}: expected at least about {as_time(needed)} for this recipe on this machine "
            f"({what}), got {as_time(kept.budget)}; give budget={round(1.1 * needed) + 1}s, a quicker "
            "recipe, or fewer images"
        )
    if not learns:
        logger.log(
            RESULT, "budget=%s: not needed, the run takes about %s", config.budget, as_time(needed - trial.trial)
        )


@dataclass
class Stopwatch:
    """The seconds of the stages of a run by the clock, with loading and writing, which their own times leave out."""

    seconds: dict[str, float] = field(default_factory=dict)
    _running: tuple[str, float] | None = None

    def begin(self, stage: str) -> None:
        """End the stage that runs, and begin the next."""
        self.end()
        self._running = stage, time.perf_counter()

    def end(self) -> None:
        """End the stage that runs."""
        if self._running is not None:
            stage, begun = self._running
            self.seconds[stage] = time.perf_counter() - begun
        self._running = None


def tried(config: Run, make: Callable[..., None]) -> TrialTimes:
    """Run all stages on a few images in a folder of their own, and return what they took. It shows no log."""
    begun, folder = time.perf_counter(), RunFolder(config.folder.trial)
    shutil.rmtree(folder.path, ignore_errors=True)
    few_train = max(FEW_TRAIN, 2 * resolve_workers(config.workers))
    source = config.data_source
    few = FewImages(
        whole=source,
        train=few_train,
        others=max(FEW_OTHERS, few_train // 2),
        stretch=source.stretch,
        max_bad=source.max_bad,
    )
    solver = trial_solver(config.solver)
    trial = replace(
        config,
        run_dir=str(folder.path),
        dataset=few,
        solver=solver,
        multibox_solver=replace(config.multibox_solver, max_iter=solver.max_iter),
        track=NoTracker(),
        overwrite=False,
        budget=None,
        chosen_recipe=None,
    )
    logger.info("budget=%s: a trial of all stages on %d training images", config.budget, few_train)
    watch = Stopwatch()
    try:
        with silent(), counted_seconds() as counted:
            make(trial, begin=watch.begin)
            watch.end()
        times = times_of(config, trial, counted, watch.seconds)
    finally:
        shutil.rmtree(folder.path, ignore_errors=True)
    return replace(times, trial=time.perf_counter() - begun)


def trial_solver(solver: SolverConfig) -> SolverConfig:
    """The solver of the trial: a few iterations, a row of the log after the warm-up, and nothing written on the way."""
    return replace(
        solver,
        max_iter=WARM_UP + MEASURED,
        epochs=None,
        min_epochs=0.0,
        display=WARM_UP,
        test_interval=0,
        snapshot=0,
        snapshot_best=None,
        resume="auto",
    )


def times_of(config: Run, trial: Run, counted: dict[str, float], by_clock: dict[str, float]) -> TrialTimes:
    """The times of a finished trial, scaled to all images.

    counted: seconds of its operations with progress. by_clock: seconds of its stages with loading and, of `eval`, with
    the report, which the stages' own times leave out.
    """
    folder = trial.folder
    own = from_json(read_object(folder.metrics).get("seconds"), dict[str, float], f"{folder.metrics}: seconds")
    seconds = {stage: max(value, by_clock.get(stage, 0.0)) for stage, value in own.items()}
    images = {split: len(config.data_source.load(split)) for split in Split if config.data_source.has(split)}
    few = {split: len(trial.data_source.load(split)) for split in images}
    stages = {}
    for name, stage in seconds.items():
        of = [Split.train] if name == "crop" else [Split.test] if name == "detect" else [*images]
        totals = [sum(counts[split] for split in of if split in counts) for counts in (few, images)]
        stages[name] = scaled(stage, counted.get(name, 0.0), *totals)
    if "train-multibox" in stages:
        stages["train-multibox"] *= config.multibox_solver.max_iter / trial.multibox_solver.max_iter
    training = seconds["train-cls"]
    if kind_of_head(config.head).learns_from is LearnsFrom.features:
        grown = images[Split.train] / max(few[Split.train], 1)
        return TrialTimes(
            trial=0.0, step=0.0, validation=0.0, fixed=0.0, stages={**stages, "train-cls": training * grown}
        )
    del stages["train-cls"]
    solver = trial.solver
    rows = read_log(folder.classifier / "log.jsonl")
    step = step_seconds(rows, solver.batch_size * solver.iter_size)
    summary = find_manifest(folder.classifier)
    in_solver = summary.summary["seconds"] if summary is not None else training
    share = config.sampling.val_share
    last = rows[-1]["iteration"] * solver.batch_size * solver.iter_size / rows[-1]["examples_per_second"]
    validated = min(VALIDATION_IMAGES, share * images[Split.train]) / max(1.0, share * few[Split.train])
    validation = max(in_solver - last, 0.0) * validated
    fixed = max(training - solver.max_iter * step, 0.0)
    return TrialTimes(trial=0.0, step=step, validation=validation, fixed=fixed, stages=stages)
