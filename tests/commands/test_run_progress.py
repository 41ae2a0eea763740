"""The lines at the start of each stage of a run."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest

from detpipe.commands import run, run_progress
from detpipe.commands.run_progress import RunProgress, estimated_stages
from detpipe.runs.budget import KeptBudget, TrialTimes
from detpipe.runs.kept_recipe import keep_recipe
from detpipe.runs.recipe import COSTS, choose
from tests.runs.test_recipe import CARDS
from tests.test_conf import made

STAGES = ("propose", "train-cls", "detect", "eval")


def test_time_left_by_stage(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    caplog.set_level(logging.INFO)
    clock = mock.Mock(side_effect=[60.0, 120.0, 420.0])
    monkeypatch.setattr(run_progress.time, "perf_counter", clock)
    progress = RunProgress(STAGES, {"propose": 60.0, "train-cls": 240.0, "detect": 40.0}, begun=0.0)
    for stage in STAGES:
        progress.begin(stage)
    assert caplog.messages == [
        "run: stage 1 of 4 (propose), about 6 min left of 7 min",
        "run: stage 2 of 4 (train-cls), about 5 min left of 7 min",
        "run: stage 3 of 4 (detect), about 40 s left of 8 min",
        "run: stage 4 of 4 (eval)",
    ]


def test_no_time_without_an_estimate(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    RunProgress(STAGES, {}, begun=0.0).begin("propose")
    assert caplog.messages == ["run: stage 1 of 4 (propose)"]


@pytest.mark.parametrize(
    "words",
    [
        *([f"experiment={name}"] for name in ("rcnn", "fast_rcnn", "multibox_fast_rcnn", "rcnn_frozen", "rcnn_2014")),
        ["proposals=multibox"],
        ["experiment=rcnn_frozen", "head=svm", "fine_tune=true", "proposals=fuse", "proposals.sources=[multibox]"],
    ],
)
def test_the_stages_are_those_of_the_run(words: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("propose", "train_multibox", "crop", "features", "detect", "evaluate"):
        monkeypatch.setattr(getattr(run, name), "run", mock.Mock())
    for name in ("train_regions", "fine_tuned", "keep_settings", "inference_precision"):
        monkeypatch.setattr(run, name, lambda config, *_, **__: config)
    config, begun = made("run", f"run_dir={tmp_path}", "dataset=voc", f"dataset.root={tmp_path}", *words), []
    run.make(config, begin=begun.append)
    assert begun == run.stages_of(config)
    assert begun[-2:] == ["detect", "eval"]


def test_estimates(tmp_path: Path) -> None:
    config = made("run", f"run_dir={tmp_path}", "experiment=multibox_fast_rcnn")
    assert estimated_stages(config, None) == {}
    chosen = replace(config, chosen_recipe="multibox_fast_rcnn")
    keep_recipe(config.folder, choose(CARDS), CARDS)
    recipe = COSTS["multibox_fast_rcnn"].seconds(CARDS)
    assert estimated_stages(chosen, None) == recipe
    typed = replace(chosen, solver=replace(config.solver, max_iter=50, min_epochs=0.0))
    assert estimated_stages(typed, None)["train-cls"] == pytest.approx(recipe["train-cls"] * 50 / 500)
    # A budget of 100 s: 10 of the trial, and 5 of the stages after the training.
    trial = TrialTimes(trial=10.0, step=1.0, validation=0.0, fixed=1.0, stages={"propose": 3.0, "detect": 2.0})
    budget = mock.Mock(kept=KeptBudget(budget=100.0, trial=trial))
    assert estimated_stages(config, budget) == {"train-cls": 85.0, "propose": 3.0, "detect": 2.0}
