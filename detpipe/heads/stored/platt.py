"""Platt scaling: a sigmoid that turns scores into probabilities (Platt 1999)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from detpipe.structures import BoolArray, Float32Array


def platt(scores: Float32Array, positive: BoolArray, *, passes: int = 100) -> tuple[float, float]:
    """Fit (slope, offset) so that sigmoid(slope score + offset) is the probability of a positive.

    scores: (N,). positive: (N,) bool. The targets are smoothed as in Platt 1999, which avoids probabilities of 0 and 1
    for classes with few examples. The fit uses Newton's method with step halving (Lin, Lin & Weng 2007).
    The slope is at least 0: if lower scores are positive more often, the result is (0, logit of the share of
    positives). Without positives or without negatives it is (1, 0).
    """
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    if not n_positive or not n_negative:
        return 1.0, 0.0
    x = np.stack([scores.astype(np.float64), np.ones(len(scores))])
    target = np.where(positive, (n_positive + 1) / (n_positive + 2), 1 / (n_negative + 2))
    line = np.array([0.0, np.log((n_positive + 1) / (n_negative + 1))])

    def loss(line: npt.NDArray[np.float64]) -> float:
        z = line @ x
        return float(np.sum(np.logaddexp(0, z) - target * z))

    now = loss(line)
    for _ in range(passes):
        p = 1 / (1 + np.exp(-np.clip(line @ x, -500, 500)))
        gradient = x @ (p - target)
        if np.abs(gradient).max() < 1e-6 * len(target):
            break
        step = np.linalg.solve((x * (p * (1 - p))) @ x.T + 1e-12 * np.eye(2), gradient)
        size = 1.0
        while size > 1e-10 and loss(line - size * step) > now:
            size /= 2
        line = line - size * step
        now = loss(line)
    if line[0] < 0:
        # With the slope fixed at 0, the best offset is the logit of the mean target.
        share = float(target.mean())
        return 0.0, float(np.log(share / (1 - share)))
    return float(line[0]), float(line[1])
