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
        ({"stepsize": 0}, "stepsize: wanted at least 1, got 0"),
        ({"stepvalue": [20, 10]}, r"ascending iterations, got \[20, 10\]"),
        ({"warmup_iter": -1}, "warmup_iter"),
        ({"warmup_start": 1.5}, "warmup_start"),
    ],
)
def test_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        LrPolicy(**values)
