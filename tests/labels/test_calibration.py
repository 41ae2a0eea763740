"""Probabilities of faults: they must be right in number, with made-up faults as the only teacher."""

from __future__ import annotations

import numpy as np

from detpipe.labels.calibration import HIGHEST_SHARE, cross_fitted, fault_shares, fit_faults
from detpipe.structures import Float64Array, Int64Array


def mixture(count: int, shares: tuple[float, ...], seed: int) -> tuple[Float64Array, Int64Array]:
    """Cues (count, 2) of labels, of which each kind has its own mean, and their kinds."""
    generator = np.random.default_rng(seed)
    kinds = generator.choice(len(shares), count, p=shares)
    means = np.array([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0]])
    return means[kinds] + generator.standard_normal((count, 2)), kinds


def made(seed: int) -> list[Float64Array]:
    return [mixture(400, shares, seed + row)[0] for row, shares in enumerate(((0, 1, 0), (0, 0, 1)))]


def test_the_sum_of_the_probabilities_is_about_the_number_of_faults() -> None:
    cues, kinds = mixture(1000, (0.86, 0.1, 0.04), 0)
    model = fit_faults(cues, made(1))
    assert model is not None
    found = model.probabilities(cues)
    assert np.allclose(found.sum(axis=1), 1)
    for kind in (1, 2):
        assert abs(found[:, kind].sum() - (kinds == kind).sum()) < 0.25 * (kinds == kind).sum() + 5
    assert (found.argmax(axis=1) == kinds).mean() > 0.95


def test_clean_labels_get_few_suspects() -> None:
    cues, _ = mixture(1000, (1, 0, 0), 0)
    model = fit_faults(cues, made(1))
    assert model is not None
    assert model.probabilities(cues)[:, 0].mean() > 0.98


def test_a_kind_that_cannot_be_made_has_probability_0() -> None:
    cues, _ = mixture(300, (0.9, 0.1, 0), 0)
    model = fit_faults(cues, [made(1)[0], np.zeros((0, 2))])
    assert model is not None
    assert model.probabilities(cues)[:, 2].max() < 1e-6


def test_without_labels_or_faults_there_is_no_model() -> None:
    cues, _ = mixture(10, (1, 0, 0), 0)
    assert fit_faults(np.zeros((0, 2)), made(1)) is None
    assert fit_faults(cues, [np.zeros((0, 2)), np.zeros((0, 2))]) is None


def test_no_rows_give_no_probabilities() -> None:
    cues, _ = mixture(100, (0.9, 0.1, 0), 0)
    model = fit_faults(cues, made(1))
    assert model is not None
    assert model.probabilities(np.zeros((0, 2))).shape == (0, 3)


def test_a_label_is_judged_without_its_own_fold() -> None:
    cues, _ = mixture(200, (0.9, 0.05, 0.05), 0)
    folds = np.arange(200) % 4
    made_folds = [np.arange(400) % 4] * 2
    before = cross_fitted(cues, folds, made(1), made_folds)
    cues[folds == 2] += 100.0
    after = cross_fitted(cues, folds, made(1), made_folds)
    for fold in (0, 1, 3):  # those are fitted with the changed labels
        assert not np.array_equal(before[folds == fold], after[folds == fold])
    changed = cues.copy()
    changed[folds == 2] = mixture(200, (0.9, 0.05, 0.05), 0)[0][folds == 2]
    assert np.array_equal(cross_fitted(changed, folds, made(1), made_folds)[folds == 2], before[folds == 2])


def test_one_fold_alone_has_no_judge() -> None:
    cues, _ = mixture(20, (1, 0, 0), 0)
    found = cross_fitted(cues, np.zeros(20, dtype=np.int64), made(1), [np.zeros(400, dtype=np.int64)] * 2)
    assert (found[:, 0] == 1).all()


def test_the_least_share_over_all_thresholds_is_taken() -> None:
    # 100 labels: 10 faults with clarity 1..10, 90 right ones at 0. Half of the made-up faults are above 5.5.
    clarity = np.concatenate([np.arange(1.0, 11), np.zeros(90), np.arange(1.0, 11)])
    logits = np.stack([np.zeros(110), clarity], axis=1)
    found = fault_shares(logits, 100, np.ones(10, dtype=np.int64), 2)
    # The clearest 7 of 10 faults give (7 + 1) / (100 * 0.7); one label is added.
    assert np.allclose(found, [1 - 8 / 70, 8 / 70])


def test_a_weak_model_does_not_find_more_faults_than_the_limit() -> None:
    logits = np.zeros((300, 3))
    found = fault_shares(logits, 100, np.repeat([1, 2], 100), 3)
    assert np.isclose(found[0], 1 - HIGHEST_SHARE)
    assert np.isclose(found.sum(), 1)
