"""Missed objects and false detections by class, by object size, and by crowding.

Sizes are COCO's: small below 32 x 32 pixels, large from 96 x 96. Crowding is the distance from an object to the
nearest one of its class: between the centres, divided by the mean of the square roots of their areas. At a distance of
1, two squares of equal size touch. G: objects of an image.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from detpipe import boxes
from detpipe.diagnosis.causes import Cause, Miss
from detpipe.diagnosis.false_detections import FalseDetection, FalseType
from detpipe.diagnosis.result import Breakdown, Group
from detpipe.structures import Float64Array, GroundTruth, ImageId

_Key = tuple[ImageId, int]
"""Image and index of an object."""

SIZES = (("small", 0.0, 32.0**2), ("medium", 32.0**2, 96.0**2), ("large", 96.0**2, np.inf))
"""Name, smallest area (included) and largest area (excluded), in square pixels."""
DISTANCES = (
    ("overlapping (distance below 1)", 0.0, 1.0),
    ("near (1 to 2)", 1.0, 2.0),
    ("apart (2 to 5)", 2.0, 5.0),
    ("alone (5 or more)", 5.0, np.inf),
)
"""Name, smallest distance (included) and largest distance (excluded). An only object of its class is alone."""


def breakdown(
    truth: Mapping[ImageId, GroundTruth],
    misses: Sequence[Miss],
    wrong: Sequence[FalseDetection],
    classes: Sequence[str],
) -> Breakdown:
    """The three tables. Objects that are neither difficult nor crowd are counted. A group may be empty."""
    labels: dict[_Key, str] = {}
    sizes: dict[_Key, str] = {}
    distances: dict[_Key, str] = {}
    for image_id, gt in truth.items():
        nearest = nearest_distances(gt)
        for index in np.flatnonzero(~gt.difficult & ~gt.crowd).tolist():
            key = (image_id, index)
            labels[key] = classes[gt.labels[index] - 1]
            sizes[key] = _range_of(float(gt.areas[index]), SIZES)
            distances[key] = _range_of(float(nearest[index]), DISTANCES)
    areas = [(one.box[2] - one.box[0]) * (one.box[3] - one.box[1]) for one in wrong]
    of_size = [(_range_of(area, SIZES), one.type) for area, one in zip(areas, wrong, strict=True)]
    return Breakdown(
        classes=_groups(classes, labels, misses, [(one.label, one.type) for one in wrong]),
        sizes=_groups([name for name, _, _ in SIZES], sizes, misses, of_size),
        crowding=_groups([name for name, _, _ in DISTANCES], distances, misses, []),
    )


def nearest_distances(truth: GroundTruth) -> Float64Array:
    """The distance of each object to the nearest other one of its class: (G,); infinity for an only one.

    Difficult objects are others; crowds are none, since nobody knows where their objects are.
    """
    placed = truth.boxes.astype(np.float64)
    centres, side = (placed[:, :2] + placed[:, 2:]) / 2, np.sqrt(boxes.area(truth.boxes).astype(np.float64))
    apart = np.linalg.norm(centres[:, None] - centres[None], axis=2)
    scale = (side[:, None] + side[None]) / 2
    distance = np.divide(apart, scale, out=np.full_like(apart, np.inf), where=scale > 0)
    other = (truth.labels[:, None] == truth.labels) & ~truth.crowd & ~np.eye(len(truth), dtype=np.bool_)
    nearest: Float64Array = np.where(other, distance, np.inf).min(axis=1, initial=np.inf)
    return nearest


def _range_of(value: float, ranges: Sequence[tuple[str, float, float]]) -> str:
    """The name of the range; the last one for infinity."""
    return next((name for name, low, high in ranges if low <= value < high), ranges[-1][0])


def _groups(
    names: Sequence[str],
    objects: Mapping[_Key, str],
    misses: Sequence[Miss],
    wrong: Sequence[tuple[str, FalseType]],
) -> list[Group]:
    """One group for each name. objects: the group of each object. wrong: group and type of each false detection."""
    numbers = Counter(objects.values())
    missed = Counter((objects[(one.image, one.object)], one.cause) for one in misses)
    false = Counter(wrong)
    return [
        Group(
            name=name,
            objects=numbers[name],
            missed={cause: missed[(name, cause)] for cause in Cause if missed[(name, cause)]},
            false={kind: false[(name, kind)] for kind in FalseType if false[(name, kind)]},
        )
        for name in names
    ]
