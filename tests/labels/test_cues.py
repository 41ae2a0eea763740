"""Cues of labels and of places without a label, worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from detpipe.labels.cues import (
    CANDIDATE_CUES,
    FREE,
    LABEL_CUES,
    SECOND,
    candidates,
    class_probabilities,
    class_shapes,
    invented_view,
    label_facts,
    label_view,
    logit,
    margin,
    match,
    shifted_view,
)
from detpipe.labels.regions import Role
from detpipe.structures import Float64Array, GroundTruth
from tests.labels.scenes import SIZE, scored

TRUTH = GroundTruth.from_boxes([[10, 10, 50, 50]], [1])
BOX = (10, 10, 50, 50)
BESIDE = (30, 10, 70, 50)  # IoU 1/3 with BOX
FAR = (120, 10, 160, 50)
SHAPES = class_shapes([(TRUTH, SIZE)], 2)
NONE = GroundTruth.from_boxes([], [])


def cue(cues: Float64Array, name: str) -> float:
    names = LABEL_CUES if len(cues) == len(LABEL_CUES) else CANDIDATE_CUES
    return float(cues[names.index(name)])


def test_a_right_label() -> None:
    image = scored(TRUTH, [(BOX, Role.label, 0, (0.8, 0.1)), (BOX, Role.proposal, -1, (0.7, 0.1))])
    view = label_view(image, 0)
    assert view is not None
    facts = label_facts(image, view)
    assert cue(facts.cues, "own_score") == pytest.approx(np.log(0.9 / 0.1))
    assert cue(facts.cues, "consensus_iou") == pytest.approx(1)
    assert cue(facts.cues, "proposal_iou") == pytest.approx(1)
    assert cue(facts.cues, "better_place") == 0
    assert cue(facts.cues, "own_class") > 2
    assert facts.best == 1
    assert facts.score == pytest.approx(0.9)


def test_a_label_of_another_class() -> None:
    image = scored(TRUTH, [(BOX, Role.label, 0, (0.1, 0.8)), (BOX, Role.proposal, -1, (0.1, 0.7))])
    view = label_view(image, 0)
    assert view is not None
    facts = label_facts(image, view)
    assert facts.best == 2
    assert cue(facts.cues, "own_class") < -2
    assert cue(facts.cues, "near_class") < -2
    assert facts.own_probability + facts.best_probability == pytest.approx(1)


def test_an_object_beside_the_box_is_a_better_place() -> None:
    image = scored(TRUTH, [(BOX, Role.label, 0, (0.1, 0.0)), (BESIDE, Role.proposal, -1, (0.9, 0.0))])
    view = label_view(image, 0)
    assert view is not None
    facts = label_facts(image, view)
    assert cue(facts.cues, "place_iou") == pytest.approx(1 / 3)
    assert cue(facts.cues, "better_place") == pytest.approx(np.log(0.9 / 0.1) - np.log(0.1 / 0.9), rel=1e-5)
    assert facts.place.tolist() == list(BESIDE)
    assert facts.place_score == pytest.approx(0.9)


def test_an_object_that_another_label_names_is_no_better_place() -> None:
    truth = GroundTruth.from_boxes([BOX, BESIDE], [1, 1])
    image = scored(truth, [(BOX, Role.label, 0, (0.1, 0.0)), (BESIDE, Role.proposal, -1, (0.9, 0.0))])
    view = label_view(image, 0)
    assert view is not None
    facts = label_facts(image, view)
    assert cue(facts.cues, "better_place") == 0
    assert cue(facts.cues, "other_label_iou") == pytest.approx(1 / 3)


def test_nothing_on_the_label() -> None:
    image = scored(TRUTH, [(BOX, Role.label, 0, (0.0, 0.01)), (FAR, Role.proposal, -1, (0.9, 0.0))])
    view = label_view(image, 0)
    assert view is not None
    facts = label_facts(image, view)
    assert facts.score == pytest.approx(0.01)
    assert facts.proposal_iou == 0


def test_a_made_up_fault_sees_its_own_copies_and_not_those_of_the_label() -> None:
    rows = [
        (BOX, Role.label, 0, (0.9, 0.0)),
        (BOX, Role.near_label, 0, (0.9, 0.0)),
        (BESIDE, Role.shifted, 0, (0.2, 0.0)),
        (BESIDE, Role.near_shifted, 0, (0.3, 0.0)),
        (FAR, Role.invented, 0, (0.0, 0.1)),
        (FAR, Role.proposal, -1, (0.0, 0.1)),
    ]
    image = scored(TRUTH, rows, invented=[2])
    moved = shifted_view(image, 0)
    assert moved is not None
    assert moved.rows.tolist() == [2, 3, 5]
    assert len(moved.others) == 0
    made_up = invented_view(image, 0)
    assert (made_up.rows.tolist(), made_up.label) == ([4, 5], 2)
    assert made_up.others.tolist() == [list(BOX)]


def test_a_label_without_regions_has_no_view() -> None:
    image = scored(TRUTH, [(FAR, Role.proposal, -1, (0.9, 0.0))])
    assert label_view(image, 0) is None
    assert shifted_view(image, 0) is None


def test_the_only_class_cannot_be_wrong() -> None:
    assert margin(class_probabilities(np.array([0.3], dtype=np.float32)), 0) == 5
    assert logit(0.0) < -6


def test_a_place_without_a_label_is_free_and_one_with_a_label_looks_as_if_it_had_none() -> None:
    image = scored(TRUTH, [(BOX, Role.proposal, -1, (0.8, 0.1)), (FAR, Role.proposal, -1, (0.1, 0.5))])
    found = candidates(image, SHAPES, floor=0.1)
    assert found.matched.tolist() == [0, FREE]
    assert found.labels.tolist() == [1, 2]
    assert cue(found.cues[0], "label_iou") == 0
    assert np.allclose(found.scores, [0.9, 0.6])


def test_regions_of_labels_are_not_looked_at() -> None:
    image = scored(TRUTH, [(BOX, Role.label, 0, (0.8, 0.1)), (BOX, Role.near_label, 0, (0.8, 0.1))])
    assert len(candidates(image, SHAPES, floor=0.1).boxes) == 0


def test_places_below_the_floor_and_overlapping_ones_are_left_out() -> None:
    inside = (12, 10, 50, 50)
    rows = [(BOX, Role.proposal, -1, (0.8, 0.1)), (inside, Role.proposal, -1, (0.7, 0.1))]
    image = scored(NONE, [*rows, (FAR, Role.proposal, -1, (0.01, 0.0))])
    found = candidates(image, SHAPES, floor=0.1)
    assert len(found.boxes) == 1
    assert found.supports.tolist() == [2]
    assert cue(found.cues[0], "support") == pytest.approx(np.log1p(0.9 + 0.8), rel=1e-5)


def test_matching_is_one_to_one_and_a_second_candidate_is_no_missing_object() -> None:
    labels = np.array([BOX], dtype=np.float32)
    boxes = np.array([(10, 10, 48, 50), (10, 10, 40, 50), FAR], dtype=np.float32)
    assert match(boxes, labels, np.array([False])).tolist() == [0, SECOND, FREE]


def test_what_is_in_a_crowd_is_no_missing_object() -> None:
    crowd = np.array([(100, 0, 200, 100)], dtype=np.float32)
    assert match(np.array([FAR, BOX], dtype=np.float32), crowd, np.array([True])).tolist() == [SECOND, FREE]


def test_no_candidates_and_no_labels() -> None:
    none = np.zeros((0, 4), dtype=np.float32)
    boxes = np.array([FAR], dtype=np.float32)
    assert match(none, boxes, np.array([False])).tolist() == []
    assert match(boxes, none, np.zeros(0, dtype=np.bool_)).tolist() == [FREE]
    empty = candidates(scored(NONE, []), SHAPES, floor=0.1)
    assert (len(empty.boxes), empty.cues.shape[1]) == (0, len(CANDIDATE_CUES))


def test_shapes_are_of_each_class_and_of_all_for_rare_ones() -> None:
    truth = GroundTruth.from_boxes([[0, 0, 10, 10]] * 6 + [[0, 0, 40, 10]], [1] * 6 + [2])
    shapes = class_shapes([(truth, SIZE)], 2)
    assert shapes.mean[1, 1] == pytest.approx(0)
    assert shapes.mean[2].tolist() == shapes.mean[0].tolist()
    assert class_shapes([], 2).mean.shape == (3, 2)


def test_a_crowd_is_no_other_label() -> None:
    truth = replace(GroundTruth.from_boxes([BOX, BESIDE], [1, 1]), crowd=np.array([False, True]))
    view = label_view(scored(truth, [(BOX, Role.label, 0, (0.8, 0.1))]), 0)
    assert view is not None
    assert len(view.others) == 0
