"""PASCAL VOC's average precision, in numpy: the 11 points of VOC 2007 and the area of VOC 2010.

Everingham et al., "The PASCAL Visual Object Classes (VOC) Challenge", IJCV 2010, section 4.2, and the devkits of 2007
and 2010 (VOCevaldet.m, VOCap.m). Who is matched to whom stands in matching.py.

The devkit counts pixels inclusively: a box xmin..xmax is one pixel wider than xmax - xmin. Our boxes have
x1 = xmin - 1 and x2 = xmax, so x2 - x1 is that number already, and so is an intersection's min(x2) - max(x1): the
areas are VOC's without another formula.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt

from detpipe.metrics.matching import Matches, check_covered, match_detections
from detpipe.structures import BoolArray, Detections, Float32Array, GroundTruth, ImageId, Int64Array

Float64Array = npt.NDArray[np.float64]


class VocMethod(Enum):
    """How a precision-recall curve becomes one number."""

    VOC07 = "voc07"
    """The mean of the interpolated precision at recall 0, 0.1 ... 1."""
    VOC10 = "voc10"
    """The area under the monotone envelope of the curve."""


@dataclass(frozen=True, eq=False)
class PrecisionRecall:
    """One class over all images: a point for each detection that is not ignored, from high to low score.

    recall, precision: (P,) float64. scores: (P,) float32. objects: how many there are to find, neither difficult nor
    crowd. Where there are none, recall has no meaning and the arrays are empty.
    """

    recall: Float64Array
    precision: Float64Array
    scores: Float32Array
    objects: int


@dataclass(frozen=True, eq=False)
class VocResult:
    """Average precisions, from the class's name.

    per_class: AP in [0, 1], NaN for a class without objects. map: their mean without the NaN; NaN where no class has
    an object. curves: (recall, precision), each (P,) float64. objects: how many there were to find.
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
    """The AP of each class and their mean, by the devkit's rules (see `match_detections`).

    ground_truth: every image that is evaluated. detections: an image without an entry has none. classes: label k is
    classes[k - 1]. A class with objects and no detections has AP 0. Equal scores count in the order of the images in
    `ground_truth`, then of the detections in the image: the order is stable, whatever made the detections.
    Raises ValueError for detections of an unknown image, for labels beyond 1..K and for a bad threshold.
    For both methods at once, match once with `precision_recall` and call `summarize` twice.
    """
    return summarize(precision_recall(ground_truth, detections, classes, iou_threshold=iou_threshold), method)


def precision_recall(
    ground_truth: Mapping[ImageId, GroundTruth],
    detections: Mapping[ImageId, Detections],
    classes: Sequence[str],
    *,
    iou_threshold: float = 0.5,
) -> dict[str, PrecisionRecall]:
    """The curve of each class, from its name; the arguments and errors are those of `voc_ap`."""
    check_covered(ground_truth, detections, classes)
    pairs = [(gt, detections[image_id]) for image_id, gt in ground_truth.items() if image_id in detections]
    matches = [match_detections(gt, found, iou_threshold=iou_threshold) for gt, found in pairs]
    labels, scores, right = _pool([found for _, found in pairs], matches)
    objects = _count_objects(ground_truth, len(classes))
    # Sorted by label, then score; the sort is stable, and each class is then one slice.
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
    """One curve's AP in [0, 1]. recall: (P,) rising, precision: (P,); P = 0 gives 0."""
    if len(recall) == 0:
        return 0.0
    # The envelope: the best precision at this recall or a greater one. Beyond the last recall it is 0.
    envelope = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    if method is VocMethod.VOC07:
        # Tenths by division: 3 / 10 is the double that a recall of 3 in 10 gives; arange's 0.30000000000000004 isn't.
        tenths = np.arange(11) / 10
        return float(envelope[np.searchsorted(recall, tenths, side="left")].mean())
    steps = np.diff(recall, prepend=0.0)
    return float((steps * envelope[:-1]).sum())


def _pool(found: Sequence[Detections], matches: Sequence[Matches]) -> tuple[Int64Array, Float32Array, BoolArray]:
    """Labels, scores and "is right" of all detections that are not ignored, image after image."""
    if not found:
        return np.zeros(0, np.int64), np.zeros(0, np.float32), np.zeros(0, np.bool_)
    counted = ~np.concatenate([match.ignored for match in matches])
    labels = np.concatenate([one.labels for one in found])[counted]
    scores = np.concatenate([one.scores for one in found])[counted]
    return labels, scores, np.concatenate([match.true_positive for match in matches])[counted]


def _count_objects(ground_truth: Mapping[ImageId, GroundTruth], k: int) -> Int64Array:
    """(K,) int64: the objects of each class that can be found, neither difficult nor crowd."""
    counts = np.zeros(k, dtype=np.int64)
    for gt in ground_truth.values():
        counts += np.bincount(gt.labels[~gt.difficult & ~gt.crowd] - 1, minlength=k)
    return counts


def _curve(right: BoolArray, scores: Float32Array, objects: int) -> PrecisionRecall:
    if objects == 0:
        return PrecisionRecall(np.zeros(0), np.zeros(0), np.zeros(0, np.float32), 0)
    hits = np.cumsum(right)
    return PrecisionRecall(hits / objects, hits / np.arange(1, len(hits) + 1), scores, objects)
