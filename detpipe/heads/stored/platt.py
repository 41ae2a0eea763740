"""Scores as probabilities (Platt 1999): a sigmoid fitted to what is known of the examples."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from detpipe.structures import BoolArray, Float32Array


def platt(scores: Float32Array, positive: BoolArray, *, passes: int = 100) -> tuple[float, float]:
    """(slope, offset) so that sigmoid(slope score + offset) is the chance of a positive.

    Platt 1999 with his smoothed targets, which keep a class of few examples from certainty; Newton's steps, halved
    until the loss falls (Lin, Lin & Weng 2007). (N,), (N,) -> slope >= 0: scores that fall where positives are more
    often give (0, the logit of the positives' share). Without a positive or a negative: (1, 0).
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
        # The best line that doesn't fall is level, and has an offset of its own: that of the falling one is far off.
        share = float(target.mean())
        return 0.0, float(np.log(share / (1 - share)))
    return float(line[0]), float(line[1])
