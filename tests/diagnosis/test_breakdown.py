"""Groups of objects: small numbers by hand."""

from __future__ import annotations

import numpy as np

from detpipe.diagnosis.breakdown import DISTANCES, breakdown, nearest_distances
from detpipe.diagnosis.causes import Cause, find_misses
from detpipe.diagnosis.false_detections import FalseType, find_false
from tests.diagnosis.scenes import CAT, CLASSES, DOG, found, objects


def test_distances() -> None:
    truth = objects(((0, 0, 10, 10), CAT), ((10, 0, 20, 10), CAT), ((50, 0, 70, 20), CAT), ((0, 0, 5, 5), DOG))
    # The third is 20 wide: 45.28 from the second's centre, divided by (20 + 10) / 2.
    expected = [1.0, 1.0, np.hypot(60 - 15, 5) / 15, np.inf]
    np.testing.assert_allclose(nearest_distances(truth), expected)


def test_a_crowd_is_no_neighbour() -> None:
    truth = objects(((0, 0, 10, 10), CAT), ((10, 0, 20, 10), CAT), crowd=[1])
    assert nearest_distances(truth).tolist() == [np.inf, 1.0]
    assert nearest_distances(objects()).shape == (0,)


def test_groups_add_up() -> None:
    truth = objects(((0, 0, 10, 10), CAT), ((5, 0, 15, 10), CAT), ((0, 0, 200, 200), DOG))
    detections = found((0.9, (0, 0, 10, 10), CAT), (0.8, (300, 300, 350, 350), DOG))
    misses = find_misses("a", truth, detections, CLASSES, threshold=0.5)
    wrong = find_false("a", truth, detections, CLASSES, threshold=0.5)
    groups = breakdown({"a": truth}, misses, wrong, CLASSES)
    assert [(one.name, one.objects, one.n_missed, one.n_false) for one in groups.classes] == [
        ("cat", 2, 1, 0),
        ("dog", 1, 1, 1),
        ("owl", 0, 0, 0),
    ]
    assert [(one.name, one.objects, one.n_missed, one.n_false) for one in groups.sizes] == [
        ("small", 2, 1, 0),
        ("medium", 0, 0, 1),
        ("large", 1, 1, 0),
    ]
    assert [(one.objects, one.n_missed) for one in groups.crowding] == [(2, 1), (0, 0), (0, 0), (1, 1)]
    assert [one.name for one in groups.crowding] == [name for name, _, _ in DISTANCES]
    assert groups.classes[1].missed == {Cause.missed: 1}
    assert groups.classes[1].false == {FalseType.background: 1}


def test_nothing() -> None:
    groups = breakdown({}, [], [], CLASSES)
    assert [one.objects for one in (*groups.classes, *groups.sizes, *groups.crowding)] == [0] * 10
