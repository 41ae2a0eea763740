"""The linear machine: problems with known answers, the conditions of the optimum, R-CNN's rounds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from detpipe.heads.region_head import BoxRegression
from detpipe.heads.stored.feature_head import Examples
from detpipe.heads.stored.linear_svm import BIAS_FEATURE, SvmConfig, mine_hard_negatives, solve_svm
from tests.heads.stored.examples import clusters


def test_two_points_by_hand() -> None:
    # Points 1 and -1, cost large: the widest margin is w = 1 with no bias, and each dual is 1/2 (w = sum a y x).
    found = solve_svm(
        np.array([[1.0], [-1.0]], np.float32), np.array([True, False]), c=10.0, tolerance=1e-6, max_passes=10**6
    )
    np.testing.assert_allclose(found.weight, [1.0], atol=1e-4)
    np.testing.assert_allclose(found.duals, [0.5, 0.5], atol=1e-4)
    assert abs(found.bias) < 1e-4


def test_a_cost_too_small_for_the_margin_bounds_the_duals() -> None:
    # Both duals at their bound, the positive's twice the other's: w = 0.02 + 0.01, bias = 10 (0.02 - 0.01) 10.
    x = np.array([[1.0], [-1.0]], np.float32)
    found = solve_svm(x, np.array([True, False]), c=0.001, positive_weight=2.0, tolerance=1e-9)
    np.testing.assert_allclose(found.duals, [0.002, 0.001])
    np.testing.assert_allclose(found.weight, [0.003], rtol=1e-6)
    assert found.bias == pytest.approx(BIAS_FEATURE**2 * 0.001)


def test_the_optimum() -> None:
    generator = np.random.default_rng(0)
    positive = generator.random(120) < 0.3
    x = generator.normal(0, 1, (120, 5)).astype(np.float32) + positive[:, None] * np.float32(0.7)
    found = solve_svm(x, positive, c=0.05, tolerance=1e-7, max_passes=5000)
    signs, upper = np.where(positive, 1.0, -1.0), np.where(positive, 0.1, 0.05)
    margins = signs * (x @ found.weight.astype(np.float64) + found.bias)
    # Karush, Kuhn, Tucker: no dual where the margin holds, all of it where it doesn't.
    assert (found.duals[margins > 1 + 1e-3] == 0).all()
    np.testing.assert_allclose(found.duals[margins < 1 - 1e-3], upper[margins < 1 - 1e-3])
    np.testing.assert_allclose((found.duals * signs) @ x, found.weight, atol=1e-5)

    def primal(point: np.ndarray) -> float:  # the bias is the weight of a feature of 10
        scores = x @ point[:-1] + BIAS_FEATURE * point[-1]
        return float(0.5 * point @ point + upper @ np.maximum(0, 1 - signs * scores))

    ours = primal(np.append(found.weight, found.bias / BIAS_FEATURE))
    reference = minimize(primal, np.zeros(6), method="Powell", options={"maxiter": 20000, "xtol": 1e-8, "ftol": 1e-10})
    assert ours <= reference.fun + 1e-4


def test_nothing_to_learn_from() -> None:
    found = solve_svm(np.zeros((0, 3), np.float32), np.zeros(0, bool))
    assert found.weight.tolist() == [0, 0, 0]
    assert found.bias == 0
    with pytest.raises(ValueError, match="a label for each of 2 examples, got 1"):
        solve_svm(np.zeros((2, 3), np.float32), np.zeros(1, bool))


def test_rounds_find_the_negatives_that_matter() -> None:
    generator = np.random.default_rng(1)
    x = generator.normal(0, 1, (3000, 6)).astype(np.float32)
    x[:100, 0] += 4  # the positives
    x[100:130, 0] += 3  # few hard negatives among many, that 50 drawn at random will hardly hold
    positive, negative = np.arange(100), np.arange(100, 3000)
    mined = mine_hard_negatives(x, positive, negative, c=0.01, rounds=8, first=50, tolerance=1e-6)
    whole = solve_svm(x, np.arange(3000) < 100, c=0.01, tolerance=1e-6)
    np.testing.assert_allclose(mined.weight, whole.weight, atol=0.02)


def test_positives_from_an_overlap_on() -> None:
    """With 1 they are the objects' own boxes: the machine is that of a store without the other regions of objects."""
    seen = clusters(1, seed=3)
    own = np.flatnonzero(seen.labels == 1)[::3]
    seen.ious[own] = 1
    shared = {"mean": torch.zeros(8), "scale": torch.ones(8)}
    none = BoxRegression.none
    near = SvmConfig(positive_iou=1.0, box_regression=none).fit(seen, shared, seed=0)
    rows = np.union1d(own, np.flatnonzero(seen.labels == 0))
    less = Examples(**{k: v if k in ("classes", "sets") else v[rows] for k, v in vars(seen).items()})
    assert torch.equal(near.weight, SvmConfig(box_regression=none).fit(less, shared, seed=0).weight)
    every = SvmConfig(box_regression=none).fit(seen, shared, seed=0)
    assert not torch.equal(near.weight, every.weight)
    assert torch.equal(SvmConfig(positive_iou=0.8, box_regression=none).fit(seen, shared, seed=0).weight, every.weight)
    seen.ious[own] = 0.8
    with pytest.raises(ValueError, match=r"head\.positive_iou=1\.0.*0\.80.*sampling\.own_boxes=true"):
        SvmConfig(positive_iou=1.0).fit(seen, shared, seed=0)
    with pytest.raises(ValueError, match=r"head\.positive_iou: .*got 1\.5"):
        SvmConfig(positive_iou=1.5)


@pytest.mark.parametrize("setting", [{"c": 0.0}, {"negative_iou": 1.5}, {"rounds": 0}])
def test_bad_settings(setting: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="expected c, positive_weight and rounds above 0"):
        SvmConfig(**setting)  # type: ignore[arg-type]
