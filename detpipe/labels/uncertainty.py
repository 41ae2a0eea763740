"""How uncertain a detector is on an image near its score threshold, and what it disagrees on with its proposer.

N: detections of an image. R: regions in the order of the proposer, best first.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from detpipe import boxes as geometry
from detpipe.structures import Detections, Float32Array, Float64Array, GroundTruth, Int64Array

SAME_PLACE = 0.5
"""The IoU from which two boxes are of the same object."""
COUNTED = 5
"""Detections of an image that count, the most uncertain ones, so that crowded images do not take all places."""
RANKS = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000)
"""The first rank of each group of ranks for which the objectness is measured."""


@dataclass(frozen=True)
class Disagreement:
    """The strongest disagreement of each direction, in [0, 1], with the region or detection that has it; -1 if none.

    missed: the objectness of a region times the probability of the background that the classifier gives it.
    unexpected: the score of a detection times 1 - the objectness of the best region there.
    """

    missed: float
    region: int
    unexpected: float
    detection: int


def uncertainties(found: Detections, threshold: float) -> Float64Array:
    """The uncertainty of each detection, (N,) in [0, 1]: of being an object, or of its class; the greater of both.

    The first is 1 at the threshold and falls to 0 at the scores 0 and 1. The second is the score of another class at
    the same place divided by the detection's score (the margin of Brust et al., "Active Learning for Deep Object
    Detection", 2019, section 3), for detections from the threshold. Each place counts once: a detection of another
    class at the place of one with a higher score has 0. threshold: in (0, 1).
    """
    scores = found.scores.astype(np.float64)
    of_object = np.minimum(scores / threshold, (1 - scores) / (1 - threshold))
    if not len(found):
        return of_object
    same = (geometry.iou(found.boxes, found.boxes) >= SAME_PLACE) & (found.labels[:, None] != found.labels)
    earlier = np.tri(len(found), k=-1, dtype=np.bool_)  # detections are sorted by score
    rival = np.where(same & earlier.T, scores, 0.0).max(axis=1)
    of_class = np.where(scores >= threshold, rival / np.maximum(scores, 1e-12), 0.0)
    values = np.clip(np.maximum(of_object, of_class), 0, 1)
    values[(same & earlier).any(axis=1)] = 0.0
    return values


def image_uncertainty(values: Float64Array) -> float:
    """The uncertainty of an image, in [0, 1]: the sum of its COUNTED most uncertain detections, divided by COUNTED.

    The sum was the best aggregation of Brust et al. 2019. No detections give 0.
    """
    return float(np.sort(values)[::-1][:COUNTED].sum() / COUNTED)


def disagreement(
    regions: Float32Array, background: Float32Array, objectness: Float64Array, found: Detections, threshold: float
) -> Disagreement:
    """Compare the proposer's order with the classifier's answer.

    regions: (R, 4). background: (R,), probability of the background. objectness: (R,), see `objectness_of`. found: all
    detections; those from the threshold are taken as the classifier's answer. A region at the place of one of them is
    not missed. No regions give no disagreement on missed objects.
    """
    shown = np.flatnonzero(found.scores >= np.float32(threshold))
    overlaps = geometry.iou(regions, found.boxes[shown]) >= SAME_PLACE  # (R, shown)
    missed = np.where(overlaps.any(axis=1), 0.0, objectness * background.astype(np.float64))
    expected = np.where(overlaps, objectness[:, None], 0.0).max(axis=0, initial=0.0)
    unexpected = found.scores[shown].astype(np.float64) * (1 - expected)
    region = int(missed.argmax()) if len(missed) else -1
    detection = int(unexpected.argmax()) if len(shown) else -1
    return Disagreement(
        float(missed[region]) if region >= 0 else 0.0,
        region,
        float(unexpected[detection]) if detection >= 0 else 0.0,
        int(shown[detection]) if detection >= 0 else -1,
    )


def rank_objectness(images: Iterable[tuple[Float32Array, GroundTruth]]) -> Float64Array:
    """The share of proposals that cover an object (IoU of SAME_PLACE) for each group of RANKS, made non-increasing.

    images: proposals (R, 4), best first, with the objects of the image; difficult objects and crowds count too. A group
    without proposals has the share of the one before; without any proposals all are 0.
    """
    hits, numbers = np.zeros(len(RANKS)), np.zeros(len(RANKS))
    for boxes, truth in images:
        groups = _groups(len(boxes))
        covered = geometry.iou(boxes, truth.boxes).max(axis=1, initial=0) >= SAME_PLACE
        hits += np.bincount(groups, weights=covered, minlength=len(RANKS))
        numbers += np.bincount(groups, minlength=len(RANKS))
    shares: Float64Array = np.divide(hits, numbers, out=np.full(len(RANKS), np.nan), where=numbers > 0)
    best = 1.0 if numbers.any() else 0.0
    for group, share in enumerate(shares.tolist()):
        best = shares[group] = min(best, share) if not np.isnan(share) else best
    return shares


def objectness_of(by_rank: Float64Array, count: int) -> Float64Array:
    """The objectness of the first `count` regions by their ranks, (R,). by_rank: of `rank_objectness`."""
    return np.asarray(by_rank[_groups(count)], dtype=np.float64)


def _groups(count: int) -> Int64Array:
    return np.asarray(np.searchsorted(RANKS, np.arange(count), side="right") - 1, dtype=np.int64)
