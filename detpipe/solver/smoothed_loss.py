"""The mean loss of the last iterations, which Caffe's log shows where average_loss is more than 1."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence


class SmoothedLoss:
    """The mean of the last `window` losses; of all that came, while they are fewer (solver.cpp, UpdateSmoothedLoss)."""

    def __init__(self, window: int) -> None:
        self._losses: deque[float] = deque(maxlen=window)

    def add(self, loss: float) -> None:
        """Take in the loss of an iteration."""
        self._losses.append(loss)

    @property
    def mean(self) -> float:
        """The smoothed loss; there must have been one."""
        return sum(self._losses) / len(self._losses)

    def state(self) -> list[float]:
        """The losses of the window, oldest first. Caffe starts an empty window when it resumes; ours goes on."""
        return list(self._losses)

    def load(self, losses: Sequence[float]) -> None:
        """Take up what a snapshot held."""
        self._losses.extend(losses)
