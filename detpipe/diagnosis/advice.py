"""The next action in words, from the numbers of a diagnosis.

Each advice names the errors that it rests on and the setting as it is typed, and says by how much it can raise the mAP
at most: the increase by an oracle that fixes exactly these errors. Advice whose interval includes 0 is left out, and so
is advice without evidence, or for less than 0.001. A real change brings less than its oracle: try it, and compare with
`against=`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from detpipe import boxes as geometry
from detpipe.classify.settings import Duplicates
from detpipe.diagnosis.causes import FOREGROUND, NOT_BEST, Cause, Miss
from detpipe.diagnosis.false_detections import FalseDetection, FalseType
from detpipe.diagnosis.oracles import Measured, Scene, without_false, without_misses
from detpipe.diagnosis.result import Advice, Estimate
from detpipe.metrics.operating_point import best_f1
from detpipe.structures import Detections, ImageId

NMS_STEPS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
"""The thresholds of non-maximum suppression that are considered."""
LEAST = 0.001
"""Advice that can't bring more mAP than this is left out."""
TINY = 24
"""Objects of a smaller side, in pixels of the image that the proposer sees, are hard to propose."""
FEW = 2
"""At most so many classes get an advice of their own."""


@dataclass(frozen=True, kw_only=True)
class DetectorSettings:
    """What is known of the run whose settings the advice names. The defaults are of a detector without a run.

    proposes: the network proposes regions itself. max_proposals, nms_iou, vote_iou, max_detections: as in
    `DetectConfig`. duplicates: detect.fast_rcnn.duplicates. method: the word of `proposals=`. stored: the largest
    number of proposals that were stored of an image (proposals.max_proposals). max_side: the longer side in pixels to
    which images are shrunk before proposing; None if they are not. larger: the settings, as typed, that double it.
    longest: the longer side of each image, by id.
    train_objects: number of training objects by class.
    """

    proposes: bool = False
    max_proposals: int | None = None
    nms_iou: float | None = None
    vote_iou: float | None = None
    max_detections: int | None = None
    duplicates: Duplicates = Duplicates.nms
    method: str | None = None
    stored: int | None = None
    max_side: int | None = None
    larger: tuple[str, ...] = ()
    longest: Mapping[ImageId, int] = field(default_factory=dict)
    train_objects: Mapping[str, int] = field(default_factory=dict)

    @property
    def suppressed_above(self) -> float | None:
        """The IoU with a better box above which a box is suppressed; 1 suppresses none, None is unknown."""
        return 1.0 if self.duplicates is Duplicates.learned else self.nms_iou

    @property
    def other_method(self) -> str:
        """A proposer to try in place of this one, as in `proposals=`."""
        return "selective_search" if self.method == "multibox" else "multibox"

    @property
    def stricter_voting(self) -> str:
        """The setting that lets only nearer boxes vote, as typed."""
        if self.vote_iou is None or self.vote_iou >= 0.8:
            return "detect.vote_iou=null"
        return f"detect.vote_iou={self.vote_iou + 0.15:g}"


@dataclass(frozen=True, eq=False)
class Evidence:
    """What the advice is derived from."""

    scene: Scene
    classes: Sequence[str]
    measured: Measured
    misses: Sequence[Miss]
    wrong: Sequence[FalseDetection]
    threshold: float
    detector: DetectorSettings
    run_dir: str

    def of(self, *causes: Cause) -> list[Miss]:
        """The misses of some causes."""
        return [one for one in self.misses if one.cause in causes]

    def types(self, *types: FalseType) -> list[FalseDetection]:
        """The false detections of some types."""
        return [one for one in self.wrong if one.type in types]

    def found(self, misses: Sequence[Miss]) -> Estimate:
        """The increase of the mAP if these missed objects are taken out."""
        return self.measured.increase(without_misses(self.scene, misses))

    def both(self, misses: Sequence[Miss], wrong: Sequence[FalseDetection]) -> Estimate:
        """The increase of the mAP if both are done."""
        return self.measured.increase(without_false(without_misses(self.scene, misses), wrong, self.misses))

    def fixed(self, wrong: Sequence[FalseDetection]) -> Estimate:
        """The increase of the mAP if these false detections are fixed."""
        return self.measured.increase(without_false(self.scene, wrong, self.misses))


def find_advice(evidence: Evidence) -> list[Advice]:
    """All advice with evidence, the most valuable first. No errors give []."""
    rules: tuple[Callable[[Evidence], Iterator[Advice]], ...] = (
        _more_proposals,
        _better_proposals,
        _box_regression,
        _more_images,
        _higher_nms,
        _lower_nms,
        _not_best,
        _limit,
        _voting,
        _another_threshold,
        _check_labels,
        _background_images,
        _placed_better,
    )
    given = [one for rule in rules for one in rule(evidence)]
    found = [one for one in given if one.at_most.is_positive and one.at_most.value >= LEAST]
    return sorted(found, key=lambda one: -one.at_most.value)


def _more_proposals(evidence: Evidence) -> Iterator[Advice]:
    misses = evidence.of(Cause.budget)
    ranks = sorted(one.stored_rank for one in misses if one.stored_rank is not None)
    if not ranks:
        return
    # Enough for nine of ten: the last ones may be far behind.
    enough = math.ceil((ranks[math.ceil(0.9 * len(ranks)) - 1] + 1) / 100) * 100
    now = evidence.detector.max_proposals
    yield Advice(
        text=f"Classify more proposals: {_objects(len(misses))} missed because the first good proposal comes after "
        f"{'the classified ones' if now is None else f'detect.max_proposals={now}'}; the first {enough} include nine "
        "of ten.",
        at_most=evidence.found(misses),
        because=Cause.budget.value,
        settings=(f"detect.max_proposals={enough}",),
    )


def _better_proposals(evidence: Evidence) -> Iterator[Advice]:
    misses = evidence.of(Cause.no_proposal)
    if not misses:
        return
    detector = evidence.detector
    small = [one for one in misses if _is_tiny(evidence, one)]
    if len(small) * 2 >= len(misses) and detector.larger:
        yield Advice(
            text=f"Propose in larger images: {_objects(len(small))} missed without a proposal of IoU >= 0.5, and "
            f"smaller than {TINY} x {TINY} pixels where the proposer looks; images are shrunk to {detector.max_side} "
            "pixels before.",
            at_most=evidence.found(small),
            because=Cause.no_proposal.value,
            settings=detector.larger,
        )
    nearest = float(np.median([one.stored_iou if one.stored_iou is not None else one.proposal_iou for one in misses]))
    stored = evidence.detector.stored
    more = f", or store more than {stored} proposals" if stored is not None else ""
    settings = () if detector.method is None or detector.proposes else (f"proposals={detector.other_method}",)
    yield Advice(
        text=f"Use another proposer{more}: {_objects(len(misses))} missed without a proposal of IoU >= 0.5; the best "
        f"one has an IoU of {nearest:.2f} in the median.",
        at_most=evidence.found(misses),
        because=Cause.no_proposal.value,
        settings=settings,
    )


def _is_tiny(evidence: Evidence, miss: Miss) -> bool:
    """Whether the object is small in the image that the proposer sees, which is smaller than the original."""
    area, side = float(evidence.scene.truth[miss.image].areas[miss.object]), evidence.detector.max_side
    longest = evidence.detector.longest.get(miss.image, 0)
    if side is None or longest <= side:
        return False
    return area * (side / longest) ** 2 < TINY**2


def _box_regression(evidence: Evidence) -> Iterator[Advice]:
    misses = evidence.of(Cause.box_regression)
    if misses:
        yield Advice(
            text=f"Check the box regression: {_objects(len(misses))} missed because it moved a good proposal away. "
            "Compare with a detector without it, and label more boxes exactly.",
            at_most=evidence.found(misses),
            because=Cause.box_regression.value,
            settings=("head.box_regression=none",),
        )


def _more_images(evidence: Evidence) -> Iterator[Advice]:
    """For the classes whose objects the classifier misses most, with the false detections that show these objects."""
    causes = (Cause.background, Cause.wrong_class, Cause.threshold, Cause.missed)
    misses = evidence.of(*causes)
    for label, _ in Counter(one.label for one in misses).most_common(FEW):
        own = [one for one in misses if one.label == label]
        kinds = Counter(one.cause for one in own)
        taken = Counter(one.taken_for for one in own if one.taken_for is not None)
        parts = []
        for cause, number in kinds.most_common():
            what = {
                Cause.background: "classified as background",
                Cause.threshold: "below the threshold",
                Cause.missed: "without a detection near them",
                Cause.wrong_class: f"taken for another class, mostly {taken.most_common(1)[0][0]}" if taken else "",
            }[cause]
            parts.append(f"{number} {what}")
        # In the reduced form nobody knows which stage lost an object without a detection.
        by = "" if kinds[Cause.missed] else " by the classifier"
        learned = evidence.detector.train_objects.get(label)
        known = f" The training images have {learned}." if learned is not None else ""
        yield Advice(
            text=f"Label more images with {label}: {_objects(len(own))} missed{by} ({', '.join(parts)}).{known}",
            at_most=evidence.both(own, _shown_as_others(evidence, label)),
            because=kinds.most_common(1)[0][0].value,
        )


def _shown_as_others(evidence: Evidence, label: str) -> list[FalseDetection]:
    """The false detections of another class that show an object of this class."""
    names = evidence.classes
    return [
        one
        for one in evidence.types(FalseType.wrong_class)
        if one.object is not None and names[evidence.scene.truth[one.image].labels[one.object] - 1] == label
    ]


def _higher_nms(evidence: Evidence) -> Iterator[Advice]:
    misses = [one for one in evidence.of(Cause.suppressed) if one.fate == "nms" and one.by is not None]
    now = evidence.detector.nms_iou
    if not misses or now is None:
        return
    overlaps = []
    for one in misses:
        assert one.by is not None
        by = evidence.scene.detections[one.image].boxes[[one.by]]
        region = np.array([one.covering or one.box], dtype=np.float32)
        overlaps.append(float(geometry.iou(region, by)[0, 0]))
    # A threshold that keeps at least half of them.
    higher = next((step for step in NMS_STEPS if step > now and np.mean(np.array(overlaps) <= step) >= 0.5), None)
    if higher is not None:
        kept = [one for one, overlap in zip(misses, overlaps, strict=True) if overlap <= higher]
        yield Advice(
            text=f"Raise the threshold of non-maximum suppression: {_objects(len(misses))} missed because "
            f"detect.nms_iou={now:g} removed the box; {len(kept)} of them would stay at {higher:g}.",
            at_most=evidence.found(kept),
            because=Cause.suppressed.value,
            settings=(f"detect.nms_iou={higher:g}",),
        )


def _lower_nms(evidence: Evidence) -> Iterator[Advice]:
    """The increase is measured: a lower threshold removes some of the detections, and nothing else."""
    duplicates, now = evidence.types(FalseType.duplicate), evidence.detector.nms_iou
    if not duplicates or now is None:
        return
    learned = evidence.detector.duplicates is Duplicates.learned
    steps = [step for step in NMS_STEPS if learned or step < now]
    measured = [(step, evidence.measured.increase(_suppressed(evidence.scene, step))) for step in steps]
    if measured:
        step, increase = max(measured, key=lambda one: one[1].value)
        if learned:
            text = (
                f"Add non-maximum suppression: {len(duplicates)} false detections are duplicates, and "
                f"detect.fast_rcnn.duplicates=learned suppresses none. At {step:g}, the mAP of these images rises by "
            )
        else:
            text = (
                f"Lower the threshold of non-maximum suppression: {len(duplicates)} false detections are duplicates. "
                f"At {step:g} in place of {now:g}, the mAP of these images rises by "
            )
        yield Advice(
            text=f"{text}{increase.value:.3f}.",
            at_most=increase,
            because=FalseType.duplicate.value,
            settings=(*(("detect.fast_rcnn.duplicates=both",) if learned else ()), f"detect.nms_iou={step:g}"),
        )


def _suppressed(scene: Scene, nms_iou: float) -> Scene:
    detections: dict[ImageId, Detections] = {}
    for image_id, found in scene.detections.items():
        rows = [np.zeros(0, dtype=np.int64)]
        for label in np.unique(found.labels):
            own = np.flatnonzero(found.labels == label)
            rows.append(own[geometry.nms(found.boxes[own], found.scores[own], nms_iou)])
        kept = np.sort(np.concatenate(rows))
        detections[image_id] = Detections(found.boxes[kept], found.scores[kept], found.labels[kept])
    return replace(scene, detections=detections)


def _not_best(evidence: Evidence) -> Iterator[Advice]:
    misses = [one for one in evidence.of(Cause.suppressed) if one.fate == NOT_BEST]
    if misses:
        yield Advice(
            text=f"Find duplicates by non-maximum suppression alone: {_objects(len(misses))} missed because the "
            "learned probability of being the best box lowered a sufficient score below the threshold.",
            at_most=evidence.found(misses),
            because=Cause.suppressed.value,
            settings=("detect.fast_rcnn.duplicates=nms",),
        )


def _limit(evidence: Evidence) -> Iterator[Advice]:
    misses = [one for one in evidence.of(Cause.suppressed) if one.fate == "limit"]
    now = evidence.detector.max_detections
    if misses and now is not None:
        yield Advice(
            text=f"Allow more detections: {_objects(len(misses))} missed because the image has more than "
            f"detect.max_detections={now}.",
            at_most=evidence.found(misses),
            because=Cause.suppressed.value,
            settings=(f"detect.max_detections={3 * now}",),
        )


def _voting(evidence: Evidence) -> Iterator[Advice]:
    misses = [one for one in evidence.of(Cause.suppressed) if one.fate == "voted" and one.by_object is None]
    now = evidence.detector.vote_iou
    if misses and now is not None:
        yield Advice(
            text=f"Vote with nearer boxes only: {_objects(len(misses))} missed because box voting with "
            f"detect.vote_iou={now:g} moved a good box away.",
            at_most=evidence.found(misses),
            because=Cause.suppressed.value,
            settings=(evidence.detector.stricter_voting,),
        )


def _another_threshold(evidence: Evidence) -> Iterator[Advice]:
    """Only where the threshold was chosen: by default it is the one with the best F1."""
    point = best_f1(evidence.scene.truth, evidence.scene.detections)
    if point is None or np.float32(point.score) == np.float32(evidence.threshold):
        return
    best = f"threshold={point.score:.3g}"
    if point.score < evidence.threshold:
        misses = [one for one in evidence.of(Cause.threshold) if np.float32(one.score) >= np.float32(point.score)]
        if misses:
            yield Advice(
                text=f"Lower the score threshold: {_objects(len(misses))} found by it, and F1 is best at "
                f"{point.score:.2f} ({point.f1:.2f}). The mAP, which counts all scores, stays as it is.",
                at_most=evidence.found(misses),
                because=Cause.threshold.value,
                settings=(best,),
            )
    else:
        wrong = [one for one in evidence.wrong if one.score < point.score]
        if wrong:
            yield Advice(
                text=f"Raise the score threshold: {len(wrong)} false detections are below {point.score:.2f}, where F1 "
                f"is best ({point.f1:.2f}). The mAP, which counts all scores, stays as it is.",
                at_most=evidence.fixed(wrong),
                because=Counter(one.type.value for one in wrong).most_common(1)[0][0],
                settings=(best,),
            )


def _check_labels(evidence: Evidence) -> Iterator[Advice]:
    wrong = evidence.types(FalseType.unlabelled)
    if wrong:
        images = len({one.image for one in wrong})
        yield Advice(
            text=f"Check the labels: {len(wrong)} confident detections in {images} images may show objects without a "
            f"label; a second classifier finds them, too. Run `detpipe labels audit run_dir={evidence.run_dir}`.",
            at_most=evidence.fixed(wrong),
            because=FalseType.unlabelled.value,
        )


def _background_images(evidence: Evidence) -> Iterator[Advice]:
    wrong = evidence.types(FalseType.background)
    for label, number in Counter(one.label for one in wrong).most_common(1):
        own = [one for one in wrong if one.label == label]
        yield Advice(
            text=f"Add training images of what is taken for {label}: {number} of its false detections show no object.",
            at_most=evidence.fixed(own),
            because=FalseType.background.value,
        )


def _placed_better(evidence: Evidence) -> Iterator[Advice]:
    wrong = evidence.types(FalseType.localisation)
    if wrong and evidence.detector.nms_iou is not None and evidence.detector.vote_iou is None:
        yield Advice(
            text=f"Place the boxes better: {len(wrong)} false detections show an object of their class with an IoU "
            f"below {FOREGROUND:g}. Box voting averages the boxes of an object.",
            at_most=evidence.fixed(wrong),
            because=FalseType.localisation.value,
            settings=("detect.vote_iou=0.5",),
        )


def _objects(number: int) -> str:
    return "1 object is" if number == 1 else f"{number} objects are"
