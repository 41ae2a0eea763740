"""All that is measured of one method's proposals, and of two methods against each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from detpipe.metrics.bootstrap import ImageBootstrap, Resampled
from detpipe.metrics.overlap_table import OverlapTable
from detpipe.metrics.paired_difference import PairedDifference, paired_difference
from detpipe.metrics.recall_curves import RecallCurves, curves_by_class, curves_by_size, recall_curves
from detpipe.metrics.recall_measures import MEASURES


@dataclass(frozen=True, eq=False)
class MethodRecall:
    """One method on the images of a data set.

    budgets: of the tables, rising; curves has more. by_class, by_size: the same at these budgets, for some objects.
    images: how many there are; empty: how many of them have no proposals, whose objects are missed. mean_proposals: of
    an image; NaN without images.
    """

    budgets: tuple[int, ...]
    curves: RecallCurves
    by_class: dict[str, RecallCurves]
    by_size: dict[str, RecallCurves]
    images: int
    empty: int
    mean_proposals: float

    def to_json(self) -> dict[str, Any]:
        """Plain values; None for a number that doesn't exist."""
        return {
            "images": self.images,
            "images_without_proposals": self.empty,
            "mean_proposals": None if np.isnan(self.mean_proposals) else self.mean_proposals,
            "objects": self.curves.objects,
            "at": self.curves.table(self.budgets),
            "curves": self.curves.to_json(),
            "by_class": {name: _part(one, self.budgets) for name, one in self.by_class.items()},
            "by_size": {name: _part(one, self.budgets) for name, one in self.by_size.items()},
        }


def measure_method(
    table: OverlapTable,
    bootstrap: ImageBootstrap,
    classes: Sequence[str],
    budgets: Sequence[int],
    iou_budgets: Sequence[int],
) -> MethodRecall:
    """Measure one method from its table; curves at all budgets of the table, the rest at `budgets`.

    bootstrap: of as many images as the table has; one for all methods that are to be compared. Raises ValueError for a
    budget that the table doesn't have.
    """
    asked = tuple(sorted(set(budgets)))
    few = table.at(asked)
    return MethodRecall(
        budgets=asked,
        curves=recall_curves(table, bootstrap, iou_budgets),
        by_class=curves_by_class(few, bootstrap, classes),
        by_size=curves_by_size(few, bootstrap),
        images=len(table.image_ids),
        empty=int((table.proposals == 0).sum()),
        mean_proposals=float(table.proposals.mean()) if len(table.proposals) else float("nan"),
    )


def compare(first: MethodRecall, second: MethodRecall) -> dict[str, PairedDifference]:
    """First minus second: from each name of MEASURES, at the budgets of the tables, (B,).

    Raises ValueError where they were not measured on the same objects by one bootstrap at the same budgets.
    """
    if first.budgets != second.budgets or first.curves.objects != second.curves.objects:
        sides = " and ".join(f"{one.curves.objects} objects at {list(one.budgets)}" for one in (first, second))
        raise ValueError(f"compare: expected two methods on the same objects at the same budgets, got {sides}")
    return {name: paired_difference(_at(first, name), _at(second, name)) for name in MEASURES}


def recall_text(methods: Mapping[str, MethodRecall]) -> str:
    """A table for the terminal: the methods, which share their budgets, under each other at each budget.

    "±" is half of the interval; "-" where there is no number. No methods: the head alone.
    """
    width = max([len("method"), *map(len, methods)])
    heads = "".join(f"  {name:>12}" for name in MEASURES)
    head = f"{'boxes':>5}  {'method':<{width}}{heads}"
    lines = [head, "-" * len(head)]
    for budget in next(iter(methods.values())).budgets if methods else ():
        for place, (name, method) in enumerate(methods.items()):
            cells = "".join(f"  {_cell(value):>12}" for value in method.curves.at(budget).values())
            lines.append(f"{'' if place else budget:>5}  {name:<{width}}{cells}")
    return "\n".join(lines)


def difference_text(first: str, paired: Mapping[str, Mapping[str, PairedDifference]], budget: int) -> str:
    """A line for the terminal for each other method: the first's average recall minus its own, at the last budget.

    paired: from the other's name, as `compare` gives it. budget: the last one. No other methods: an empty text.
    """
    lines = []
    for name, differences in paired.items():
        ar = differences["ar"]
        value, low, high, p = (column[-1] for column in (ar.difference.value, *ar.difference.interval, ar.p))
        number = "-" if np.isnan(value) else f"{value:+.3f}"
        sure = "" if np.isnan(p) else f" ({low:+.3f} to {high:+.3f}, p {p:.3f})"
        lines.append(f"{first} minus {name}, ar at {budget}: {number}{sure}")
    return "\n".join(lines)


def _part(curves: RecallCurves, budgets: Sequence[int]) -> dict[str, Any]:
    return {"objects": curves.objects, "at": curves.table(budgets)}


def _at(method: MethodRecall, name: str) -> Resampled:
    places = [method.curves.budgets.index(budget) for budget in method.budgets]
    return method.curves.by_budget[name].columns(places)


def _cell(number: Resampled) -> str:
    value, (low, high) = number.value.item(), number.interval
    if np.isnan(value):
        return "-"
    half = (high - low).item() / 2
    return f"{value:.3f}" if np.isnan(half) else f"{value:.3f} ±{half:.3f}"
