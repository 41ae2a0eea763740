"""What limits a detector: too few labels, proposals that miss objects, or objects with too few pixels.

Each is an estimate of the mAP that its improvement would bring, so that the three can be compared:

- labels: what the last doubling of the training images brought. A curve flattens, so the next one brings at most this.
- proposals: an object that no proposal covers is missed. If all were covered, and the new ones found as often as the
  others, mAP would grow by the factor 1 / recall of the proposals.
- pixels: if all objects that a proposal covers were found as often as the largest third of them, mAP would grow by the
  factor of their recalls.

The last two are bounds: objects without a proposal, and small objects, are also hard for other reasons.
n: test objects that are neither difficult nor crowds. I: test images.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from detpipe.metrics.bootstrap import ImageBootstrap, Resampled
from detpipe.metrics.matching import match_detections
from detpipe.metrics.operating_point import best_f1
from detpipe.metrics.overlap_table import best_overlaps
from detpipe.metrics.paired_difference import paired_difference
from detpipe.structures import BoolArray, Detections, Float32Array, Float64Array, GroundTruth, ImageId, Int64Array

COVERED = 0.5
"""The IoU from which a proposal covers an object, as in VOC's matching."""
THIRDS = ("small", "medium", "large")


class Lever(enum.Enum):
    """What can be improved."""

    labels = "labels"
    """More labelled images."""
    proposals = "proposals"
    """Better proposals, or more of them."""
    pixels = "pixels"
    """A larger input, or larger photos."""


@dataclass(frozen=True, eq=False)
class TestObjects:
    """The test objects. Resamples of the images are the same as in `resampled_map` with the same seed.

    images: (n,), the index of the image among I. labels: (n,), 1..K. sides: (n,), the square root of the area in
    pixels. covered: (n,), whether a proposal has an IoU of COVERED. found: (n,), the share of the detectors that find
    the object at their operating point.
    """

    __test__ = False  # no test of pytest

    images: Int64Array
    labels: Int64Array
    sides: Float64Array
    covered: BoolArray
    found: Float64Array


@dataclass(frozen=True, eq=False)
class SizeGroup:
    """A third of the covered objects by size. side: the median side in pixels. found: one column."""

    name: str
    objects: int
    side: float
    found: Resampled


@dataclass(frozen=True, eq=False)
class Bottleneck:
    """The estimates. gains: the mAP that each lever would bring, one column. proposal_recall: mean over the classes.

    sizes: three groups by size; none if fewer than three objects are covered.
    """

    gains: Mapping[Lever, Resampled]
    proposal_recall: Resampled
    sizes: tuple[SizeGroup, ...]

    @property
    def best(self) -> Lever | None:
        """The lever with the greatest gain; None if no gain is known and above 0."""
        positive = {lever: gain.value.item() for lever, gain in self.gains.items() if gain.value.item() > 0}
        return max(positive, key=lambda lever: positive[lever], default=None)

    @property
    def certain(self) -> bool:
        """Whether the interval of the greatest gain is above 0."""
        return self.best is not None and self.gains[self.best].interval[0].item() > 0

    @property
    def as_good(self) -> tuple[Lever, ...]:
        """The other levers with a known gain whose difference from the best one has an interval that contains 0."""
        best = self.best
        if best is None:
            return ()
        others = []
        for lever, gain in self.gains.items():
            difference = paired_difference(self.gains[best], gain).difference
            if lever is not best and not difference.interval[0].item() > 0 and not np.isnan(gain.value.item()):
                others.append(lever)
        return tuple(others)


def examine(
    truth: Mapping[ImageId, GroundTruth],
    regions: Mapping[ImageId, Float32Array],
    detections: Sequence[Mapping[ImageId, Detections]],
    scales: Mapping[ImageId, float],
) -> TestObjects:
    """The facts of each test object.

    truth: of each test image, in the order of the data set. regions: the boxes (R, 4) that were classified; an image
    without an entry has none. detections: of several detectors. scales: from an image's pixels to the network's.
    No objects give empty arrays.
    """
    points = [best_f1(truth, found) for found in detections]
    rows: list[tuple[Int64Array, Int64Array, Float64Array, BoolArray, Float64Array]] = []
    for index, (image, objects) in enumerate(truth.items()):
        counted = ~(objects.difficult | objects.crowd)
        own = objects[counted]
        boxes = regions.get(image, np.zeros((0, 4), dtype=np.float32))
        overlaps = best_overlaps(own.boxes, boxes, [max(len(boxes), 1)])[:, 0]
        hits = np.zeros(len(own))
        for found, point in zip(detections, points, strict=True):
            if point is not None and image in found:
                hits += match_detections(objects, _from_score(found[image], point.score)).found(objects)[counted]
        sides = np.sqrt((own.boxes[:, 2:] - own.boxes[:, :2]).astype(np.float64).prod(axis=1)) * scales[image]
        where = np.full(len(own), index, dtype=np.int64)
        rows.append((where, own.labels, sides, overlaps >= COVERED, hits / max(len(detections), 1)))
    empty = (np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0), np.zeros(0, np.bool_), np.zeros(0))
    return TestObjects(*map(np.concatenate, zip(empty, *rows, strict=True)))


def _from_score(found: Detections, score: float) -> Detections:
    kept = found.scores >= np.float32(score)
    return Detections(found.boxes[kept], found.scores[kept], found.labels[kept])


def bottleneck(
    accuracy: Resampled, last_doubling: Resampled, objects: TestObjects, *, images: int, resamples: int, seed: int
) -> Bottleneck:
    """The estimates from the mAP with all training images, the gain of the last doubling, and the test objects.

    images: I. resamples, seed: as for the mAP, so that differences are paired. Without objects, gains are NaN.
    """
    bootstrap = ImageBootstrap.draw(images, resamples, seed)
    recall = bootstrap.means(objects.covered.astype(np.float64)[:, None], objects.images, objects.labels)
    covered = np.flatnonzero(objects.covered)
    groups = np.array_split(covered[np.argsort(objects.sides[covered], kind="stable")], len(THIRDS))

    def found(rows: Int64Array) -> Resampled:
        return bootstrap.means(objects.found[rows, None], objects.images[rows], np.zeros(len(rows), dtype=np.int64))

    sizes = [
        SizeGroup(name, len(rows), float(np.median(objects.sides[rows])), found(rows))
        for name, rows in zip(THIRDS, groups, strict=True)
        if len(rows)
    ]
    if len(sizes) < len(THIRDS):
        sizes = []
    nothing = Resampled(np.full(1, np.nan), np.full((resamples, 1), np.nan))
    gains = {
        Lever.labels: last_doubling,
        Lever.proposals: _grown(accuracy, Resampled(np.ones(1), np.ones_like(recall.samples)), recall),
        Lever.pixels: _grown(accuracy, sizes[-1].found, found(covered)) if sizes else nothing,
    }
    return Bottleneck(gains, recall, tuple(sizes))


def _grown(accuracy: Resampled, better: Resampled, now: Resampled) -> Resampled:
    """The gain of mAP if it grew by the factor better / now, to at most 1; NaN where `now` is 0."""

    def gain(value: Float64Array, high: Float64Array, low: Float64Array) -> Float64Array:
        factor = np.divide(high, low, out=np.full_like(value, np.nan), where=low > 0)
        return np.asarray(np.minimum(value * (factor - 1), 1 - value))

    return Resampled(gain(accuracy.value, better.value, now.value), gain(accuracy.samples, better.samples, now.samples))
