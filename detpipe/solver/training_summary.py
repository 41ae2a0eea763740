"""How each number of a training log went: at first, at last, at its best."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeGuard

MAX_WHOLE = 1 << 53
"""A larger whole number is none that a training wrote; float64 holds those below."""


class Point(NamedTuple):
    """A number after an iteration."""

    iteration: int
    value: float


@dataclass(frozen=True)
class Course:
    """A number of the log by its name. best: lowest of a loss, highest of an accuracy, None of all others."""

    name: str
    first: Point
    last: Point
    best: Point | None


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether a value of a row is a number, NaN and infinity among them, and no truth value."""
    return isinstance(value, float) or (
        isinstance(value, int) and not isinstance(value, bool) and abs(value) < MAX_WHOLE
    )


def courses(rows: Iterable[Mapping[str, Any]]) -> list[Course]:
    """Of each number but the iteration, in the order of appearance; the earliest of equal bests. No rows give none."""
    points: dict[str, list[Point]] = {}
    for row in rows:
        for name, value in row.items():
            if name != "iteration" and is_number(value):
                points.setdefault(name, []).append(Point(row["iteration"], float(value)))
    return [Course(name, of_one[0], of_one[-1], _best(name, of_one)) for name, of_one in points.items()]


def _best(name: str, points: list[Point]) -> Point | None:
    finite = [point for point in points if math.isfinite(point.value)]
    if not finite or not name.endswith(("loss", "accuracy")):
        return None
    return (min if name.endswith("loss") else max)(finite, key=lambda point: point.value)
