"""Learning rate policies against Caffe's formulas (src/caffe/solvers/sgd_solver.cpp), worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detpipe.solver.lr_policy import LrPolicy, Policy


@pytest.mark.parametrize(
    ("policy", "by_iteration"),
    [
        (LrPolicy(policy=Policy.fixed), {0: 1, 50: 1, 99: 1}),
        (LrPolicy(policy=Policy.step, gamma=0.1, stepsize=30), {0: 1, 29: 1, 30: 0.1, 59: 0.1, 60: 0.01, 99: 0.001}),
        (
            LrPolicy(policy=Policy.multistep, gamma=0.5, stepvalue=[10, 40]),
            {0: 1, 9: 1, 10: 0.5, 39: 0.5, 40: 0.25, 99: 0.25},
        ),
        (LrPolicy(policy=Policy.multistep, gamma=0.5), {0: 1, 99: 1}),
        (LrPolicy(policy=Policy.exp, gamma=0.9), {0: 1, 1: 0.9, 2: 0.81, 10: 0.9**10}),
        # LeNet's: gamma 0.0001, power 0.75.
        (LrPolicy(policy=Policy.inv, gamma=0.0001, power=0.75), {0: 1, 100: 1.01**-0.75, 10_000: 2**-0.75}),
        (LrPolicy(policy=Policy.inv, gamma=1, power=2), {0: 1, 1: 1 / 4, 2: 1 / 9}),
        (LrPolicy(policy=Policy.poly, power=2), {0: 1, 50: 0.25, 90: 0.01}),
        (LrPolicy(policy=Policy.poly, power=0.5), {0: 1, 75: 0.5}),
        (
            LrPolicy(policy=Policy.sigmoid, gamma=-0.1, stepsize=50),
            {50: 0.5, 60: 1 / (1 + math.e), 40: 1 / (1 + 1 / math.e)},
        ),
        (LrPolicy(policy=Policy.sigmoid, gamma=-1e6, stepsize=50), {0: 1, 99: 0}),
        (LrPolicy(policy=Policy.cosine), {0: 1, 25: (1 + math.sqrt(0.5)) / 2, 50: 0.5, 75: (1 - math.sqrt(0.5)) / 2}),
    ],
)
def test_by_hand(policy: LrPolicy, by_iteration: dict[int, float]) -> None:
    for iteration, factor in by_iteration.items():
        assert policy.factor(iteration, 100) == pytest.approx(factor, rel=1e-12, abs=1e-300), iteration


def test_warm_up_rises_to_the_policy() -> None:
    policy = LrPolicy(policy=Policy.fixed, warmup_iter=10, warmup_start=0.1)
    assert [policy.factor(i, 100) for i in (0, 5, 10, 11)] == pytest.approx([0.1, 0.55, 1, 1])
    cosine = LrPolicy(policy=Policy.cosine, warmup_iter=50, warmup_start=0.0)
    assert [cosine.factor(i, 100) for i in (0, 25, 50)] == pytest.approx([0, 0.5 * (1 + math.sqrt(0.5)) / 2, 0.5])


@given(
    st.sampled_from(Policy),
    st.integers(0, 999),
    st.integers(0, 100),
    st.floats(0.001, 1.0),
)
def test_a_falling_policy_stays_a_share(policy: Policy, iteration: int, warmup: int, gamma: float) -> None:
    factor = LrPolicy(policy=policy, gamma=gamma, warmup_iter=warmup).factor(iteration, 1000)
    assert 0 <= factor <= 1


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"stepsize": 0}, "stepsize: expected at least 1, got 0"),
        ({"stepvalue": [20, 10]}, r"ascending iterations, got \[20, 10\]"),
        ({"gamma": math.nan}, "gamma: expected a finite number, got nan"),
        ({"power": math.inf}, "power: expected a finite number, got inf"),
        ({"warmup_iter": -1}, "warmup_iter"),
        ({"warmup_start": 1.5}, "warmup_start"),
    ],
)
def test_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        LrPolicy(**values)


@pytest.mark.parametrize(
    "policy",
    [
        LrPolicy(policy=Policy.exp, gamma=1e10),
        LrPolicy(policy=Policy.inv, gamma=-1 / 99, power=1),
        LrPolicy(policy=Policy.inv, gamma=-1, power=0.75),
        LrPolicy(policy=Policy.poly, power=-1e300),
    ],
)
def test_a_policy_without_a_rate_is_named(policy: LrPolicy) -> None:
    with pytest.raises(ValueError, match=rf"solver\.lr: .* {policy.policy.value} .* at iteration 99 of 100"):
        policy.factor(99, 100)


TABLE = """\
policy     gamma  stepsize  power  stepvalue   0     1         2         3          4          9
fixed      0.5    3         2      2,3         1     1         1         1          1          1
step       0.5    3         2      2,3         1     1         1         0.5        0.5        0.125
multistep  0.5    3         2      2,3         1     1         0.5       0.25       0.25       0.25
exp        0.5    3         2      2,3         1     0.5       0.25      0.125      0.0625     0.001953125
inv        0.5    3         2      2,3         1     0.444444  0.25      0.16       0.111111   0.0330579
poly       0.5    3         2      2,3         1     0.81      0.64      0.49       0.36       0.01
sigmoid    0.5    3         2      2,3    0.182426   0.268941  0.377541  0.5        0.622459   0.952574
"""
"""The share of the rate by iteration, of 10, worked out with a pocket calculator from Caffe's comments."""


def test_the_table() -> None:
    head, *rows = [line.split() for line in TABLE.splitlines()]
    for name, gamma, stepsize, power, stepvalue, *shares in rows:
        policy = LrPolicy(
            policy=Policy(name),
            gamma=float(gamma),
            stepsize=int(stepsize),
            power=float(power),
            stepvalue=[int(value) for value in stepvalue.split(",")],
        )
        found = [policy.factor(int(iteration), 10) for iteration in head[5:]]
        assert found == pytest.approx([float(share) for share in shares], rel=3e-6), name
    assert {row[0] for row in rows} == {policy.value for policy in Policy} - {"cosine"}
