"""Bootstrap intervals of VOC 2010's mean average precision.

An average precision is not a mean over objects, so `ImageBootstrap.means` can't compute it. Instead the curve is
computed for each resample, with images weighted by how often they were drawn. I: images. K: classes. P: detections of a
class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from detpipe.metrics.bootstrap import ImageBootstrap, Resampled
from detpipe.metrics.matching import check_covered, match_detections
from detpipe.metrics.voc_ap import VocMethod, average_precision
from detpipe.structures import BoolArray, Detections, GroundTruth, ImageId, Int64Array

_Hits = tuple[Int64Array, BoolArray]
"""The detections of a class that are not ignored, by descending score: image index (P,), true positive (P,)."""


def resampled_map(
    ground_truth: Mapping[ImageId, GroundTruth],
    detections: Mapping[ImageId, Detections],
    classes: Sequence[str],
    *,
    resamples: int,
    seed: int,
    iou_threshold: float = 0.5,
) -> Resampled:
    """VOC 2010's mAP as one column, for the data (equal to `voc_ap`) and for each resample.

    ground_truth: of every evaluated image. detections: an image without an entry has none. A resample averages only
    the classes of which it contains objects. No images or no objects give NaN. The same images, resamples and seed
    give the same draws, so the resamples of two detectors are paired. Raises ValueError as `voc_ap` does, and for a
    negative number of resamples.
    """
    check_covered(ground_truth, detections, classes)
    drawn = ImageBootstrap.draw(len(ground_truth), resamples, seed).counts.astype(np.int64)
    counts = np.concatenate([np.ones((1, len(ground_truth)), dtype=np.int64), drawn])
    hits = _hits_by_class(ground_truth, detections, len(classes), iou_threshold)
    values = np.full((len(classes), len(counts)), np.nan)
    for row, own, label in zip(values, hits, range(1, len(classes) + 1), strict=True):
        objects = [int((gt.labels[~gt.difficult & ~gt.crowd] == label).sum()) for gt in ground_truth.values()]
        row[:] = [_weighted_ap(*own, np.array(objects, dtype=np.int64), times) for times in counts]
    known = ~np.isnan(values)
    means = np.divide(
        np.where(known, values, 0).sum(axis=0),
        known.sum(axis=0),
        out=np.full(len(counts), np.nan),
        where=known.any(axis=0),
    )
    return Resampled(means[:1], means[1:, None])


def _hits_by_class(
    ground_truth: Mapping[ImageId, GroundTruth],
    detections: Mapping[ImageId, Detections],
    k: int,
    iou_threshold: float,
) -> list[_Hits]:
    """The hits of each class 1..k. Equal scores are ordered by image, then by detection, as in `precision_recall`."""
    images, labels = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
    scores, right = [np.zeros(0, dtype=np.float32)], [np.zeros(0, dtype=np.bool_)]
    for index, (image_id, gt) in enumerate(ground_truth.items()):
        if image_id not in detections:
            continue
        found = detections[image_id]
        match = match_detections(gt, found, iou_threshold=iou_threshold)
        counted = ~match.ignored
        images.append(np.full(int(counted.sum()), index, dtype=np.int64))
        labels.append(found.labels[counted])
        scores.append(found.scores[counted])
        right.append(match.true_positive[counted])
    order = np.argsort(-np.concatenate(scores).astype(np.float64), kind="stable")
    label_of, image_of, is_right = (np.concatenate(parts)[order] for parts in (labels, images, right))
    return [(image_of[label_of == label], is_right[label_of == label]) for label in range(1, k + 1)]


def _weighted_ap(images: Int64Array, right: BoolArray, objects: Int64Array, times: Int64Array) -> float:
    """The AP if image i, which has objects[i] objects, occurs times[i] times (both (I,)); NaN without objects.

    The copies of a detection have equal scores. If they are right, precision increases until the last copy; if they are
    wrong, recall does not change. So one point for all copies gives the same area.
    """
    total = int(objects @ times)
    if not total:
        return float("nan")
    weights = times[images]
    drawn = weights > 0
    hits, seen = np.cumsum(right * weights)[drawn], np.cumsum(weights)[drawn]
    return average_precision(hits / total, hits / seen, VocMethod.VOC10)
