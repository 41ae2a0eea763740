"""The recall curves of Hosang et al. (PAMI 2015, section 4) from a table of overlaps, with bootstrap intervals.

Recall by IoU threshold at fixed budgets, and all metrics by number of proposals, for all objects or for objects of a
class or size. B: budgets. T: IoU thresholds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from detpipe.metrics.bootstrap import ImageBootstrap, Resampled
from detpipe.metrics.overlap_table import OverlapTable
from detpipe.metrics.recall_measures import MEASURES, reached
from detpipe.structures import BoolArray, Float32Array

THRESHOLDS: tuple[float, ...] = tuple(step / 100 for step in range(50, 101))
"""The IoU thresholds of the recall curves: 0.5, 0.51 ... 1."""

SIZES: dict[str, tuple[float, float]] = {
    "small": (0, 32**2),
    "medium": (32**2, 96**2),
    "large": (96**2, float("inf")),
}
"""COCO's object sizes: from name to areas in square pixels, first <= area < second.

COCO counts an object of exactly 32² or 96² in both sizes; here it belongs to the larger one.
"""


@dataclass(frozen=True, eq=False)
class RecallCurves:
    """The curves of one method.

    objects: number of objects. longest: the largest number of proposals of an image; the curves are constant after it.
    budgets: ascending. by_budget: by the names of MEASURES, (B,). by_iou: by budget, recall at each of THRESHOLDS,
    (T,).
    """

    objects: int
    longest: int
    budgets: tuple[int, ...]
    by_budget: dict[str, Resampled]
    by_iou: dict[int, Resampled]

    def at(self, budget: int) -> dict[str, Resampled]:
        """Every metric at one budget, (1,) each. Raises ValueError for a budget without a point."""
        if budget not in self.budgets:
            raise ValueError(f"RecallCurves: expected one of the budgets {list(self.budgets)}, got {budget}")
        index = self.budgets.index(budget)
        return {name: values.columns([index]) for name, values in self.by_budget.items()}

    def curve(self, name: str) -> tuple[tuple[int, ...], Resampled]:
        """A metric's curve up to the last proposal: the budgets below `longest`, then `longest`."""
        kept = [budget for budget in self.budgets if budget < self.longest]
        # The first budget >= `longest` includes all proposals, so it has the values of `longest`.
        axis = [*kept, self.longest] if len(kept) < len(self.budgets) else kept
        return tuple(axis), self.by_budget[name].columns(slice(len(axis)))

    def table(self, budgets: Sequence[int]) -> dict[str, dict[str, dict[str, float | None]]]:
        """By budget (as a string) and metric: value, low and high; None for NaN."""
        return {str(budget): {name: _first(one) for name, one in self.at(budget).items()} for budget in budgets}

    def to_json(self) -> dict[str, Any]:
        """ "longest", and "by_budget" and "by_iou", each with its axis; None for NaN."""
        axis, _ = self.curve("ar")
        by_budget = {name: self.curve(name)[1].to_json() for name in self.by_budget}
        by_iou = {str(budget): values.to_json() for budget, values in self.by_iou.items()}
        return {
            "longest": self.longest,
            "by_budget": {"budgets": list(axis), **by_budget},
            "by_iou": {"thresholds": list(THRESHOLDS), **by_iou},
        }


def recall_curves(table: OverlapTable, bootstrap: ImageBootstrap, iou_budgets: Sequence[int] = ()) -> RecallCurves:
    """The curves at the table's budgets, and recall by IoU threshold at `iou_budgets`. No objects give NaN.

    bootstrap: of the images of the table. Raises ValueError for an iou_budget that the table doesn't have.
    """
    table = table.at(sorted(set(table.budgets)))
    everything = np.zeros_like(table.labels)
    by_iou = {}
    for budget in iou_budgets:
        recalled = reached(table.at([budget]).best.astype(np.float64), np.array(THRESHOLDS))
        by_iou[budget] = bootstrap.means(recalled, table.images, everything)
    return RecallCurves(
        objects=len(table),
        longest=max(1, int(table.proposals.max(initial=0))),
        budgets=table.budgets,
        by_budget={
            name: bootstrap.means(measure.values(table.best), table.images, measure.groups(table.labels))
            for name, measure in MEASURES.items()
        },
        by_iou=by_iou,
    )


def curves_by_class(table: OverlapTable, bootstrap: ImageBootstrap, classes: Sequence[str]) -> dict[str, RecallCurves]:
    """The curves of each class by name, in label order. classes: label k is classes[k - 1]."""
    labels = {name: label for label, name in enumerate(classes, start=1)}
    return {name: recall_curves(table.where(table.labels == label), bootstrap) for name, label in labels.items()}


def curves_by_size(table: OverlapTable, bootstrap: ImageBootstrap) -> dict[str, RecallCurves]:
    """The curves of the small, medium and large objects by name of the size."""
    return {name: recall_curves(table.where(of_size(table.areas, name)), bootstrap) for name in SIZES}


def log_budgets(most: int = 10_000, a_decade: int = 12) -> tuple[int, ...]:
    """Numbers of proposals from 1 to `most`, evenly spaced on a log axis. Raises ValueError for `most` below 1."""
    if most < 1:
        raise ValueError(f"log_budgets: expected a number of proposals from 1 up, got {most}")
    steps = np.geomspace(1, most, 1 + round(a_decade * np.log10(most)))
    return tuple(sorted({*steps.round().astype(int).tolist(), most}))


def _first(number: Resampled) -> dict[str, float | None]:
    return {name: values[0] for name, values in number.to_json().items()}


def of_size(areas: Float32Array, name: str) -> BoolArray:
    """Which areas have the size `name`. (n,) float32 -> (n,) bool. Raises KeyError for a name that is not in SIZES."""
    least, bound = SIZES[name]
    chosen: BoolArray = (areas >= least) & (areas < bound)
    return chosen
