"""How good and how fast is a detector with so many proposals an image: a point each budget, and the fewest that do.

A budget is a number of proposals of an image that are classified, best first. B: budgets.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from detpipe.metrics.bootstrap import ImageBootstrap, Resampled
from detpipe.metrics.coco_ap import coco_ap
from detpipe.metrics.map_bootstrap import resampled_map
from detpipe.metrics.overlap_table import OverlapTable
from detpipe.metrics.recall_curves import recall_curves
from detpipe.structures import Dataset, Detections, GroundTruth, ImageId


@dataclass(frozen=True)
class StageSeconds:
    """Of one image. propose: NaN where it was not measured. score: from the file to the scores. select: thinning."""

    propose: float
    score: float
    select: float

    @property
    def all(self) -> float:
        """What is known of them together."""
        return (0.0 if math.isnan(self.propose) else self.propose) + self.score + self.select

    def to_json(self) -> dict[str, float | None]:
        """The three and their sum; None for NaN."""
        propose = None if math.isnan(self.propose) else self.propose
        return {"propose": propose, "score": self.score, "select": self.select, "all": self.all}


@dataclass(frozen=True, eq=False)
class BudgetPoint:
    """One budget; NaN for a number that doesn't exist, where there are no objects, say.

    proposals: how many were classified, the mean over images. map: VOC 2010's at IoU 0.5, one column. ap, ar: COCO's AP
    and AR100 of the detections. proposal_ar: average recall of the proposals themselves, one column: what bounds ar.
    """

    budget: int
    proposals: float
    map: Resampled
    ap: float
    ar: float
    proposal_ar: Resampled
    seconds: StageSeconds

    def to_json(self) -> dict[str, Any]:
        """Plain values; None for NaN."""
        return {
            "budget": self.budget,
            "proposals": _or_none(self.proposals),
            "map": _interval(self.map),
            "ap": _or_none(self.ap),
            "ar": _or_none(self.ar),
            "proposal_ar": _interval(self.proposal_ar),
            "seconds": self.seconds.to_json(),
        }


@dataclass(frozen=True, eq=False)
class BudgetCurve:
    """The points, budgets rising. tolerance: the share of the best mAP that one gives up for fewer boxes."""

    points: tuple[BudgetPoint, ...]
    tolerance: float

    @property
    def best(self) -> BudgetPoint | None:
        """The point of the highest mAP, of equal ones the first; None where no point has one."""
        known = [point for point in self.points if not np.isnan(point.map.value.item())]
        return max(known, key=lambda point: point.map.value.item(), default=None)

    @property
    def fewest(self) -> BudgetPoint | None:
        """The first point whose mAP is at least (1 - tolerance) times the best; None where no point has an mAP."""
        best = self.best
        if best is None:
            return None
        wanted = (1 - self.tolerance) * best.map.value.item()
        return next(point for point in self.points if point.map.value.item() >= wanted)

    def to_json(self) -> dict[str, Any]:
        """The points, and the budgets of the best and of the fewest boxes."""
        best, fewest = self.best, self.fewest
        return {
            "tolerance": self.tolerance,
            "best": None if best is None else best.budget,
            "fewest": None if fewest is None else fewest.budget,
            "points": [point.to_json() for point in self.points],
        }


def budget_curve(
    dataset: Dataset,
    table: OverlapTable,
    detections: Mapping[int, Mapping[ImageId, Detections]],
    seconds: Mapping[int, StageSeconds],
    *,
    resamples: int,
    seed: int,
    tolerance: float,
) -> BudgetCurve:
    """The curve from what was found and measured at each budget.

    table: of the proposals, with a column for each budget. detections, seconds: by budget, the same ones. resamples: of
    the images, for the intervals; 0: no intervals. No budgets give no points. Raises ValueError for a data set without
    annotations, for a budget that the table doesn't have, and as `voc_ap` does.
    """
    if dataset.ground_truth is None:
        raise ValueError(f"{dataset.name}: has no annotations to measure against; give a split with boxes")
    truth = {record.image_id: dataset.ground_truth[record.image_id] for record in dataset.records}
    bootstrap = ImageBootstrap.draw(len(table.image_ids), resamples, seed)
    recalls = recall_curves(table, bootstrap)
    points = [
        BudgetPoint(
            budget=budget,
            proposals=float(np.minimum(table.proposals, budget).mean()) if len(table.proposals) else float("nan"),
            map=resampled_map(truth, detections[budget], dataset.classes, resamples=resamples, seed=seed),
            **_coco(truth, detections[budget], dataset.classes),
            proposal_ar=recalls.at(budget)["ar"],
            seconds=seconds[budget],
        )
        for budget in sorted(detections)
    ]
    return BudgetCurve(tuple(points), tolerance)


def share_of_scoring(first: tuple[float, float], all_of_them: tuple[float, float], regions: float) -> float:
    """Seconds of scoring so many regions of an image, on the line through two measured points.

    first, all_of_them: (regions, seconds) of an image, with few regions and with all. What doesn't depend on their
    number, the decoding and one pass over the image, is in both. A line that falls, by noise, is taken as level.
    """
    few, at_few = first
    most, at_most = all_of_them
    if most <= few:
        return at_most
    return at_most - max(at_most - at_few, 0.0) * (most - regions) / (most - few)


def _coco(
    truth: Mapping[ImageId, GroundTruth], found: Mapping[ImageId, Detections], classes: Sequence[str]
) -> dict[str, float]:
    numbers = coco_ap(truth, found, classes).numbers
    return {"ap": numbers["AP"], "ar": numbers["AR100"]}


def _interval(value: Resampled) -> dict[str, float | None]:
    return {name: column[0] for name, column in value.to_json().items()}


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value
