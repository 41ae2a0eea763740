"""Accuracy of the classes of found objects at each level of a class tree, and of the rolled-up answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from detpipe import boxes as geometry
from detpipe.structures import Detections, Float32Array, GroundTruth, ImageId
from detpipe.taxonomy.class_tree import ClassTree
from detpipe.taxonomy.individuals import Individual, individuals

MATCH_IOU = 0.5


@dataclass(frozen=True)
class Level:
    """The numbers of one level. names: how many the tree has.

    counted: found objects that have a name here. right: those whose most probable name is it. answers: found objects
    for which the roll-up ended at this level. answers_right: those whose answer is the object's name.
    """

    name: str
    names: int
    counted: int
    right: int
    answers: int
    answers_right: int

    @property
    def accuracy(self) -> float | None:
        """Share of counted objects with the right name; None without such objects."""
        return self.right / self.counted if self.counted else None


@dataclass(frozen=True)
class LevelAccuracy:
    """objects: annotated ones, neither difficult nor crowds. found: those with an individual, of any class.

    min_score: smallest confidence of an individual. threshold: of the roll-up.
    """

    objects: int
    found: int
    min_score: float
    threshold: float
    levels: tuple[Level, ...]

    def to_json(self) -> dict[str, Any]:
        """The numbers, ready for json.dumps."""
        return {
            "min_score": self.min_score,
            "threshold": self.threshold,
            "objects": self.objects,
            "found": self.found,
            "levels": [{**asdict(level), "accuracy": level.accuracy} for level in self.levels],
        }


def level_accuracy(
    ground_truth: Mapping[ImageId, GroundTruth],
    detections: Mapping[ImageId, Detections],
    classes: Sequence[str],
    tree: ClassTree,
    *,
    threshold: float,
    min_score: float,
) -> LevelAccuracy:
    """Compare individuals with objects by their boxes alone, then the classes of the pairs at each level.

    From high to low confidence, an individual takes the free object with the greatest IoU of at least 0.5, so every
    object has at most one. detections: an image without an entry has none. No objects give zeros.
    """
    counts = np.zeros((len(tree.levels), 4), dtype=np.int64)
    objects = found = 0
    for image_id, truth in ground_truth.items():
        counted = np.flatnonzero(~truth.difficult & ~truth.crowd)
        objects += len(counted)
        own = (
            [one for one in individuals(detections[image_id]) if one.confidence >= min_score]
            if image_id in detections
            else []
        )
        for one, index in _pairs(own, truth.boxes[counted]):
            found += 1
            path = tree.paths[classes[truth.labels[counted[index]] - 1]]
            probabilities = {classes[label - 1]: share for label, share in one.probabilities.items()}
            for level, name in enumerate(path):
                best = tree.best(probabilities, level)
                counts[level, :2] += (bool(name), bool(name) and best is not None and best.name == name)
            answer = tree.answer(probabilities, threshold)
            if answer is not None:
                counts[answer.level, 2:] += (1, answer.name == path[answer.level])
    levels = tuple(
        Level(name, len({path[number] for path in tree.paths.values()} - {""}), *counts[number].tolist())
        for number, name in enumerate(tree.levels)
    )
    return LevelAccuracy(objects, found, min_score, threshold, levels)


def _pairs(found: Sequence[Individual], boxes: Float32Array) -> list[tuple[Individual, int]]:
    """The individuals that found an object, and its index."""
    free = np.ones(len(boxes), dtype=np.bool_)
    pairs = []
    for one in found:
        overlaps = np.where(free, geometry.iou(one.box[None], boxes)[0], 0) if len(boxes) else np.zeros(0)
        if len(overlaps) and overlaps.max() >= MATCH_IOU:
            index = int(overlaps.argmax())
            free[index] = False
            pairs.append((one, index))
    return pairs
