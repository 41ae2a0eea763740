"""Matching of the detections of one image to its objects, by PASCAL VOC's rules.

N: detections of the image. G: its objects. The average precision and the report use the same matches.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from detpipe import boxes
from detpipe.structures import BoolArray, Detections, Float32Array, GroundTruth, ImageId, Int64Array


@dataclass(frozen=True, eq=False)
class Matches:
    """The result for each detection, in the order of the detections.

    true_positive: (N,) bool. ignored: (N,) bool, counted neither as right nor as wrong. All others are false positives.
    object_index: (N,) int64, the object of the same class with the greatest IoU, except crowds; -1 if the image has no
    such object. overlap: (N,) float32, this IoU, or 0.
    """

    true_positive: BoolArray
    ignored: BoolArray
    object_index: Int64Array
    overlap: Float32Array

    @property
    def false_positive(self) -> BoolArray:
        """(N,) bool: neither true positive nor ignored."""
        return ~self.true_positive & ~self.ignored

    def found(self, ground_truth: GroundTruth) -> BoolArray:
        """(G,) bool: the objects that have a true positive."""
        found = np.zeros(len(ground_truth), dtype=np.bool_)
        found[self.object_index[self.true_positive]] = True
        return found


def match_detections(ground_truth: GroundTruth, detections: Detections, *, iou_threshold: float = 0.5) -> Matches:
    """Match the detections of one image to its objects as VOCevaldet.m of the VOC devkit does.

    By descending score, each detection is assigned to the object of its class with the greatest IoU (the first of equal
    ones), including difficult and already assigned objects. If IoU >= iou_threshold (the devkit's `>=`), it is ignored
    if the object is difficult, a true positive if no earlier detection was assigned to the object, else a false
    positive.

    VOC has no crowds. Here they follow COCO: a detection that would be a false positive is ignored if at least
    iou_threshold of its own area lies in a crowd box of its class; a crowd is never found and never missed.
    Detections with equal scores keep their order. No detections give empty arrays; without objects all detections are
    false positives.
    Raises ValueError unless 0 < iou_threshold <= 1.
    """
    if not 0 < iou_threshold <= 1:
        raise ValueError(f"iou_threshold: expected a number above 0, at most 1, got {iou_threshold}")
    same_class = detections.labels[:, None] == ground_truth.labels[None, :]
    object_index, overlap = _best_objects(ground_truth, detections, same_class & ~ground_truth.crowd)

    hit = overlap >= iou_threshold
    difficult = np.zeros_like(hit)
    difficult[hit] = ground_truth.difficult[object_index[hit]]
    # The assignment includes objects that are already assigned, so the first detection of an object is its true
    # positive, and no loop is needed.
    candidates = np.flatnonzero(hit & ~difficult)
    _, first = np.unique(object_index[candidates], return_index=True)
    true_positive = np.zeros_like(hit)
    true_positive[candidates[first]] = True

    in_crowd = _in_crowd(ground_truth, detections, same_class, iou_threshold)
    ignored = ~true_positive & ((hit & difficult) | in_crowd)
    return Matches(true_positive, ignored, object_index, overlap)


def check_covered(
    ground_truth: Mapping[ImageId, GroundTruth], detections: Mapping[ImageId, Detections], classes: Collection[str]
) -> None:
    """Raise ValueError for detections of an image without ground truth and for labels outside 1..K."""
    unknown = detections.keys() - ground_truth.keys()
    if unknown:
        some = ", ".join(sorted(map(str, unknown))[:3])
        raise ValueError(
            f"expected detections of images with ground truth, got {len(unknown)} images without ground truth: {some}; "
            "drop them or add the images"
        )
    for what, per_image in (("objects", ground_truth), ("detections", detections)):
        for image_id, found in per_image.items():
            if len(found) and not 1 <= found.labels.min() <= found.labels.max() <= len(classes):
                wrong = found.labels[(found.labels < 1) | (found.labels > len(classes))][0]
                raise ValueError(f"{what} of image {image_id}: expected labels 1..{len(classes)}, got {wrong}")


def _best_objects(
    ground_truth: GroundTruth, detections: Detections, allowed: BoolArray
) -> tuple[Int64Array, Float32Array]:
    """The allowed object with the greatest IoU for each detection, and this IoU; -1 and 0 without allowed objects.

    allowed: (N, G) bool.
    """
    n = len(detections)
    if not allowed.any():
        return np.full(n, -1, dtype=np.int64), np.zeros(n, dtype=np.float32)
    overlaps = np.where(allowed, boxes.iou(detections.boxes, ground_truth.boxes), np.float32(-1))
    best = overlaps.argmax(axis=1)
    overlap = overlaps[np.arange(n), best]
    return np.where(overlap < 0, -1, best), np.maximum(overlap, np.float32(0))


def _in_crowd(
    ground_truth: GroundTruth, detections: Detections, same_class: BoolArray, iou_threshold: float
) -> BoolArray:
    """(N,) bool: at least iou_threshold of the detection's area lies in one crowd box of its class."""
    if not ground_truth.crowd.any():
        return np.zeros(len(detections), dtype=np.bool_)
    crowd = ground_truth.crowd
    covered = boxes.overlap_of_first(detections.boxes, ground_truth.boxes[crowd]) >= iou_threshold
    return np.asarray((covered & same_class[:, crowd]).any(axis=1))
