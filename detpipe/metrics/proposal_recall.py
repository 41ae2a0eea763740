"""How many objects the first proposals find: the five numbers of recall.json (see recall_measures.py)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from detpipe.metrics.overlap_table import OverlapTable, overlap_table
from detpipe.metrics.recall_measures import MEASURES
from detpipe.structures import GroundTruth, ImageId, Proposals

BUDGETS = (10, 100, 500, 1000, 2000)
"""The numbers of proposals at which Hosang et al. and their followers look."""


@dataclass(frozen=True)
class RecallAtBudget:
    """The five numbers at one number of proposals, each in [0, 1]; all NaN where no object counts."""

    recall_50: float
    """recall@0.5."""
    recall_70: float
    """recall@0.7."""
    abo: float
    mabo: float
    ar: float

    def to_json(self) -> dict[str, float | None]:
        """By the names of recall.json; NaN, which JSON doesn't have, becomes None."""
        numbers = (self.recall_50, self.recall_70, self.abo, self.mabo, self.ar)
        named = zip(MEASURES, numbers, strict=True)
        return {name: None if np.isnan(number) else number for name, number in named}


def proposal_recall(
    ground_truth: Mapping[ImageId, GroundTruth],
    proposals: Mapping[ImageId, Proposals] | Iterable[tuple[ImageId, Proposals]],
    n_classes: int,
    budgets: Sequence[int] = BUDGETS,
) -> dict[int, RecallAtBudget]:
    """The five numbers by budget, in one pass over the proposals; arguments and errors are those of `overlap_table`."""
    return recall_at_budgets(overlap_table(ground_truth, proposals, n_classes, budgets))


def recall_at_budgets(table: OverlapTable) -> dict[int, RecallAtBudget]:
    """The five numbers by the budgets of a table."""
    # Sorted, so that not even the last digit of a sum depends on the order of the images or of their objects.
    order = np.lexsort((*table.best.T, table.labels))
    best, labels = table.best[order], table.labels[order]
    columns = {name: measure.mean(best, labels) for name, measure in MEASURES.items()}
    return {
        budget: RecallAtBudget(
            recall_50=float(columns["recall@0.5"][place]),
            recall_70=float(columns["recall@0.7"][place]),
            abo=float(columns["abo"][place]),
            mabo=float(columns["mabo"][place]),
            ar=float(columns["ar"][place]),
        )
        for place, budget in enumerate(table.budgets)
    }
