"""How many detections are shown, and how many of them are correct, at each of several score thresholds.

K: classes. T: thresholds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from detpipe.metrics.matching import match_detections
from detpipe.structures import Detections, Float32Array, GroundTruth, ImageId, Int64Array


@dataclass(frozen=True, eq=False)
class ThresholdCounts:
    """The counts of each class.

    objects: (K,) int64, without difficult ones and crowds. shown: (K, T) int64, the detections with at least this
    score, without ignored ones. correct: (K, T) int64, the true positives among them, which is also the number of
    objects that are found.
    """

    objects: Int64Array
    shown: Int64Array
    correct: Int64Array


def threshold_counts(
    ground_truth: Mapping[ImageId, GroundTruth],
    detections: Mapping[ImageId, Detections],
    thresholds: Sequence[float],
    *,
    n_classes: int,
    iou_threshold: float = 0.5,
) -> ThresholdCounts:
    """Count the detections of all images at each threshold.

    Detections are matched once: by VOC's rules a match does not depend on detections with lower scores, so leaving them
    out changes no other match. thresholds: in any order; a detection is shown if its score is at least this one, both
    as float32. Detections of other images are ignored. Without detections all counts are 0.
    """
    objects = np.zeros(n_classes, np.int64)
    scores: list[Float32Array] = []
    labels: list[Int64Array] = []
    correct: list[Int64Array] = []
    for image_id, truth in ground_truth.items():
        counted = ~truth.difficult & ~truth.crowd
        objects += np.bincount(truth.labels[counted] - 1, minlength=n_classes)
        found = detections.get(image_id)
        if found is None:
            continue
        matches = match_detections(truth, found, iou_threshold=iou_threshold)
        kept = ~matches.ignored
        scores.append(found.scores[kept])
        labels.append(found.labels[kept])
        correct.append(matches.true_positive[kept].astype(np.int64))
    levels = np.asarray(thresholds, np.float32)
    shown_at, correct_at = (np.zeros((n_classes, len(levels)), np.int64) for _ in range(2))
    if scores:
        all_scores, all_labels, all_correct = np.concatenate(scores), np.concatenate(labels), np.concatenate(correct)
        for label in np.unique(all_labels).tolist():
            own = all_labels == label
            order = np.argsort(all_scores[own], kind="stable")
            # The number of scores below each threshold; all others are shown.
            below = np.searchsorted(all_scores[own][order], levels, side="left")
            correct_below = np.concatenate([[0], np.cumsum(all_correct[own][order])])
            shown_at[label - 1] = len(order) - below
            correct_at[label - 1] = correct_below[-1] - correct_below[below]
    return ThresholdCounts(objects, shown_at, correct_at)
