"""What is stored with the regions of a feature store: labels, overlaps, and the rank among proposals."""

from __future__ import annotations

import numpy as np

from detpipe import boxes as geometry
from detpipe.classify.labeling import Regions
from detpipe.structures import Float32Array, GroundTruth, Int64Array


def unlabelled(boxes: Float32Array) -> Regions:
    """Regions of which nothing is known: (R, 4) with labels, overlaps and deltas of 0."""
    n = len(boxes)
    zeros = np.zeros((n, 4), dtype=np.float32)
    return Regions(boxes, np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.float32), zeros)


def nearest_places(boxes: Float32Array, proposals: Float32Array) -> Int64Array:
    """The place of the proposal that overlaps each box most, itself where it is one: (R, 4), (P, 4) -> (R,) int64."""
    if not len(proposals):
        return np.zeros(len(boxes), dtype=np.int64)
    return np.asarray(geometry.iou(boxes, proposals).argmax(axis=1), dtype=np.int64)


def class_ious(boxes: Float32Array, truth: GroundTruth, classes: int) -> Float32Array:
    """The best IoU of each box with an object of each class, difficult ones and crowds, too: (R, 4) -> (R, K)."""
    overlaps = geometry.iou(boxes, truth.boxes)
    best = np.zeros((len(boxes), classes), dtype=np.float32)
    for label in np.unique(truth.labels):
        best[:, label - 1] = overlaps[:, truth.labels == label].max(axis=1)
    return best
