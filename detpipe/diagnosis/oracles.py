"""How much average precision an error costs: oracles that fix only one kind of error (TIDE, Bolya et al. 2020).

An oracle changes objects or detections, and VOC 2010's mAP@0.5 is computed again as usual. The increase, dAP, is what
the errors cost at most. The detections below the threshold take part in the mAP, but only errors that are counted (with
at least the threshold's score) are fixed.

- A cause of missed objects: these objects count as difficult. They are neither missed nor found, and detections of them
  are ignored. (TIDE takes them out of the ground truth: nobody knows the score that they would have been found with.)
  A class of which no object is left has AP 1 (see `Measured.fixed` for resamples).
- `wrong_class`: the detection gets the class of the object. `localisation`: it gets the box of the object. If several
  show the same object, the one with the highest score gets it, and the others are removed. All are removed if the
  object is already found. A detection below the threshold that had found it before is removed, too.
- `both`, `duplicate`, `background`: the detections are removed.
- `unlabelled`: the missing label is added, so that the detection is right.

The values do not add up to 1 - mAP. A precision-recall curve is not additive: to fix a second error is worth more or
less once the first one is fixed. The same object may be a missed object and a false detection of wrong class. Errors
below the threshold belong to no kind.

Perfect stages change everything that this stage does, at all scores:

- `classes`: each object that a region covers (IoU >= 0.5) is found with its class, and nothing else is detected.
- `boxes`: each object's best detection of its class with IoU >= 0.1 gets the object's box. The others near the same
  object are removed, as NMS would do with equal boxes.
- `proposals`: the boxes of the objects are classified as well, and their detections are joined with the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np

from detpipe import boxes
from detpipe.classify.object_trace import ObjectTrace
from detpipe.diagnosis.causes import BACKGROUND, FOREGROUND, Cause, Miss
from detpipe.diagnosis.false_detections import FalseDetection, FalseType
from detpipe.diagnosis.result import Estimate, Worth
from detpipe.metrics.bootstrap import ImageBootstrap, Resampled
from detpipe.metrics.map_bootstrap import ClassHits, hits_by_class, mean_of_classes, resampled_aps
from detpipe.metrics.matching import match_detections
from detpipe.metrics.paired_difference import paired_difference
from detpipe.structures import BoolArray, Detections, Float32Array, Float64Array, GroundTruth, ImageId, Int64Array

Error = TypeVar("Error", Miss, FalseDetection)


@dataclass(frozen=True, eq=False)
class Scene:
    """Objects and detections of all images. Each image of `truth` has an entry in `detections`."""

    truth: Mapping[ImageId, GroundTruth]
    detections: Mapping[ImageId, Detections]


@dataclass(frozen=True, eq=False)
class Measured:
    """The average precisions of a scene, with its hits, so that oracles compute only the classes that they change."""

    hits: Sequence[ClassHits]
    aps: Resampled
    map: Resampled
    bootstrap: ImageBootstrap

    @classmethod
    def of(cls, scene: Scene, classes: int, *, resamples: int, seed: int) -> Measured:
        """Measure a scene. classes: K. The same images, resamples and seed give the same draws."""
        bootstrap = ImageBootstrap.draw(len(scene.truth), resamples, seed)
        hits = hits_by_class(scene.truth, scene.detections, classes)
        aps = resampled_aps(hits, bootstrap)
        return cls(hits, aps, mean_of_classes(aps), bootstrap)

    def fixed(self, scene: Scene) -> Resampled:
        """The mAP of a scene that an oracle changed, over the same classes.

        A class of which no object is left has AP 1. Where objects are left in the data, but none of them in a resample,
        the resample can't tell what the oracle changed, so the class keeps its AP: with 1, a rare class would count as
        solved in the resamples that happen to have its missed objects only, and intervals would lie above the estimate.
        """
        aps = resampled_aps(
            hits_by_class(scene.truth, scene.detections, len(self.hits)), self.bootstrap, (self.hits, self.aps)
        )
        none_left = np.isnan(aps.value)
        return mean_of_classes(
            Resampled(
                _complete(aps.value, self.aps.value, 1.0),
                _complete(aps.samples, self.aps.samples, np.where(none_left, 1.0, self.aps.samples)),
            )
        )

    def increase(self, scene: Scene) -> Estimate:
        """The increase of the mAP, paired: the interval belongs to the difference."""
        return Estimate.of(paired_difference(self.fixed(scene), self.map).difference)


def _complete(values: Float64Array, before: Float64Array, instead: Float64Array | float) -> Float64Array:
    """The values, with `instead` where a class lost its objects, and NaN where it had none before."""
    filled: Float64Array = np.where(np.isnan(values), instead, values)
    return np.where(np.isnan(before), np.nan, filled)


def worth(
    scene: Scene, measured: Measured, misses: Sequence[Miss], wrong: Sequence[FalseDetection], names: Sequence[str]
) -> dict[str, Worth]:
    """What each cause and type costs, by the names in the given order. A name without errors costs 0."""
    found: dict[str, Worth] = {}
    for name in names:
        own_misses = [one for one in misses if one.cause.value == name]
        own_wrong = [one for one in wrong if one.type.value == name]
        is_cause, is_type = name in Cause.__members__, name in FalseType.__members__
        missed = measured.increase(without_misses(scene, own_misses)) if is_cause else None
        false = measured.increase(without_false(scene, own_wrong, misses)) if is_type else None
        if missed is not None and false is not None:
            both = without_false(without_misses(scene, own_misses), own_wrong, misses)
            total = measured.increase(both)
        else:
            part = missed if missed is not None else false
            assert part is not None
            total = part
        found[name] = Worth(total=total, missed=missed, false=false)
    return found


def without_misses(scene: Scene, misses: Sequence[Miss]) -> Scene:
    """The scene in which these missed objects count as difficult."""
    changed: dict[ImageId, GroundTruth] = {}
    for image_id, own in _by_image(misses).items():
        truth = scene.truth[image_id]
        difficult = truth.difficult.copy()
        difficult[[one.object for one in own]] = True
        changed[image_id] = _plain_truth(truth, difficult)
    return replace(scene, truth={**scene.truth, **changed})


def without_false(scene: Scene, wrong: Sequence[FalseDetection], misses: Sequence[Miss]) -> Scene:
    """The scene in which these false detections are fixed. misses: all missed objects, which a fixed one may find."""
    missed = {(one.image, one.object) for one in misses}
    truths, detections = dict(scene.truth), dict(scene.detections)
    for image_id, own in _by_image(wrong).items():
        found = detections[image_id]
        edit = _Edit()
        for one in own:
            target = one.object if (image_id, one.object) in missed and one.object not in edit.found else None
            if one.type is FalseType.unlabelled:
                edit.added.append(one.detection)
            elif one.type is FalseType.wrong_class and target is not None:
                edit.found[target] = one.detection
                edit.labels[one.detection] = int(truths[image_id].labels[target])
            elif one.type is FalseType.localisation and target is not None:
                edit.found[target] = one.detection
                edit.boxes[one.detection] = truths[image_id].boxes[target]
            else:
                edit.removed.add(one.detection)
        edit.removed |= _replaced(truths[image_id], found, edit.found)
        truths[image_id] = _with_objects(truths[image_id], found, edit.added)
        detections[image_id] = _edited(found, edit)
    return Scene(truths, detections)


@dataclass
class _Edit:
    """The changes of one image's detections. found: from an object to the detection that finds it now."""

    found: dict[int, int] = field(default_factory=dict)
    labels: dict[int, int] = field(default_factory=dict)
    boxes: dict[int, Float32Array] = field(default_factory=dict)
    removed: set[int] = field(default_factory=set)
    added: list[int] = field(default_factory=list)


def _replaced(truth: GroundTruth, found: Detections, now: Mapping[int, int]) -> set[int]:
    """The true positives, with scores below the threshold, of objects that are found by another detection now."""
    if not now:
        return set()
    matches = match_detections(truth, found, iou_threshold=FOREGROUND)
    return {
        int(row)
        for row in np.flatnonzero(matches.true_positive)
        if int(matches.object_index[row]) in now and row not in now.values()
    }


def _with_objects(truth: GroundTruth, found: Detections, rows: Sequence[int]) -> GroundTruth:
    """The objects, and one for each of these detections, unless an added object of its class covers it."""
    kept: list[int] = []
    for row in rows:
        same = [one for one in kept if found.labels[one] == found.labels[row]]
        overlap = boxes.iou(found.boxes[[row]], found.boxes[np.array(same, dtype=np.int64)])
        if not (overlap >= FOREGROUND).any():
            kept.append(row)
    if not kept:
        return truth
    more = GroundTruth.from_boxes(found.boxes[kept], found.labels[kept])
    return GroundTruth(
        *(
            np.concatenate([getattr(truth, name), getattr(more, name)])
            for name in ("boxes", "labels", "difficult", "crowd", "areas")
        )
    )


def _edited(found: Detections, edit: _Edit) -> Detections:
    placed, labels = found.boxes.copy(), found.labels.copy()
    for row, box in edit.boxes.items():
        placed[row] = box
    for row, label in edit.labels.items():
        labels[row] = label
    kept = np.array([row for row in range(len(found)) if row not in edit.removed], dtype=np.int64)
    return Detections(placed[kept], found.scores[kept], labels[kept])


def _plain_truth(truth: GroundTruth, difficult: BoolArray) -> GroundTruth:
    return GroundTruth(truth.boxes, truth.labels, difficult, truth.crowd, truth.areas)


def perfect_classes(scene: Scene, traces: Mapping[ImageId, Sequence[ObjectTrace]] | None) -> Scene:
    """The scene in which exactly the covered objects are detected, with their own boxes and classes.

    traces: by image, one for each object; an object is covered if its trace says so. Without traces, or for an image
    without one, a detection of any class has to cover it.
    """
    detections: dict[ImageId, Detections] = {}
    for image_id, truth in scene.truth.items():
        overlaps = boxes.iou(truth.boxes, scene.detections[image_id].boxes)
        covered = (overlaps >= FOREGROUND).any(axis=1)
        if traces is not None and image_id in traces:
            covered = match_detections(truth, scene.detections[image_id]).found(truth)
            covered |= np.array([one.rank >= 0 and one.iou >= FOREGROUND for one in traces[image_id]], dtype=np.bool_)
        rows = np.flatnonzero(covered & ~truth.difficult & ~truth.crowd)
        detections[image_id] = Detections(truth.boxes[rows], np.ones(len(rows), np.float32), truth.labels[rows])
    return replace(scene, detections=detections)


def perfect_boxes(scene: Scene) -> Scene:
    """The scene in which the best detection of each object and class has the object's box, and the others are gone."""
    detections: dict[ImageId, Detections] = {}
    for image_id, truth in scene.truth.items():
        found = scene.detections[image_id]
        same = (found.labels[:, None] == truth.labels) & ~truth.crowd
        overlaps = np.where(same, boxes.iou(found.boxes, truth.boxes), np.float32(0))
        placed, kept = found.boxes.copy(), np.ones(len(found), dtype=np.bool_)
        taken: set[int] = set()
        for row in np.flatnonzero(overlaps.max(axis=1, initial=0) >= BACKGROUND).tolist():
            target = int(overlaps[row].argmax())
            placed[row] = truth.boxes[target]
            kept[row] = target not in taken
            taken.add(target)
        detections[image_id] = Detections(placed[kept], found.scores[kept], found.labels[kept])
    return replace(scene, detections=detections)


def perfect_proposals(
    scene: Scene, of_objects: Mapping[ImageId, Detections], *, nms_iou: float, max_detections: int
) -> Scene:
    """The scene in which the objects' own boxes were classified, too.

    of_objects: the detections of each image from the objects' boxes as its only regions; an image without an entry
    stays as it is. nms_iou, max_detections: the settings of detection, by which both are joined.
    """
    detections = dict(scene.detections)
    for image_id, more in of_objects.items():
        before = scene.detections[image_id]
        placed = np.concatenate([before.boxes, more.boxes])
        scores, labels = np.concatenate([before.scores, more.scores]), np.concatenate([before.labels, more.labels])
        kept: list[Int64Array] = [np.zeros(0, dtype=np.int64)]
        for label in np.unique(labels):
            own = np.flatnonzero(labels == label)
            kept.append(own[boxes.nms(placed[own], scores[own], nms_iou)])
        rows = np.concatenate(kept)
        rows = rows[boxes.rank(placed[rows], scores[rows])][:max_detections]
        detections[image_id] = Detections(placed[rows], scores[rows], labels[rows])
    return replace(scene, detections=detections)


def _by_image(errors: Sequence[Error]) -> dict[ImageId, list[Error]]:
    found: dict[ImageId, list[Error]] = {}
    for one in errors:
        found.setdefault(one.image, []).append(one)
    return found
