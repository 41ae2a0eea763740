"""The curves of Hosang et al. (PAMI 2015, section 4) from one table of overlaps, each point with its interval.

Recall against IoU at fixed budgets, every number against the number of proposals, and both for some of the objects:
those of a class, or of a size. B: budgets. T: IoU thresholds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from detpipe.metrics.bootstrap import ImageBootstrap, Resampled
from detpipe.metrics.object_size import SIZES, of_size
from detpipe.metrics.overlap_table import OverlapTable
from detpipe.metrics.recall_measures import MEASURES, Measure, reached

THRESHOLDS: tuple[float, ...] = tuple(step / 100 for step in range(50, 101))
"""The IoU at which recall is looked at: 0.5, 0.51 ... 1."""


@dataclass(frozen=True, eq=False)
class RecallCurves:
    """Of one method.

    by_budget: from each name of MEASURES, (B,). by_iou: from a budget, recall at each of THRESHOLDS, (T,). objects: how
    many count.
    """

    objects: int
    budgets: tuple[int, ...]
    by_budget: dict[str, Resampled]
    by_iou: dict[int, Resampled]

    def at(self, budget: int) -> dict[str, Resampled]:
        """Every measure at one budget, (1,) each. Raises ValueError for a budget that has no point."""
        place = self.budgets.index(budget)
        return {name: values.columns([place]) for name, values in self.by_budget.items()}

    def to_json(self) -> dict[str, Any]:
        """objects, budgets, by_budget, and by_iou with its thresholds where there is one."""
        content: dict[str, Any] = {"objects": self.objects, "budgets": list(self.budgets)}
        content["by_budget"] = {name: values.to_json() for name, values in self.by_budget.items()}
        if self.by_iou:
            at = {str(budget): values.to_json() for budget, values in self.by_iou.items()}
            content["by_iou"] = {"thresholds": list(THRESHOLDS), **at}
        return content


def log_budgets(most: int = 10_000, a_decade: int = 12) -> tuple[int, ...]:
    """Numbers of proposals from 1 to `most`, evenly spread on a log axis. Raises ValueError for `most` below 1."""
    if most < 1:
        raise ValueError(f"log_budgets: wanted a number of proposals from 1, got {most}")
    steps = np.geomspace(1, most, 1 + round(a_decade * np.log10(most)))
    return tuple(sorted({*steps.round().astype(int).tolist(), most}))


def recall_curves(table: OverlapTable, bootstrap: ImageBootstrap, iou_budgets: Sequence[int] = ()) -> RecallCurves:
    """The curves at the table's budgets, and recall against IoU at some of them; no objects give NaN.

    bootstrap: of as many images as the table has. Raises ValueError for an iou_budget that the table doesn't have.
    """
    thresholds = np.array(THRESHOLDS)
    share = {t: table.at([t]).best for t in iou_budgets}
    recall = Measure(lambda best: reached(best, thresholds))
    return RecallCurves(
        objects=len(table),
        budgets=table.budgets,
        by_budget={name: _resampled(table, table.best, measure, bootstrap) for name, measure in MEASURES.items()},
        by_iou={budget: _resampled(table, best, recall, bootstrap) for budget, best in share.items()},
    )


def curves_by_class(table: OverlapTable, bootstrap: ImageBootstrap, classes: Sequence[str]) -> dict[str, RecallCurves]:
    """The curves of each class alone, from its name, in label order. classes: label k is classes[k - 1]."""
    return {
        name: recall_curves(table.where(table.labels == label), bootstrap) for label, name in enumerate(classes, start=1)
    }


def curves_by_size(table: OverlapTable, bootstrap: ImageBootstrap) -> dict[str, RecallCurves]:
    """The curves of the small, medium and large objects alone."""
    return {name: recall_curves(table.where(of_size(table.areas, name)), bootstrap) for name in SIZES}


def up_to_the_longest(table: OverlapTable) -> OverlapTable:
    """The budgets in order, without those beyond the most proposals that an image has: nothing changes there.

    The last column is at that number itself. Without proposals the smallest budget stays.
    """
    longest = max(int(table.proposals.max(initial=0)), 1)
    order = sorted(set(table.budgets))
    kept = [budget for budget in order if budget < longest]
    beyond = [budget for budget in order if budget >= longest][:1]
    cut = table.at([*kept, *beyond])
    return cut if not beyond else _renamed(cut, (*kept, longest))


def _renamed(table: OverlapTable, budgets: tuple[int, ...]) -> OverlapTable:
    # A budget beyond the longest has the overlaps of the longest.
    return OverlapTable(
        budgets, table.best, table.images, table.labels, table.areas, table.image_ids, table.proposals
    )


def _resampled(table: OverlapTable, best: Any, measure: Measure, bootstrap: ImageBootstrap) -> Resampled:
    return bootstrap.means(measure.values(best), table.images, measure.groups(table.labels))
