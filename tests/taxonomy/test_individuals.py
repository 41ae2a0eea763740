"""Detections of one thing as several classes are one individual."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from detpipe.classify.detect import NO_DETECTIONS
from detpipe.structures import Detections
from detpipe.taxonomy.individuals import individuals

HERE, NEAR, FAR = (0, 0, 10, 10), (0, 0, 10, 9), (50, 50, 60, 60)


def detections(*rows: tuple[tuple[float, ...], float, int]) -> Detections:
    rows = tuple(sorted(rows, key=lambda row: -row[1]))
    boxes, scores, labels = zip(*rows, strict=True)
    return Detections(np.array(boxes, np.float32), np.array(scores, np.float32), np.array(labels, np.int64))


def test_classes_of_one_box_are_joined() -> None:
    found = individuals(detections((HERE, 0.5, 1), (NEAR, 0.25, 2), (FAR, 0.125, 2)))
    assert [one.box.tolist() for one in found] == [list(HERE), list(FAR)]
    assert [dict(one.scores) for one in found] == [{1: 0.5, 2: 0.25}, {2: 0.125}]
    assert [one.confidence for one in found] == [0.75, 0.125]
    assert found[0].probabilities == {1: 0.5 / 0.75, 2: 0.25 / 0.75}


def test_two_of_a_class_are_two_individuals() -> None:
    found = individuals(detections((HERE, 0.5, 1), (NEAR, 0.25, 1)))
    assert [dict(one.scores) for one in found] == [{1: 0.5}, {1: 0.25}]


def test_the_order_is_by_confidence_which_is_at_most_1() -> None:
    found = individuals(detections((FAR, 0.75, 1), (HERE, 0.625, 1), (HERE, 0.5, 2)))
    assert [one.confidence for one in found] == [1.0, 0.75]
    assert sum(found[0].probabilities.values()) == 1


def test_scores_of_0_or_below() -> None:
    (found,) = individuals(detections((HERE, 0, 1), (HERE, -2, 2)))
    assert found.confidence == 0
    assert found.probabilities == {1: 0.5, 2: 0.5}


def test_nothing() -> None:
    assert individuals(NO_DETECTIONS) == []


@given(
    st.lists(st.tuples(st.sampled_from([HERE, NEAR, FAR]), st.floats(0, 1, width=32), st.integers(1, 3)), min_size=1)
)
def test_no_detection_is_lost(rows: list[tuple[tuple[float, ...], float, int]]) -> None:
    found = individuals(detections(*rows))
    kept = sorted((score, label) for one in found for label, score in one.scores.items())
    assert kept == sorted((float(np.float32(score)), label) for _, score, label in rows)
