"""Data stored with each region of a feature store: label, overlaps, and rank among the proposals."""

from __future__ import annotations

import numpy as np

from detpipe import boxes as geometry
from detpipe.classify.labeling import Regions
from detpipe.structures import Float32Array, GroundTruth, Int64Array


def unlabelled(boxes: Float32Array) -> Regions:
    """Return regions without annotation: boxes (R, 4) with labels, overlaps and deltas of 0."""
    n = len(boxes)
    zeros = np.zeros((n, 4), dtype=np.float32)
    return Regions(boxes, np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.float32), zeros)


def nearest_indices(boxes: Float32Array, proposals: Float32Array) -> Int64Array:
    """Return the index of the proposal with the highest IoU with each box: (R, 4), (P, 4) -> (R,) int64; 0 if P = 0."""
    if not len(proposals):
        return np.zeros(len(boxes), dtype=np.int64)
    return np.asarray(geometry.iou(boxes, proposals).argmax(axis=1), dtype=np.int64)


def class_ious(boxes: Float32Array, truth: GroundTruth, classes: int) -> Float32Array:
    """Return the highest IoU of each box with the objects of each class: (R, 4) -> (R, K).

    A class without objects has 0. Difficult objects and crowds count too.
    """
    overlaps = geometry.iou(boxes, truth.boxes)
    best = np.zeros((len(boxes), classes), dtype=np.float32)
    for label in np.unique(truth.labels):
        best[:, label - 1] = overlaps[:, truth.labels == label].max(axis=1)
    return best
