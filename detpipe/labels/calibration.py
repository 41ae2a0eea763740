"""Probabilities of faults from cues: a logistic model of real labels against faults that are made up.

Nobody has marked which labels are wrong. But most labels are right, and wrong ones can be made: a label with another
class, a shifted box, a box on the background, a label that is taken away. The model learns to tell these from the
labels as they are. So this is learning from positive and unlabelled data (Elkan & Noto 2008), with several kinds of
positives. The share of each fault among the real labels is the largest one that no set of clear faults contradicts
(mixture proportion estimation, Blanchard, Lee & Scott 2010).

N: examples. F: cues. M: kinds of faults; column 0 is "right".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from detpipe.structures import Float64Array, Int64Array

LIMIT = 4.0
"""Standardised cues are limited to this, so that none can outweigh all others."""
HIGHEST_SHARE = 0.3
"""Limit on the estimated share of all faults together."""
CLEAR = (0.3, 0.4, 0.5, 0.6, 0.7)
"""Shares of the made-up faults, the clearest first, that the estimates of the real shares are made with."""
ROUNDS = 3
"""How often the model is fitted. Each time, real labels count as right to the probability that they are."""


@dataclass(frozen=True, eq=False)
class FaultModel:
    """A multinomial logistic model.

    centre, scale: (F,), to standardise the cues. weights: (2 F + 1, M + 1), for the cues, their squares and 1. shares:
    (M + 1,), of right labels and each fault among the examples that it was fitted with. priors: (M + 1,), among real
    labels.
    """

    centre: Float64Array
    scale: Float64Array
    weights: Float64Array
    shares: Float64Array
    priors: Float64Array

    def probabilities(self, cues: Float64Array) -> Float64Array:
        """Cues (N, F) -> probabilities (N, M + 1) that the label is right, or has each fault. N = 0 gives no rows."""
        odds = softmax(expanded(cues, self.centre, self.scale) @ self.weights) * (self.priors / self.shares)
        return np.asarray(odds / odds.sum(axis=1, keepdims=True), dtype=np.float64)


def fit_faults(real: Float64Array, made: Sequence[Float64Array], *, l2: float = 1.0) -> FaultModel | None:
    """Fit the model of right labels and faults.

    real: (N, F), cues of the labels as they are. made: for each kind of fault, (N_k, F), cues of made-up faults; a kind
    without examples gets the probability 0. Returns None without real labels, or without any made-up fault.
    """
    if not len(real) or not any(map(len, made)):
        return None
    everything = np.concatenate([real, *made])
    centre = np.median(everything, axis=0)
    scale = np.maximum(everything.std(axis=0), 1e-3)
    x = expanded(everything, centre, scale)
    kinds = len(made) + 1
    of_made = np.repeat(np.arange(1, kinds), [len(one) for one in made])
    # Every kind counts as much as half of the real labels, however many were made.
    targets = np.zeros((len(x), kinds))
    for kind, one in enumerate(made, start=1):
        targets[len(real) :, kind] = (of_made == kind) * (0.5 * len(real) / max(len(one), 1))
    targets[: len(real), 0] = 1
    present = np.array([True, *(len(one) > 0 for one in made)])
    priors = np.zeros(kinds)
    weights = np.zeros((x.shape[1], kinds))
    for turn in range(ROUNDS):
        shares = np.where(present, targets.sum(axis=0) / targets.sum(), 1.0)
        weights = solve(x, targets, weights, l2)
        if not turn:
            priors = fault_shares(x @ weights, len(real), of_made, kinds)
        model = FaultModel(centre, scale, weights, shares, priors)
        targets[: len(real), 0] = np.maximum(model.probabilities(real)[:, 0], 1e-3)
    return model


def fault_shares(logits: Float64Array, real: int, of_made: Int64Array, kinds: int) -> Float64Array:
    """The shares (M + 1,) of right labels and of each fault among the real labels.

    logits: (N, M + 1) of a model that was fitted with all real labels as right: the `real` labels, then the made-up
    faults, whose kinds are of_made. A set of clear faults of a kind (those above a threshold) holds a known part of the
    faults of this kind. If all real labels in the set were faults, their number divided by this part would be the
    number of faults. It is more if right labels are among them, so the least number over several thresholds is taken.
    One label is added to each number, because the least of noisy numbers is too low.
    """
    shares = np.zeros(kinds)
    for kind in range(1, kinds):
        clarity = logits[:, kind] - logits[:, 0]
        of_kind = clarity[real:][of_made == kind]
        if not len(of_kind):
            continue
        limits = np.quantile(of_kind, [1 - part for part in CLEAR])
        parts = [(of_kind >= limit).mean() for limit in limits]
        counts = [(clarity[:real] >= limit).sum() + 1 for limit in limits]
        shares[kind] = min(count / (real * part) for count, part in zip(counts, parts, strict=True))
    total = shares.sum()
    if total > HIGHEST_SHARE:
        shares *= HIGHEST_SHARE / total
    shares[0] = 1 - shares.sum()
    return shares


def expanded(cues: Float64Array, centre: Float64Array, scale: Float64Array) -> Float64Array:
    """Standardised cues, their squares and a column of ones: (N, F) -> (N, 2 F + 1)."""
    z = np.clip((cues - centre) / scale, -LIMIT, LIMIT)
    return np.concatenate([z, z**2 - 1, np.ones((len(z), 1))], axis=1)


def softmax(logits: Float64Array) -> Float64Array:
    """Softmax of each row: (N, M) -> (N, M)."""
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(odds / odds.sum(axis=1, keepdims=True), dtype=np.float64)


def solve(x: Float64Array, targets: Float64Array, start: Float64Array, l2: float) -> Float64Array:
    """Weights that minimise the cross entropy of weighted soft targets plus l2 / 2 |weights|^2, by L-BFGS."""
    totals = targets.sum(axis=1, keepdims=True)

    def loss(flat: Float64Array) -> tuple[float, Float64Array]:
        weights = flat.reshape(start.shape)
        logits = x @ weights
        top = logits.max(axis=1, keepdims=True)
        log_sum = top + np.log(np.exp(logits - top).sum(axis=1, keepdims=True))
        p = np.exp(logits - log_sum)
        decay = l2 * weights
        decay[-1] = 0
        value = float((targets * (log_sum - logits)).sum() + (decay * weights).sum() / 2)
        return value, np.asarray((x.T @ (p * totals - targets) + decay).ravel(), dtype=np.float64)

    found = minimize(loss, start.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": 200})
    return np.asarray(found.x, dtype=np.float64).reshape(start.shape)


def cross_fitted(
    real: Float64Array, real_folds: Int64Array, made: Sequence[Float64Array], made_folds: Sequence[Int64Array]
) -> Float64Array:
    """Probabilities (N, M + 1) of the real labels, each by a model that was fitted without the labels of its fold.

    real: (N, F), with the fold of each (N,). made: for each kind the cues of made-up faults, with their folds. Where no
    model can be fitted, each label is right with probability 1.
    """
    found = np.zeros((len(real), len(made) + 1))
    found[:, 0] = 1
    for fold in np.unique(real_folds):
        mine = real_folds == fold
        pairs = zip(made, made_folds, strict=True)
        model = fit_faults(real[~mine], [cues[folds != fold] for cues, folds in pairs])
        if model is not None:
            found[mine] = model.probabilities(real[mine])
    return found
