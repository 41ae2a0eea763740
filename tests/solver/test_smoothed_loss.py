"""The mean of the last losses."""

from __future__ import annotations

import pytest

from detpipe.solver.smoothed_loss import SmoothedLoss


def test_the_mean_of_the_last() -> None:
    smoothed, means = SmoothedLoss(3), []
    for loss in (3.0, 6.0, 9.0, 12.0):
        smoothed.add(loss)
        means.append(smoothed.mean)
    assert means == pytest.approx([3, 4.5, 6, 9])


def test_a_window_is_taken_up_also_by_a_smaller_one() -> None:
    smoothed = SmoothedLoss(2)
    smoothed.load([1.0, 2.0, 4.0])
    assert smoothed.state() == [2.0, 4.0]


def test_no_loss_yet() -> None:
    assert SmoothedLoss(5).state() == []
