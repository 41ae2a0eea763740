"""Bootstrap intervals of VOC 2010's mean average precision.

An average precision is not a mean over objects, so `ImageBootstrap.means` can't compute it. Instead the curve is
computed for each resample, with images weighted by how often they were drawn. I: images. K: classes. P: detections of a
class. T: right detections among them. R: resamples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from detpipe.metrics.bootstrap import ImageBootstrap, Resampled
from detpipe.metrics.matching import check_covered, match_detections
from detpipe.structures import BoolArray, Detections, Float64Array, GroundTruth, ImageId, Int64Array

_AT_ONCE = 1 << 22
"""Limit on the numbers of a matrix (resamples, right detections or images) in float64 (32 MB)."""


@dataclass(frozen=True, eq=False)
class ClassHits:
    """The detections of a class that are not ignored, by descending score, and its objects.

    images: (P,) int64, index of the image. right: (P,) bool, true positive. objects: (I,) int64, the number of objects
    of each image that are neither difficult nor crowd.
    """

    images: Int64Array
    right: BoolArray
    objects: Int64Array

    def same(self, other: ClassHits) -> bool:
        """Whether both have the same average precision in each resample."""
        pairs = ((self.images, other.images), (self.right, other.right), (self.objects, other.objects))
        return all(np.array_equal(one, two) for one, two in pairs)


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
    bootstrap = ImageBootstrap.draw(len(ground_truth), resamples, seed)
    hits = hits_by_class(ground_truth, detections, len(classes), iou_threshold)
    return mean_of_classes(resampled_aps(hits, bootstrap))


def resampled_aps(
    hits: Sequence[ClassHits], bootstrap: ImageBootstrap, known: tuple[Sequence[ClassHits], Resampled] | None = None
) -> Resampled:
    """The average precision of each class as K columns; NaN without objects in the data, or in a resample.

    known: the hits of another detector with their result. Columns with the same hits are copied.
    """
    counts = np.concatenate([np.ones_like(bootstrap.counts, shape=(1, bootstrap.counts.shape[1])), bootstrap.counts])
    values = np.full((len(counts), len(hits)), np.nan)
    for index, own in enumerate(hits):
        if known is not None and own.same(known[0][index]):
            values[0, index], values[1:, index] = known[1].value[index], known[1].samples[:, index]
        else:
            values[:, index] = _weighted_aps(own, counts)
    return Resampled(values[0], values[1:])


def mean_of_classes(aps: Resampled) -> Resampled:
    """The mean over the K columns that are not NaN, as one column; NaN if all are."""
    values = np.concatenate([aps.value[None], aps.samples])
    known = ~np.isnan(values)
    means = np.divide(
        np.where(known, values, 0).sum(axis=1),
        known.sum(axis=1),
        out=np.full(len(values), np.nan),
        where=known.any(axis=1),
    )
    return Resampled(means[:1], means[1:, None])


def hits_by_class(
    ground_truth: Mapping[ImageId, GroundTruth],
    detections: Mapping[ImageId, Detections],
    k: int,
    iou_threshold: float = 0.5,
) -> list[ClassHits]:
    """The hits of each class 1..k. Equal scores are ordered by image, then by detection, as in `precision_recall`."""
    images, labels = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
    scores, right = [np.zeros(0, dtype=np.float32)], [np.zeros(0, dtype=np.bool_)]
    objects = np.zeros((k, len(ground_truth)), dtype=np.int64)
    for index, (image_id, gt) in enumerate(ground_truth.items()):
        objects[:, index] = np.bincount(gt.labels[~gt.difficult & ~gt.crowd] - 1, minlength=k)
        if image_id not in detections:
            continue
        found = detections[image_id]
        match = match_detections(gt, found, iou_threshold=iou_threshold)
        counted = ~match.ignored
        images.append(np.full(int(counted.sum()), index, dtype=np.int64))
        labels.append(found.labels[counted])
        scores.append(found.scores[counted])
        right.append(match.true_positive[counted])
    label_of = np.concatenate(labels)
    order = np.lexsort((-np.concatenate(scores).astype(np.float64), label_of))  # stable
    image_of, is_right = np.concatenate(images)[order], np.concatenate(right)[order]
    ends = np.searchsorted(label_of[order], np.arange(1, k + 2))
    return [
        ClassHits(image_of[begin:end], is_right[begin:end], own)
        for begin, end, own in zip(ends[:-1], ends[1:], objects, strict=True)
    ]


def _weighted_aps(hits: ClassHits, counts: npt.NDArray[np.uint16]) -> Float64Array:
    """The AP if image i occurs counts[r, i] times, for each of the (R, I) counts: (R,); NaN without objects.

    The copies of a detection have equal scores. If they are right, precision increases until the last copy; if they are
    wrong, recall does not change. So one point for all copies gives the same area. Recall increases at right detections
    only, and the greatest precision beyond a recall is at one of them, so the others are only counted.
    """
    correct = np.flatnonzero(hits.right)
    # between[t, i]: the detections of image i after the right one before t, up to and including t.
    last = correct[-1] + 1 if len(correct) else 0
    places = np.searchsorted(correct, np.arange(last)), hits.images[:last]
    between = csr_array((np.ones(last), places), shape=(len(correct), counts.shape[1]))
    area, total = np.empty(len(counts)), np.empty(len(counts))
    rows = max(1, _AT_ONCE // max(1, len(correct), counts.shape[1]))
    for begin in range(0, len(counts), rows):
        block = counts[begin : begin + rows].astype(np.float64)
        total[begin : begin + rows] = block @ hits.objects
        weights = block[:, hits.images[correct]]
        shown = np.ascontiguousarray((between @ block.T).T).cumsum(axis=1)
        precision = np.divide(weights.cumsum(axis=1), shown, out=np.zeros_like(shown), where=shown > 0)
        envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        area[begin : begin + rows] = (weights * envelope).sum(axis=1)
    aps: Float64Array = np.divide(area, total, out=np.full(len(counts), np.nan), where=total > 0)
    return aps
