"""Accuracy and speed of a detector by the number of proposals per image, and the smallest sufficient number.

A budget is the number of top-scoring proposals of an image that are classified. B: budgets.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from detpipe.metrics.bootstrap import ImageBootstrap, Resampled, or_none
from detpipe.metrics.coco_ap import coco_ap
from detpipe.metrics.map_bootstrap import resampled_map
from detpipe.metrics.overlap_table import OverlapTable
from detpipe.metrics.recall_curves import recall_curves
from detpipe.structures import Dataset, Detections, GroundTruth, ImageId

WIDEST = 0.2
"""The widest interval of the best mAP from which a number of proposals is recommended."""


@dataclass(frozen=True)
class StageSeconds:
    """Seconds per image. propose: NaN if not measured. score: from the file to scores. select: cut-off and NMS."""

    propose: float
    score: float
    select: float

    @property
    def all(self) -> float:
        """The sum, without `propose` if it was not measured."""
        return (0.0 if math.isnan(self.propose) else self.propose) + self.score + self.select

    def to_json(self) -> dict[str, float | None]:
        """The three and their sum; None for NaN."""
        return {"propose": or_none(self.propose), "score": self.score, "select": self.select, "all": self.all}


@dataclass(frozen=True, eq=False)
class BudgetPoint:
    """The results at one budget; NaN for undefined values, for example without objects.

    proposals: mean number of classified proposals per image. map: VOC 2010's mAP at IoU 0.5, one column. ap, ar: COCO's
    AP and AR100 of the detections. proposal_ar: average recall of the proposals, one column, an upper bound of ar.
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
            "proposals": or_none(self.proposals),
            "map": _interval(self.map),
            "ap": or_none(self.ap),
            "ar": or_none(self.ar),
            "proposal_ar": _interval(self.proposal_ar),
            "seconds": self.seconds.to_json(),
        }


@dataclass(frozen=True, eq=False)
class BudgetCurve:
    """The points by ascending budget.

    tolerance: the share of the best mAP to give up for fewer proposals, 0 to 1. images: number of images with objects.
    """

    points: tuple[BudgetPoint, ...]
    tolerance: float
    images: int

    @property
    def best(self) -> BudgetPoint | None:
        """The point with the highest mAP, the first of equal ones; None if no point has an mAP."""
        known = [point for point in self.points if not np.isnan(point.map.value.item())]
        return max(known, key=lambda point: point.map.value.item(), default=None)

    @property
    def fewest(self) -> BudgetPoint | None:
        """The first point whose mAP is at least (1 - tolerance) times the best; None if no point has an mAP."""
        best = self.best
        if best is None:
            return None
        sufficient = (1 - self.tolerance) * best.map.value.item()
        return next(point for point in self.points if point.map.value.item() >= sufficient)

    @property
    def too_few_images(self) -> bool:
        """Whether the images can't tell how many proposals are enough.

        So it is if the 95 % interval of the best mAP is wider than WIDEST. A bootstrap can't know what no image shows,
        such as an object that needs more proposals; an event that none of n images has may be in 3 / n of all (rule of
        three), so fewer than 3 / WIDEST images with objects are too few, too. False without objects.
        """
        best = self.best
        if best is None:
            return False
        low, high = best.map.interval
        return bool(self.images * WIDEST < 3 or (high - low).item() > WIDEST)

    def to_json(self) -> dict[str, Any]:
        """The points, the tolerance, and the budgets of `best` and `fewest`; None for NaN."""
        best, fewest = self.best, self.fewest
        return {
            "tolerance": self.tolerance,
            "images_with_objects": self.images,
            "too_few_images": self.too_few_images,
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
    """Compute the curve from the detections and times at each budget.

    table: overlaps of the proposals, with a column for each budget. detections, seconds: by budget, with equal keys.
    resamples: number of bootstrap resamples of the images; 0: no intervals. No budgets give no points. Raises
    ValueError for a data set without annotations, for a budget that the table doesn't have, and as `voc_ap` does.
    """
    truth = dataset.measured_truth
    if truth is None:
        raise ValueError(f"{dataset.name}: expected annotations, got none; give a split with boxes")
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
    return BudgetCurve(tuple(points), tolerance, len(np.unique(table.images)))


def share_of_scoring(first: tuple[float, float], all_of_them: tuple[float, float], regions: float) -> float:
    """Seconds of scoring `regions` regions of an image, interpolated linearly between two measurements.

    first, all_of_them: (regions, seconds) of an image, with few regions and with all. Both contain the constant cost of
    decoding and the pass over the image. If noise makes the line fall, it is taken as constant.
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
