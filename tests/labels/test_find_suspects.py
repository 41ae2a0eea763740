"""From scored regions to suspects: one for each label, and none that a rule excludes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from detpipe.labels.corrections import Action
from detpipe.labels.cues import ScoredImage, candidates, class_shapes, label_facts, label_view
from detpipe.labels.find_suspects import (
    JudgedCandidate,
    JudgedLabel,
    Judgement,
    another_class,
    judge,
    suspects,
    without_moved_twins,
)
from detpipe.labels.regions import Role
from detpipe.labels.suspects import Suggestion, Suspect, SuspectKind
from detpipe.structures import GroundTruth
from tests.labels.scenes import SIZE, Row, scored

BOX, BESIDE, FAR = (10.0, 10.0, 50.0, 50.0), (30.0, 10.0, 70.0, 50.0), (120.0, 10.0, 160.0, 50.0)
CLASSES = ("cat", "dog")
RIGHT, WRONG_CLASS, MISPLACED, SPURIOUS = range(4)


def scene(label_scores: tuple[float, float] = (0.1, 0.8), **changes: object) -> ScoredImage:
    """A cat's label with these scores, and a dog without a label."""
    rows: list[Row] = [
        (BOX, Role.label, 0, label_scores),
        (BOX, Role.proposal, -1, label_scores),
        (FAR, Role.proposal, -1, (0.0, 0.9)),
    ]
    truth = GroundTruth.from_boxes([BOX], [1])
    return scored(replace(truth, **changes), rows)  # type: ignore[arg-type]


def judged(image: ScoredImage, probabilities: list[float], missing: float = 0.0) -> list[Suspect]:
    """The suspects of one image whose label has these probabilities, and whose free place is missing with this one."""
    view = label_view(image, 0)
    assert view is not None
    found = candidates(image, class_shapes([(image.truth, SIZE)], 2), floor=0.02)
    free = int(np.flatnonzero(found.matched < 0)[0])
    label = JudgedLabel(0, 0, label_facts(image, view), np.array(probabilities))
    judgement = Judgement([label], [JudgedCandidate(0, free, missing)], [found])
    return suspects([image], judgement, CLASSES, min_score=0.05)


def test_a_label_is_listed_once_with_its_most_probable_kind() -> None:
    found = judged(scene(), [0.2, 0.5, 0.2, 0.1])
    assert [(one.kind, one.score, one.object) for one in found] == [(SuspectKind.wrong_class, 0.5, 0)]
    assert found[0].suggestion == Suggestion(action=Action.change, label="dog")
    assert (found[0].label, found[0].box) == ("cat", BOX)
    assert "dog" in found[0].why


def test_a_missing_object_has_the_box_and_class_that_were_found() -> None:
    found = judged(scene(), [1, 0, 0, 0], missing=0.7)
    assert [(one.kind, one.score, one.object) for one in found] == [(SuspectKind.missing, 0.7, None)]
    assert found[0].suggestion == Suggestion(action=Action.add, label="dog", box=FAR)
    assert (found[0].label, found[0].box) == ("dog", FAR)


def test_misplaced_and_spurious_labels_have_their_suggestions() -> None:
    (moved,) = judged(scene((0.8, 0.1)), [0.1, 0, 0.9, 0])
    assert moved.suggestion.action is Action.change
    assert moved.suggestion.box is not None
    (removed,) = judged(scene((0.8, 0.1)), [0.1, 0, 0, 0.9])
    assert removed.suggestion == Suggestion(action=Action.remove)


def test_the_class_is_not_wrong_if_the_model_agrees_with_it() -> None:
    found = judged(scene((0.8, 0.1)), [0.1, 0.6, 0.3, 0])
    assert [one.kind for one in found] == [SuspectKind.misplaced]


def test_a_difficult_object_can_only_have_a_wrong_class() -> None:
    difficult = np.array([True])
    assert [one.kind for one in judged(scene(difficult=difficult), [0.1, 0.1, 0.4, 0.4])] == [SuspectKind.wrong_class]
    assert judged(scene((0.8, 0.1), difficult=difficult), [0.1, 0, 0.5, 0.4]) == []


def test_improbable_suspects_are_left_out_and_the_most_probable_is_first() -> None:
    assert judged(scene(), [0.96, 0.04, 0, 0], missing=0.01) == []
    assert [one.score for one in judged(scene(), [0.8, 0.2, 0, 0], missing=0.6)] == [0.6, 0.2]


def twin(kind: SuspectKind, score: float, box: tuple[float, float, float, float]) -> Suspect:
    is_missing = kind is SuspectKind.missing
    return Suspect(
        image="one",
        split="train",
        kind=kind,
        score=score,
        object=None if is_missing else 0,
        box=box if is_missing else BOX,
        label="cat",
        suggestion=Suggestion(action=Action.add if is_missing else Action.change, label="cat", box=box),
    )


@pytest.mark.parametrize(("score", "left"), [(0.3, 1), (0.2, 2)])
def test_an_object_beside_a_misplaced_label_is_not_missing_too(score: float, left: int) -> None:
    listed = [twin(SuspectKind.missing, 0.5, BESIDE), twin(SuspectKind.misplaced, score, BESIDE)]
    assert len(without_moved_twins(listed)) == left


def test_a_missing_object_elsewhere_stays() -> None:
    listed = [twin(SuspectKind.missing, 0.5, FAR), twin(SuspectKind.misplaced, 0.9, BESIDE)]
    assert without_moved_twins(listed) == listed
    assert without_moved_twins([]) == []


def test_another_class_is_never_the_same_and_none_of_a_single_class() -> None:
    generator = np.random.default_rng(0)
    frequencies = np.array([10.0, 0.0, 3.0])
    assert {another_class(1, frequencies, generator) for _ in range(20)} == {3}
    assert another_class(1, np.array([10.0]), generator) is None


def test_no_images_and_images_without_regions() -> None:
    empty = judge([], np.zeros(0, dtype=np.int64), 2, 0)
    assert (empty.labels, empty.missing, empty.found) == ([], [], [])
    bare = scored(GroundTruth.from_boxes([BOX], [1]), [])
    assert suspects([bare], judge([bare], np.zeros(1, dtype=np.int64), 2, 0), CLASSES, min_score=0) == []
