"""First, last and best of every number of a log."""

from __future__ import annotations

import math

from detpipe.solver.training_summary import Course, Point, courses


def test_courses_by_hand() -> None:
    rows = [
        {"iteration": 1, "loss": 3.0, "lr": 0.1},
        {"iteration": 2, "loss": 1.0, "val_accuracy": 0.5},
        {"iteration": 3, "loss": math.nan, "lr": 0.2, "val_accuracy": 0.5, "name": "x", "flag": True},
    ]
    loss, rate, accuracy = courses(rows)
    assert (loss.name, loss.first, loss.best) == ("loss", Point(1, 3.0), Point(2, 1.0))
    assert loss.last.iteration == 3
    assert math.isnan(loss.last.value)
    assert rate == Course("lr", Point(1, 0.1), Point(3, 0.2), None)
    assert accuracy == Course("val_accuracy", Point(2, 0.5), Point(3, 0.5), Point(2, 0.5))


def test_no_rows() -> None:
    assert courses([]) == []
