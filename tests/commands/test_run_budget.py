"""`detpipe run budget=...`, on drawn data; the trial is measured once, elsewhere its times are given."""

from __future__ import annotations

import json
import logging
import re
import time
from pathlib import Path
from unittest import mock

import pytest

from detpipe.commands import run, run_budget
from detpipe.commands.run_budget import Budget
from detpipe.runs.budget import TrialTimes
from detpipe.runs.kept_dataset import kept_dataset
from detpipe.runs.run_folder import RunFolder
from detpipe.storage.manifest import read_manifest
from tests import drawn
from tests.command_line import detpipe
from tests.test_conf import made

TIMES = TrialTimes(trial=5.0, step=10.0, validation=0.0, fixed=1.0, stages={"propose": 3.0, "detect": 2.0, "eval": 2.0})
SETTINGS = [one for one in drawn.settings("run", *drawn.FAST_RCNN) if not one.startswith("solver.max_iter")]


def words(voc_root: Path, folder: Path, budget: str) -> list[str]:
    return [*drawn.voc(voc_root), *SETTINGS, f"run_dir={folder}", f"budget={budget}"]


def test_the_number_is_kept_after_a_kill(voc_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 0.0
    monkeypatch.setattr(run_budget.time, "perf_counter", lambda: clock)
    tried = mock.Mock(return_value=TIMES)
    monkeypatch.setattr(run_budget, "tried", tried)

    def killed(_: object) -> None:
        raise KeyboardInterrupt

    with mock.patch.object(run, "train_regions", killed):
        assert detpipe("run", *words(voc_root, tmp_path, "330s")).status == 130
    kept = json.loads((tmp_path / "budget.json").read_text())
    proposed = read_manifest(tmp_path / "proposals.lmdb").seconds
    assert kept["iterations"] == int((330 - 5 - proposed - 4 - 1) / 10)
    clock = 1000.0  # later, and slower
    monkeypatch.setattr(run_budget, "stage_seconds", lambda _: {"all": 200.0})
    done = detpipe("run", *words(voc_root, tmp_path, "330s"))
    assert done.status == 0, done.err
    manifest = read_manifest(tmp_path / "classifier")
    assert manifest.settings["solver"]["max_iter"] == kept["iterations"]
    assert manifest.summary["iterations"] == kept["iterations"]
    assert tried.call_count == 1
    # Another budget is another training: it is refused, and made with overwrite=true.
    other = detpipe("run", *words(voc_root, tmp_path, "350s"))
    assert (other.status, "overwrite=true" in other.err) == (1, True)


def test_too_little_says_what_is_possible(voc_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_budget, "tried", lambda *_: TIMES)
    outcome = detpipe("run", *words(voc_root, tmp_path, "60s"))
    assert outcome.status == 1
    # 5 s of the trial, 7 s of stages, and 1 + 30 * 10 of training: a tenth of the default's 300 iterations.
    assert "budget=60s: expected at least about 5 min 13 s" in outcome.err
    assert "30 iterations" in outcome.err
    assert "give budget=345s" in outcome.err
    assert not (tmp_path / "proposals.lmdb").exists()


@pytest.mark.parametrize("word", ["solver.max_iter=5", "solver.epochs=2", "solver.min_epochs=1"])
def test_a_budget_beside_a_number_of_iterations_is_refused(word: str) -> None:
    with pytest.raises(ValueError, match=rf"budget and {word.partition('=')[0]}: expected one"):
        made("run", "budget=5min", word)


@pytest.mark.parametrize("words", [["budget=5"], ["budget=5min", "experiment=rcnn_2014"], ["budget=5min", "tasks=3"]])
def test_wrong_settings(words: list[str]) -> None:
    with pytest.raises(ValueError, match="budget: expected"):
        made("run", *words)


def test_a_trial_measures_all_stages(voc_root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    settings = made("run", *words(voc_root, tmp_path, "1h"))
    budget = Budget.of(settings, run.make, time.perf_counter())
    times = budget.kept.trial
    assert [*times.stages] == ["propose", "detect", "eval"]
    assert min(times.trial, times.step, *times.stages.values()) > 0
    assert times.fixed >= 0
    assert times.trial > times.step * 24
    assert [path.name for path in tmp_path.iterdir()] == ["budget.json"]
    assert kept_dataset(RunFolder(tmp_path)) is None
    assert "train-cls" not in caplog.text
    with mock.patch.object(run_budget, "tried", side_effect=AssertionError):
        assert Budget.of(settings, run.make, time.perf_counter()).kept == budget.kept


def test_stored_features_need_none(
    voc_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(run_budget, "tried", lambda *_: TIMES)
    settings = made("run", *drawn.voc(voc_root), f"run_dir={tmp_path}", "experiment=rcnn_frozen", "budget=1min")
    assert Budget.of(settings, run.make, time.perf_counter()).limited(settings) is settings
    assert "not needed" in caplog.text


def test_loading_and_the_report_are_counted(voc_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluate, clock, later = run.evaluate.run, time.perf_counter, 0.0

    def slow_report(config: object) -> None:
        nonlocal later
        evaluate(config)
        later += 1000.0

    monkeypatch.setattr(run.evaluate, "run", slow_report)
    monkeypatch.setattr(time, "perf_counter", lambda: clock() + later)
    settings = made("run", *words(voc_root, tmp_path, "10h"))
    assert Budget.of(settings, run.make, clock()).kept.trial.stages["eval"] > 1000.0


@pytest.mark.slow
def test_a_real_run_takes_its_budget(tmp_path: Path) -> None:
    data = ["dataset=demo", f"dataset.root={tmp_path / 'demo'}"]
    assert detpipe("check", *data, f"run_dir={tmp_path / 'check'}").status == 0  # makes the data
    words = [*data, f"run_dir={tmp_path / 'run'}", "experiment=multibox_fast_rcnn"]
    refused = detpipe("run", *words, "budget=1s")
    possible = re.search(r"give budget=(\d+)s", refused.err)
    assert possible is not None, refused.err
    budget = 1.5 * int(possible[1])  # so that it fits on a slow machine, too
    begun = time.perf_counter()
    done = detpipe("run", *words, f"budget={budget}s")
    seconds = time.perf_counter() - begun
    assert done.status == 0, done.err
    assert 0.75 * budget < seconds < 1.1 * budget
    assert json.loads((tmp_path / "run/budget.json").read_text())["iterations"] >= 50
