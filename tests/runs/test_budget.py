"""The number of iterations that fits a budget, worked out by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detpipe.runs.budget import (
    KeptBudget,
    TrialTimes,
    keep_budget,
    kept_budget,
    least_iterations,
    scaled,
    step_seconds,
    with_iterations,
)
from detpipe.runs.run_folder import RunFolder
from detpipe.solver.lr_policy import LrPolicy, Policy
from detpipe.solver.solver_config import SolverConfig
from detpipe.storage.dataclass_json import DataclassJsonError

TIMES = TrialTimes(trial=20.0, step=2.0, validation=5.0, fixed=10.0, stages={"detect": 8.0})


def test_iterations_by_hand() -> None:
    assert TIMES.iterations(100, test_interval=0) == 45  # 10 + 45 * 2
    assert TIMES.training(45, test_interval=20) == 10 + 90 + 2 * 5
    assert TIMES.iterations(100, test_interval=20) == 40  # 10 + 80 + 5: one validation, before the last
    assert TIMES.iterations(11, test_interval=0) == 0
    assert TIMES.iterations(-5, test_interval=20) == 0


@given(
    seconds=st.floats(0, 1e4),
    step=st.floats(0.01, 10),
    validation=st.floats(0, 5),
    interval=st.sampled_from([0, 1, 200]),
)
def test_they_never_take_more_and_hardly_less(seconds: float, step: float, validation: float, interval: int) -> None:
    times = TrialTimes(trial=0.0, step=step, validation=validation, fixed=1.0, stages={})
    number = times.iterations(seconds, interval)
    assert number == 0 or times.training(number, interval) <= seconds + 1e-6
    assert times.training(number + 1, interval) > seconds - 1e-6


def test_the_schedule_is_stretched() -> None:
    steps = SolverConfig(max_iter=100, min_epochs=3, lr=LrPolicy(policy=Policy.step, stepsize=30, warmup_iter=7))
    longer = with_iterations(steps, 250)
    assert (longer.max_iter, longer.min_epochs, longer.lr.stepsize, longer.lr.warmup_iter) == (250, 0, 75, 7)
    several = SolverConfig(max_iter=100, lr=LrPolicy(policy=Policy.multistep, stepvalue=[40, 80]))
    assert with_iterations(several, 50).lr.stepvalue == [20, 40]
    cosine = with_iterations(SolverConfig(max_iter=100), 50)
    assert cosine.rate_factor(25, 50) == pytest.approx(SolverConfig().rate_factor(150, 300))


@pytest.mark.parametrize("policy", [one for one in Policy if one not in (Policy.step, Policy.multistep)])
def test_a_stretched_schedule_has_the_rates_at_the_same_share(policy: Policy) -> None:
    one = LrPolicy(policy=policy, gamma=0.05 if policy is not Policy.exp else 0.99, stepsize=40)
    for iteration in (0, 10, 60, 99):
        wanted = one.factor(iteration, 100)
        assert one.stretched(3).factor(3 * iteration, 300) == pytest.approx(wanted)


def test_the_least_iterations() -> None:
    assert least_iterations(SolverConfig(max_iter=500)) == 50
    assert least_iterations(SolverConfig(max_iter=0)) == 1


def test_seconds_of_a_step_without_the_warm_up() -> None:
    # Eight iterations in 16 s, twenty-four in 24 s: half a second each after the first eight.
    rows = [{"iteration": 8, "examples_per_second": 1.0}, {"iteration": 24, "examples_per_second": 2.0}]
    assert step_seconds(rows, examples_per_step=2) == pytest.approx(0.5)


def test_a_stage_grows_by_its_counted_part() -> None:
    assert scaled(10.0, 8.0, few=16, images=160) == 2 + 80
    assert scaled(10.0, 0.0, few=16, images=160) == 10
    assert scaled(1.0, 5.0, few=0, images=3) == 3  # more was counted than the stage took


def test_the_file(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert kept_budget(folder, 300) is None
    keep_budget(folder, KeptBudget(budget=300, trial=TIMES, iterations=7))
    assert kept_budget(folder, 300) == KeptBudget(budget=300, trial=TIMES, iterations=7)
    assert kept_budget(folder, 301) is None
    folder.budget.write_text("{}")
    with pytest.raises(DataclassJsonError, match=r"budget\.json.*overwrite=true"):
        kept_budget(folder, 300)
