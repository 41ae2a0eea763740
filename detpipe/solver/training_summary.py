"""Summary of a training log: the first, last and best value of each number."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeGuard

MAX_WHOLE = 1 << 53
"""Limit on integers, as float64 represents smaller ones exactly; a training writes none that are larger."""


class Point(NamedTuple):
    """A value after an iteration."""

    iteration: int
    value: float


@dataclass(frozen=True)
class Course:
    """A number of the log. best: the lowest value of a loss, the highest of an accuracy, None for other names."""

    name: str
    first: Point
    last: Point
    best: Point | None


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether a value is a number, including NaN and infinity, and not a boolean."""
    return isinstance(value, float) or (
        isinstance(value, int) and not isinstance(value, bool) and abs(value) < MAX_WHOLE
    )


def courses(rows: Iterable[Mapping[str, Any]]) -> list[Course]:
    """The course of each number except the iteration, in order of first appearance. No rows give an empty list.

    If the best value occurs several times, the earliest is used.
    """
    points: dict[str, list[Point]] = {}
    for row in rows:
        for name, value in row.items():
            if name != "iteration" and is_number(value):
                points.setdefault(name, []).append(Point(row["iteration"], float(value)))
    return [Course(name, series[0], series[-1], _best(name, series)) for name, series in points.items()]


def _best(name: str, points: list[Point]) -> Point | None:
    finite = [point for point in points if math.isfinite(point.value)]
    if not finite or not name.endswith(("loss", "accuracy")):
        return None
    return (min if name.endswith("loss") else max)(finite, key=lambda point: point.value)
