"""PASCAL VOC's average precision: 11-point interpolation (VOC 2007) and area under the curve (VOC 2010).

Everingham et al., "The PASCAL Visual Object Classes (VOC) Challenge", IJCV 2010, section 4.2, and the devkits of 2007
and 2010 (VOCevaldet.m, VOCap.m). matching.py matches detections to objects.

The devkit's boxes include their last pixel: the width of xmin..xmax is xmax - xmin + 1. Boxes here have x1 = xmin - 1
and x2 = xmax, so x2 - x1 is the same width, and min(x2) - max(x1) the same width of an intersection. So areas are equal
to VOC's without extra terms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np

from detpipe.metrics.matching import Matches, check_covered, match_detections
from detpipe.structures import BoolArray, Detections, Float32Array, Float64Array, GroundTruth, ImageId, Int64Array


class VocMethod(Enum):
    """How the average precision is computed from a precision-recall curve."""

    VOC07 = "voc07"
    """The mean of the interpolated precision at recall 0, 0.1 ... 1."""
    VOC10 = "voc10"
    """The area under the monotone envelope of the curve."""


@dataclass(frozen=True, eq=False)
class PrecisionRecall:
    """The curve of one class over all images: a point for each detection that is not ignored, by descending score.

    recall, precision: (P,) float64. scores: (P,) float32. objects: number of objects that are neither difficult nor
    crowd. Without objects, recall is undefined and the arrays are empty.
    """

    recall: Float64Array
    precision: Float64Array
    scores: Float32Array
    objects: int


@dataclass(frozen=True, eq=False)
class VocResult:
    """Average precisions by class name.

    per_class: AP in [0, 1], NaN for a class without objects. map: mean over the classes with objects; NaN if there are
    none. curves: (recall, precision), each (P,) float64. objects: number of objects, as in PrecisionRecall.
    """

    per_class: dict[str, float]
    map: float
    curves: dict[str, tuple[Float64Array, Float64Array]]
    objects: dict[str, int]


def voc_ap(
    ground_truth: Mapping[ImageId, GroundTruth],
    detections: Mapping[ImageId, Detections],
    classes: Sequence[str],
    *,
    iou_threshold: float = 0.5,
    method: VocMethod,
) -> VocResult:
    """The AP of each class and the mAP, by the devkit's rules (see `match_detections`).

    ground_truth: of every evaluated image. detections: an image without an entry has none. classes: label k is
    classes[k - 1]. A class with objects and no detections has AP 0. Equal scores are ordered by image as in
    `ground_truth`, then as in the image's detections. To use both methods, call `precision_recall` once and `summarize`
    twice. Raises ValueError for detections of an unknown image, for labels outside 1..K and for an invalid threshold.
    """
    return summarize(precision_recall(ground_truth, detections, classes, iou_threshold=iou_threshold), method)


def precision_recall(
    ground_truth: Mapping[ImageId, GroundTruth],
    detections: Mapping[ImageId, Detections],
    classes: Sequence[str],
    *,
    iou_threshold: float = 0.5,
) -> dict[str, PrecisionRecall]:
    """The curve of each class by name. Arguments and errors are as in `voc_ap`."""
    check_covered(ground_truth, detections, classes)
    pairs = [(gt, detections[image_id]) for image_id, gt in ground_truth.items() if image_id in detections]
    matches = [match_detections(gt, found, iou_threshold=iou_threshold) for gt, found in pairs]
    labels, scores, right = _pool([found for _, found in pairs], matches)
    objects = _count_objects(ground_truth, len(classes))
    # A stable sort by label, then score, makes each class one slice.
    order = np.lexsort((-scores.astype(np.float64), labels))
    ends = np.searchsorted(labels[order], np.arange(1, len(classes) + 2))
    curves = {}
    for k, name in enumerate(classes):
        own = order[ends[k] : ends[k + 1]]
        curves[name] = _curve(right[own], scores[own], int(objects[k]))
    return curves


def summarize(curves: Mapping[str, PrecisionRecall], method: VocMethod) -> VocResult:
    """The result of one method from the curves of `precision_recall`."""
    per_class = {
        name: average_precision(curve.recall, curve.precision, method) if curve.objects else float("nan")
        for name, curve in curves.items()
    }
    known = [ap for ap in per_class.values() if not np.isnan(ap)]
    return VocResult(
        per_class=per_class,
        map=float(np.mean(known)) if known else float("nan"),
        curves={name: (curve.recall, curve.precision) for name, curve in curves.items()},
        objects={name: curve.objects for name, curve in curves.items()},
    )


def average_precision(recall: Float64Array, precision: Float64Array, method: VocMethod) -> float:
    """The AP of a curve, in [0, 1]. recall: (P,) ascending, precision: (P,); P = 0 gives 0."""
    if len(recall) == 0:
        return 0.0
    # The envelope is the best precision at this or a greater recall, and 0 beyond the last recall.
    envelope = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    if method is VocMethod.VOC07:
        # Divided, because 3 / 10 is exactly the recall of 3 of 10 objects, unlike arange's 0.30000000000000004.
        tenths = np.arange(11) / 10
        return float(envelope[np.searchsorted(recall, tenths, side="left")].mean())
    steps = np.diff(recall, prepend=0.0)
    return float((steps * envelope[:-1]).sum())


def _pool(found: Sequence[Detections], matches: Sequence[Matches]) -> tuple[Int64Array, Float32Array, BoolArray]:
    """Labels, scores and true-positive flags of all detections that are not ignored, ordered by image."""
    if not found:
        return np.zeros(0, np.int64), np.zeros(0, np.float32), np.zeros(0, np.bool_)
    counted = ~np.concatenate([match.ignored for match in matches])
    labels = np.concatenate([one.labels for one in found])[counted]
    scores = np.concatenate([one.scores for one in found])[counted]
    return labels, scores, np.concatenate([match.true_positive for match in matches])[counted]


def _count_objects(ground_truth: Mapping[ImageId, GroundTruth], k: int) -> Int64Array:
    """(K,) int64: the number of objects of each class that are neither difficult nor crowd."""
    counts = np.zeros(k, dtype=np.int64)
    for gt in ground_truth.values():
        counts += np.bincount(gt.labels[~gt.difficult & ~gt.crowd] - 1, minlength=k)
    return counts


def _curve(right: BoolArray, scores: Float32Array, objects: int) -> PrecisionRecall:
    if objects == 0:
        return PrecisionRecall(np.zeros(0), np.zeros(0), np.zeros(0, np.float32), 0)
    hits = np.cumsum(right)
    return PrecisionRecall(hits / objects, hits / np.arange(1, len(hits) + 1), scores, objects)
