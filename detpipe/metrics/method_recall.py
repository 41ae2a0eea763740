"""All recall metrics of one proposal method, and the comparison of two methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from detpipe.metrics.bootstrap import ImageBootstrap, Resampled, or_none
from detpipe.metrics.overlap_table import OverlapTable
from detpipe.metrics.paired_difference import PairedDifference, paired_difference
from detpipe.metrics.recall_curves import RecallCurves, curves_by_class, curves_by_size, recall_curves
from detpipe.metrics.recall_measures import MEASURES


@dataclass(frozen=True, eq=False)
class MethodRecall:
    """The recall of one method on a data set.

    budgets: of the tables, ascending; `curves` has more. by_class, by_size: recall at these budgets for objects
    of one class or size. images: number of images. empty: number of images without proposals, whose objects are missed.
    mean_proposals: per image; NaN without images.
    """

    budgets: tuple[int, ...]
    curves: RecallCurves
    by_class: dict[str, RecallCurves]
    by_size: dict[str, RecallCurves]
    images: int
    empty: int
    mean_proposals: float

    def to_json(self) -> dict[str, Any]:
        """Values for JSON; None for NaN."""
        return {
            "images": self.images,
            "images_without_proposals": self.empty,
            "mean_proposals": or_none(self.mean_proposals),
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
    """Measure one method from its table: curves at all budgets of the table, everything else at `budgets`.

    bootstrap: of the images of the table; use the same one for all methods to compare. Raises ValueError for a budget
    that the table doesn't have.
    """
    own_budgets = tuple(sorted(set(budgets)))
    few = table.at(own_budgets)
    return MethodRecall(
        budgets=own_budgets,
        curves=recall_curves(table, bootstrap, iou_budgets),
        by_class=curves_by_class(few, bootstrap, classes),
        by_size=curves_by_size(few, bootstrap),
        images=len(table.image_ids),
        empty=int((table.proposals == 0).sum()),
        mean_proposals=float(table.proposals.mean()) if len(table.proposals) else float("nan"),
    )


def compare(first: MethodRecall, second: MethodRecall) -> dict[str, PairedDifference]:
    """First minus second for each name of MEASURES, at the budgets of the tables, (B,).

    Raises ValueError if they were not measured on the same objects with one bootstrap at the same budgets.
    """
    if first.budgets != second.budgets or first.curves.objects != second.curves.objects:
        sides = " and ".join(f"{one.curves.objects} objects at {list(one.budgets)}" for one in (first, second))
        raise ValueError(f"compare: expected two methods on the same objects at the same budgets, got {sides}")
    return {name: paired_difference(_at(first, name), _at(second, name)) for name in MEASURES}


def recall_text(methods: Mapping[str, MethodRecall]) -> str:
    """A table for the terminal with a row for each budget and method. All methods must have the same budgets.

    "±" is half of the interval; "-" is a missing number. No methods give only the header.
    """
    width = max([len("method"), *map(len, methods)])
    heads = "".join(f"  {name:>12}" for name in MEASURES)
    head = f"{'boxes':>5}  {'method':<{width}}{heads}"
    lines = [head, "-" * len(head)]
    for budget in next(iter(methods.values())).budgets if methods else ():
        for row, (name, method) in enumerate(methods.items()):
            cells = "".join(f"  {_cell(value):>12}" for value in method.curves.at(budget).values())
            lines.append(f"{'' if row else budget:>5}  {name:<{width}}{cells}")
    return "\n".join(lines)


def difference_text(first: str, paired: Mapping[str, Mapping[str, PairedDifference]], budget: int) -> str:
    """Lines for the terminal: average recall of the first method minus each other method's, at the last budget.

    paired: results of `compare` by name of the other method. budget: the last one. No other methods give "".
    """
    lines = []
    for name, differences in paired.items():
        ar = differences["ar"]
        value, low, high, p = (column[-1] for column in (ar.difference.value, *ar.difference.interval, ar.p))
        number = "-" if np.isnan(value) else f"{value:+.3f}"
        interval = "" if np.isnan(p) else f" ({low:+.3f} to {high:+.3f}, p {p:.3f})"
        lines.append(f"{first} minus {name}, ar at {budget}: {number}{interval}")
    return "\n".join(lines)


def _part(curves: RecallCurves, budgets: Sequence[int]) -> dict[str, Any]:
    return {"objects": curves.objects, "at": curves.table(budgets)}


def _at(method: MethodRecall, name: str) -> Resampled:
    indices = [method.curves.budgets.index(budget) for budget in method.budgets]
    return method.curves.by_budget[name].columns(indices)


def _cell(number: Resampled) -> str:
    value, (low, high) = number.value.item(), number.interval
    if np.isnan(value):
        return "-"
    half = (high - low).item() / 2
    return f"{value:.3f}" if np.isnan(half) else f"{value:.3f} ±{half:.3f}"
