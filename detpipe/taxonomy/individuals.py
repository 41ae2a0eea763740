"""Individuals: the detections of one thing as different classes, joined.

A detector gives a detection for each class, so one deer may be detected as red deer and as roe deer. Tools for camera
traps show one box with several possible classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from detpipe import boxes as geometry
from detpipe.structures import Detections, Float32Array

SAME_IOU = 0.5
"""Detections of different classes with at least this IoU are of one individual."""


@dataclass(frozen=True, eq=False)
class Individual:
    """One individual. box: (4,) x1 y1 x2 y2, of its best detection. scores: by label 1..K, the best first."""

    box: Float32Array
    scores: Mapping[int, float]

    @property
    def confidence(self) -> float:
        """The probability that it is of any class: the sum of its scores, at most 1."""
        return min(1.0, sum(self.scores.values()))

    @property
    def probabilities(self) -> dict[int, float]:
        """The probability of each class, given that it is of one: its share of the scores. They sum to 1."""
        total = sum(self.scores.values())
        return {label: score / total if total > 0 else 1 / len(self.scores) for label, score in self.scores.items()}


def individuals(detections: Detections) -> list[Individual]:
    """The individuals of one image, from high to low confidence. No detections give [].

    From high to low score, a detection joins the individual that has no detection of its class yet and whose box has
    the greatest IoU with it, at least SAME_IOU; else it is an individual of its own. Scores below 0 count as 0.
    """
    overlaps = geometry.iou(detections.boxes, detections.boxes)
    firsts: list[int] = []
    scores: list[dict[int, float]] = []
    for index, (score, label) in enumerate(zip(detections.scores.tolist(), detections.labels.tolist(), strict=True)):
        free = [number for number, own in enumerate(scores) if label not in own]
        best = max(free, key=lambda number: overlaps[index, firsts[number]], default=None)
        if best is None or overlaps[index, firsts[best]] < SAME_IOU:
            firsts.append(index)
            scores.append({})
            best = len(scores) - 1
        scores[best][label] = max(0.0, score)
    found = [Individual(detections.boxes[first], own) for first, own in zip(firsts, scores, strict=True)]
    return sorted(found, key=lambda one: -one.confidence)
