"""Recall of the first proposals: the five metrics of recall.json (see recall_measures.py)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass

import numpy as np

from detpipe.metrics.bootstrap import or_none
from detpipe.metrics.overlap_table import OverlapTable, overlap_table
from detpipe.metrics.recall_measures import MEASURES
from detpipe.structures import GroundTruth, ImageId, Proposals

BUDGETS = (10, 100, 500, 1000, 2000)
"""Numbers of proposals, as used by Hosang et al. and later papers."""


@dataclass(frozen=True)
class RecallAtBudget:
    """The five metrics at one number of proposals, in the order of MEASURES, in [0, 1]; all NaN without objects."""

    recall_50: float
    """recall@0.5."""
    recall_70: float
    """recall@0.7."""
    abo: float
    mabo: float
    ar: float

    def to_json(self) -> dict[str, float | None]:
        """The metrics by their names in recall.json; None for NaN."""
        return {name: or_none(value) for name, value in zip(MEASURES, astuple(self), strict=True)}


def proposal_recall(
    ground_truth: Mapping[ImageId, GroundTruth],
    proposals: Mapping[ImageId, Proposals] | Iterable[tuple[ImageId, Proposals]],
    n_classes: int,
    budgets: Sequence[int] = BUDGETS,
) -> dict[int, RecallAtBudget]:
    """The five metrics by budget, in one pass over the proposals. Arguments and errors are as in `overlap_table`."""
    return recall_at_budgets(overlap_table(ground_truth, proposals, n_classes, budgets))


def recall_at_budgets(table: OverlapTable) -> dict[int, RecallAtBudget]:
    """The five metrics at each budget of a table."""
    # Sorted, so that rounding does not depend on the order of images or objects.
    order = np.lexsort((*table.best.T, table.labels))
    best, labels = table.best[order], table.labels[order]
    columns = {name: measure.mean(best, labels) for name, measure in MEASURES.items()}
    rows = zip(*(columns[name].tolist() for name in MEASURES), strict=True)
    return {budget: RecallAtBudget(*row) for budget, row in zip(table.budgets, rows, strict=True)}
