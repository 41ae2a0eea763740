"""The score threshold for showing detections: the one with the best F1."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from detpipe.metrics.matching import match_detections
from detpipe.structures import Detections, GroundTruth, ImageId


@dataclass(frozen=True)
class OperatingPoint:
    """A score threshold, with precision and recall over all classes of the detections from this score."""

    score: float
    precision: float
    recall: float

    @property
    def f1(self) -> float:
        """2 PR / (P + R); 0 without a correct detection."""
        total = self.precision + self.recall
        return 2 * self.precision * self.recall / total if total else 0.0


def best_f1(
    ground_truth: Mapping[ImageId, GroundTruth],
    detections: Mapping[ImageId, Detections],
    *,
    iou_threshold: float = 0.5,
) -> OperatingPoint | None:
    """The score with the greatest F1 = 2 PR / (P + R), the higher one of equals; None without true positives.

    Matching, difficult objects and crowds are as in `match_detections`. Detections of other images are ignored.
    """
    pairs = [(gt, detections[image_id]) for image_id, gt in ground_truth.items() if image_id in detections]
    matches = [match_detections(gt, found, iou_threshold=iou_threshold) for gt, found in pairs]
    objects = sum(int((~gt.difficult & ~gt.crowd).sum()) for gt in ground_truth.values())
    if not any(match.true_positive.any() for match in matches):
        return None
    counted = ~np.concatenate([match.ignored for match in matches])
    scores = np.concatenate([found.scores for _, found in pairs])[counted]
    right = np.concatenate([match.true_positive for match in matches])[counted]
    order = np.argsort(-scores.astype(np.float64), kind="stable")
    scores, hits = scores[order], np.cumsum(right[order])
    shown = np.arange(1, len(scores) + 1)
    # F1 = 2 hits / (shown + objects). A threshold can't separate equal scores.
    f1 = np.where(np.append(scores[1:] < scores[:-1], True), 2 * hits / (shown + objects), -1.0)
    best = int(f1.argmax())
    return OperatingPoint(float(scores[best]), float(hits[best] / shown[best]), float(hits[best] / objects))


def best_f1_numbers(
    ground_truth: Mapping[ImageId, GroundTruth], detections: Mapping[ImageId, Detections], _classes: Sequence[str]
) -> dict[str, float]:
    """The best F1 at IoU 0.5, all classes together, with its score, precision and recall.

    Where no detection is right, F1 and recall are 0, and score and precision NaN. Without objects all are NaN.
    """
    point = best_f1(ground_truth, detections)
    if point is not None:
        return {"f1": point.f1, "score": point.score, "precision": point.precision, "recall": point.recall}
    has_objects = any((~gt.difficult & ~gt.crowd).any() for gt in ground_truth.values())
    least = 0.0 if has_objects else math.nan
    return {"f1": least, "score": math.nan, "precision": math.nan, "recall": least}
