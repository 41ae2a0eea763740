"""From the scores of regions by heads that did not see their image to a ranked list of labels that may be wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from detpipe import boxes as geometry
from detpipe.labels.calibration import cross_fitted
from detpipe.labels.corrections import Action
from detpipe.labels.cues import (
    CANDIDATE_CUES,
    FREE,
    LABEL_CUES,
    Candidates,
    LabelFacts,
    LabelView,
    ScoredImage,
    candidates,
    class_shapes,
    invented_view,
    label_facts,
    label_view,
    shifted_view,
)
from detpipe.labels.regions import Role
from detpipe.labels.suspects import Suggestion, Suspect, SuspectKind
from detpipe.randomness import generator_for
from detpipe.structures import Float32Array, Float64Array, ImageId, Int64Array

LABEL_FAULTS = (SuspectKind.wrong_class, SuspectKind.misplaced, SuspectKind.spurious)
"""The faults of a label, in the order of the columns of their probabilities, after "right"."""
LEAST_SCORE = 0.02
"""A candidate without a label needs at least this score."""

TWIN_IOU = 0.3
"""A missing object and the suggested box of a misplaced label are the same from this IoU on."""


@dataclass(frozen=True, eq=False)
class JudgedLabel:
    """A label with the probabilities (4,) that it is right, or has each of LABEL_FAULTS. object: its index."""

    image: int
    object: int
    facts: LabelFacts
    probabilities: Float64Array


@dataclass(frozen=True, eq=False)
class JudgedCandidate:
    """A candidate without a label, with the probability that it is an object. row: among the image's candidates."""

    image: int
    row: int
    probability: float


@dataclass(frozen=True, eq=False)
class Judgement:
    """All labels and candidates of a data set. found: the candidates of each image."""

    labels: list[JudgedLabel]
    missing: list[JudgedCandidate]
    found: list[Candidates]


def judge(images: Sequence[ScoredImage], folds: Int64Array, classes: int, seed: int) -> Judgement:
    """Judge every label and every place without a label. folds: of each image, (N,). No images give nothing."""
    shapes = class_shapes([(image.truth, image.image_size) for image in images], classes)
    found = [candidates(image, shapes, floor=LEAST_SCORE) for image in images]
    labels = judge_labels(images, folds, classes, seed)
    return Judgement(labels, judge_candidates(found, folds, classes), found)


def judge_labels(images: Sequence[ScoredImage], folds: Int64Array, classes: int, seed: int) -> list[JudgedLabel]:
    """Judge every label that has regions."""
    frequencies = np.bincount(
        np.concatenate([np.zeros(0, dtype=np.int64), *(image.truth.labels for image in images)]), minlength=classes + 1
    )[1:].astype(np.float64)
    names: list[tuple[int, int, LabelFacts]] = []
    made: list[list[Float64Array]] = [[], [], []]
    made_folds: list[list[int]] = [[], [], []]
    made_labels: list[list[int]] = [[], [], []]
    for number, image in enumerate(images):
        generator = generator_for(seed, f"{image.split}/{image.image_id}")

        def make(kind: int, view: LabelView, of: ScoredImage = image, fold: int = int(folds[number])) -> None:
            made[kind].append(label_facts(of, view).cues)
            made_folds[kind].append(fold)
            made_labels[kind].append(view.label)

        for label in range(len(image.truth)):
            view = label_view(image, label)
            if view is None:
                continue
            names.append((number, label, label_facts(image, view)))
            other = another_class(view.label, frequencies, generator)
            if other is not None:
                make(0, LabelView(view.box, other, view.own, view.rows, view.others))
            moved = shifted_view(image, label)
            if moved is not None:
                make(1, moved)
        for one in range(len(image.regions.of(Role.invented))):
            make(2, invented_view(image, one))
    width = len(LABEL_CUES)
    real = stacked([facts.cues for _, _, facts in names], width)
    own = np.array([images[number].truth.labels[label] for number, label, _ in names], dtype=np.int64)
    usual = class_medians(real, own, classes)
    probabilities = cross_fitted(
        real - usual[own],
        folds[[number for number, _, _ in names]],
        [
            stacked(cues, width) - usual[np.array(labels, dtype=np.int64)]
            for cues, labels in zip(made, made_labels, strict=True)
        ],
        [np.array(one, dtype=np.int64) for one in made_folds],
    )
    return [JudgedLabel(*name, row) for name, row in zip(names, probabilities, strict=True)]


def judge_candidates(found: Sequence[Candidates], folds: Int64Array, classes: int) -> list[JudgedCandidate]:
    """Judge every candidate without a label against those that have one."""
    of_image = np.repeat(np.arange(len(found)), [len(one.boxes) for one in found])
    rows = np.concatenate([np.zeros(0, dtype=np.int64), *(np.arange(len(one.boxes)) for one in found)])
    matched = np.concatenate([np.zeros(0, dtype=np.int64), *(one.matched for one in found)])
    cues = np.concatenate([np.zeros((0, len(CANDIDATE_CUES))), *(one.cues for one in found)])
    labels = np.concatenate([np.zeros(0, dtype=np.int64), *(one.labels for one in found)])
    free, taken = matched == FREE, matched >= 0
    cues = cues - class_medians(cues[taken], labels[taken], classes)[labels]
    probabilities = cross_fitted(cues[free], folds[of_image[free]], [cues[taken]], [folds[of_image[taken]]])
    return [
        JudgedCandidate(int(image), int(row), float(one))
        for image, row, one in zip(of_image[free], rows[free], probabilities[:, 1], strict=True)
    ]


FEW = 10
"""With so many labels, half of a class's medians comes from its own labels."""


def class_medians(cues: Float64Array, labels: Int64Array, classes: int) -> Float64Array:
    """The median cues of the labels of each class, (K + 1, F); row 0 of all.

    Cues are compared with cues of other labels of the same class: the scores of small or rare objects are always lower
    (the thresholds by class of confident learning, Northcutt et al. 2021). Classes with few labels have the median of
    all, in part. N = 0 gives zeros.
    """
    if not len(cues):
        return np.zeros((classes + 1, cues.shape[1]))
    usual = np.tile(np.median(cues, axis=0), (classes + 1, 1))
    for label in np.unique(labels):
        mine = cues[labels == label]
        share = len(mine) / (len(mine) + FEW)
        usual[label] = share * np.median(mine, axis=0) + (1 - share) * usual[0]
    return usual


def another_class(label: int, frequencies: Float64Array, generator: np.random.Generator) -> int | None:
    """Another class than `label`, 1..K, as frequent as it is among the labels; None if there is no other."""
    weights = frequencies.copy()
    weights[label - 1] = 0
    if not weights.sum():
        return None
    return int(generator.choice(len(weights), p=weights / weights.sum())) + 1


def stacked(rows: Sequence[Float64Array], width: int) -> Float64Array:
    """Rows (width,) below each other; (0, width) for none."""
    return np.array(rows, dtype=np.float64).reshape(-1, width)


def suspects(
    images: Sequence[ScoredImage], judgement: Judgement, classes: Sequence[str], *, min_score: float
) -> list[Suspect]:
    """The suspects with a score of at least min_score, the most probable first. A label appears once.

    Difficult objects can only have the wrong class.
    """
    listed = [
        *(suspect for one in judgement.labels if (suspect := _label_suspect(images[one.image], one, classes))),
        *(_missing(images[one.image], judgement.found[one.image], one, classes) for one in judgement.missing),
    ]
    listed = [one for one in without_moved_twins(listed) if one.score >= min_score]
    return sorted(listed, key=lambda one: (-one.score, one.split, str(one.image), one.kind.value, one.box))


def without_moved_twins(listed: Sequence[Suspect]) -> list[Suspect]:
    """The suspects without missing objects that are where a misplaced label belongs.

    They are one fault, if the label is at least half as probably misplaced as the object is missing.
    """
    places: dict[tuple[str, ImageId], list[Suspect]] = {}
    for one in listed:
        if one.kind is SuspectKind.misplaced:
            places.setdefault((one.split, one.image), []).append(one)

    def is_twin(one: Suspect) -> bool:
        return one.kind is SuspectKind.missing and any(
            other.score >= one.score / 2
            and other.suggestion.box is not None
            and geometry.iou(as_box(other.suggestion.box), as_box(one.box))[0, 0] >= TWIN_IOU
            for other in places.get((one.split, one.image), ())
        )

    return [one for one in listed if not is_twin(one)]


def as_box(box: tuple[float, float, float, float]) -> Float32Array:
    """A box as an array, (1, 4)."""
    return np.array([box], dtype=np.float32)


def _label_suspect(image: ScoredImage, judged: JudgedLabel, classes: Sequence[str]) -> Suspect | None:
    probabilities = judged.probabilities[1:].copy()
    if image.truth.difficult[judged.object]:
        probabilities[1:] = 0
    facts, label = judged.facts, int(image.truth.labels[judged.object])
    if facts.best == label:  # the model agrees with the class
        probabilities[0] = 0
    kind = LABEL_FAULTS[int(probabilities.argmax())]
    score = float(np.clip(probabilities.max(), 0, 1))
    if not score:
        return None
    box = image.regions.boxes[image.regions.of(Role.label, judged.object)[0]]
    name = classes[label - 1]
    why, suggestion = _explained(kind, facts, name, classes)
    return Suspect(
        image=image.image_id,
        split=image.split,
        kind=kind,
        score=rounded(score),
        object=judged.object,
        box=corners(box),
        label=name,
        suggestion=suggestion,
        why=why,
    )


def _explained(kind: SuspectKind, facts: LabelFacts, name: str, classes: Sequence[str]) -> tuple[str, Suggestion]:
    if kind is SuspectKind.wrong_class:
        other = classes[facts.best - 1]
        why = (
            f"Heads that did not see this image say {other} ({facts.best_probability:.2f}), and {name} "
            f"({facts.own_probability:.2f})."
        )
        return why, Suggestion(action=Action.change, label=other)
    if kind is SuspectKind.misplaced:
        why = (
            f"The best box for this object has a score of {facts.place_score:.2f} and overlaps the label's box with an "
            f"IoU of {facts.place_iou:.2f}."
        )
        return why, Suggestion(action=Action.change, label=name, box=corners(facts.place))
    if facts.proposal_iou >= 0.5:
        covered = f"{facts.proposal_iou:.2f} is the best IoU of a proposal with it"
    else:
        covered = f"no proposal covers it (best IoU {facts.proposal_iou:.2f})"
    why = f"No region on this label has a score above {facts.score:.2f} for any class, and {covered}."
    return why, Suggestion(action=Action.remove)


def _missing(image: ScoredImage, found: Candidates, judged: JudgedCandidate, classes: Sequence[str]) -> Suspect:
    box, name = corners(found.boxes[judged.row]), classes[int(found.labels[judged.row]) - 1]
    regions = int(found.supports[judged.row])
    why = (
        f"An object of class {name} is found here with a score of {found.scores[judged.row]:.2f}, {regions} "
        f"{'region agrees' if regions == 1 else 'regions agree'}, and no label covers it."
    )
    return Suspect(
        image=image.image_id,
        split=image.split,
        kind=SuspectKind.missing,
        score=rounded(judged.probability),
        object=None,
        box=box,
        label=name,
        suggestion=Suggestion(action=Action.add, label=name, box=box),
        why=why,
    )


def corners(box: Float32Array) -> tuple[float, float, float, float]:
    """A box as plain numbers, to a hundredth of a pixel."""
    x1, y1, x2, y2 = (round(float(value), 2) for value in box)
    return x1, y1, x2, y2


def rounded(score: float) -> float:
    """A probability with four digits, in [0, 1]."""
    return round(min(max(score, 0.0), 1.0), 4)
