"""Platt's sigmoid: where the answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from detpipe.heads.stored.platt import platt


def test_it_is_the_minimum_of_the_loss() -> None:
    generator = np.random.default_rng(0)
    positive = generator.random(200) < 0.2
    scores = (generator.normal(0, 1, 200) + 2 * positive).astype(np.float32)
    n, m = positive.sum(), (~positive).sum()
    target = np.where(positive, (n + 1) / (n + 2), 1 / (m + 2))
    wanted = minimize(lambda line: np.sum(np.logaddexp(0, z := line[0] * scores + line[1]) - target * z), [0.0, 0.0]).x
    assert platt(scores, positive) == pytest.approx(wanted, abs=1e-3)


def test_separated_scores_give_no_certainty() -> None:
    slope, offset = platt(np.array([-1, -1, 1], np.float32), np.array([False, False, True]))
    # Targets 1/4 and 2/3 are met exactly: logits -log 3 and log 2.
    assert slope - offset == pytest.approx(np.log(3), abs=1e-4)
    assert slope + offset == pytest.approx(np.log(2), abs=1e-4)


def test_one_side_alone() -> None:
    assert platt(np.ones(3, np.float32), np.zeros(3, bool)) == (1.0, 0.0)
    assert platt(np.zeros(0, np.float32), np.zeros(0, bool)) == (1.0, 0.0)


def test_scores_the_wrong_way_round_give_the_share_of_positives() -> None:
    """Targets are 2/3 for the one positive and 1/5 for each of the three negatives: 19/60 in the mean."""
    slope, offset = platt(np.array([-9, -7, -6, -5], np.float32), np.array([True, False, False, False]))
    assert slope == 0
    assert 1 / (1 + np.exp(-offset)) == pytest.approx(19 / 60, abs=1e-6)
