"""A tree of classes, such as species, genera and families, and the roll-up of probabilities in it."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from detpipe.datasets.delimited_text import read_rows

_ROUNDING = 1e-9


class ClassTreeError(ValueError):
    """A table is not a tree of the classes."""


@dataclass(frozen=True)
class Answer:
    """A name of the tree. level: index of its level, 0 for a class. probability: the sum of its classes."""

    name: str
    level: int
    probability: float


@dataclass(frozen=True)
class ClassTree:
    """levels: their names, from the classes to the coarsest. paths: of each class its names at all levels.

    The first name of a path is the class itself. A name is "" where a class has none at a level.
    """

    levels: tuple[str, ...]
    paths: Mapping[str, tuple[str, ...]]

    def sums(self, probabilities: Mapping[str, float], level: int) -> dict[str, float]:
        """The summed probability of each name of a level. Classes without a name there are not in any sum."""
        parts: defaultdict[str, list[float]] = defaultdict(list)
        for name, probability in probabilities.items():
            parts[self.paths[name][level]].append(probability)
        return {node: math.fsum(own) for node, own in parts.items() if node}

    def best(self, probabilities: Mapping[str, float], level: int) -> Answer | None:
        """The most probable name of a level, the first by name of equal ones; None if no class has a name there."""
        sums = self.sums(probabilities, level)
        if not sums:
            return None
        name = min(sums, key=lambda node: (-sums[node], node))
        return Answer(name, level, sums[name])

    def answer(self, probabilities: Mapping[str, float], threshold: float) -> Answer | None:
        """The most probable name of the finest level where its summed probability is at least the threshold.

        probabilities: by class. None if no level has such a name.
        """
        for level in range(len(self.levels)):
            best = self.best(probabilities, level)
            if best is not None and best.probability >= threshold - _ROUNDING:
                return best
        return None

    def description(self, name: str, level: int) -> str:
        """A name with those above it, from the coarsest, separated by semicolons; missing ones are left out."""
        path = next(path for path in self.paths.values() if path[level] == name)
        return ";".join(node for node in reversed(path[level:]) if node)


def read_class_tree(path: Path, classes: tuple[str, ...]) -> ClassTree:
    """Read the tree of a detector's classes from a table: class, then its parents from fine to coarse.

    The first row is a header with the names of the levels if its first cell is none of the classes. Other rows of
    other classes are ignored. Raises ClassTreeError, which names the file, for a class without a row or with two
    different ones, and for a name whose parents differ from row to row; and as `read_rows`.
    """
    rows = read_rows(path, "a table of classes and their parents")
    width = max((len(row) for _, row in rows), default=0)
    if width < 2:
        raise ClassTreeError(f"{path}: expected columns class, parent, ..., got {width} columns; add the parents")
    header = rows[0][1] if rows[0][1][0] not in classes else []
    names = [cell or f"parent {number}" for number, cell in enumerate(header)]
    levels = [*names, *(f"parent {number}" if number else "class" for number in range(len(names), width))]
    paths: dict[str, tuple[str, ...]] = {}
    lines: dict[tuple[int, str], tuple[int, tuple[str, ...]]] = {}
    for line, row in rows[1:] if header else rows:
        own = (*row, *[""] * (width - len(row)))
        if own[0] not in classes:
            continue
        for level, node in enumerate(own):
            first, above = (
                lines.setdefault((level, node), (line, own[level + 1 :])) if node else (line, own[level + 1 :])
            )
            if above != own[level + 1 :]:
                raise ClassTreeError(
                    f"{path}:{line}: expected {levels[level]} {node!r} below {_path(above)} as in line {first}, got "
                    f"{_path(own[level + 1 :])}; correct one, or order the columns from fine to coarse"
                )
        paths[own[0]] = own
    missing = [name for name in classes if name not in paths]
    if missing:
        raise ClassTreeError(
            f"{path}: expected a row for each class of the detector, got none for {', '.join(missing[:10])}; add them"
        )
    return ClassTree(tuple(levels), {name: paths[name] for name in classes})


def _path(names: tuple[str, ...]) -> str:
    return " > ".join(repr(name) for name in names)
