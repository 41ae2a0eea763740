"""Which objects changed from which cause to which."""

from __future__ import annotations

import numpy as np
import pytest

from detpipe.diagnosis.causes import find_misses
from detpipe.diagnosis.comparison import compare
from detpipe.diagnosis.result import ChangedObject
from detpipe.metrics.map_bootstrap import resampled_map
from detpipe.structures import Detections
from tests.diagnosis.scenes import BOX, CAT, CLASSES, DOG, FAR, found, objects

TRUTH = {"a": objects((BOX, CAT), (FAR, DOG), (FAR, CAT), difficult=[2]), "b": objects((BOX, CAT))}


def test_changes_by_hand() -> None:
    now = {"a": found((0.9, BOX, CAT), (0.6, FAR, CAT)), "b": found((0.4, BOX, CAT))}
    before = {"a": found((0.9, FAR, DOG), (0.3, BOX, CAT)), "b": found((0.4, BOX, CAT))}

    def misses(detections: dict[str, Detections]) -> list:
        return [
            miss
            for name, truth in TRUTH.items()
            for miss in find_misses(name, truth, detections[name], CLASSES, threshold=0.5)
        ]

    first, second = (resampled_map(TRUTH, one, CLASSES, resamples=20, seed=0) for one in (now, before))
    result = compare(
        TRUTH,
        CLASSES,
        misses=misses(now),
        map_samples=first,
        other="runs/other",
        other_threshold=0.5,
        other_misses=misses(before),
        other_map=second,
    )
    assert result.changes == {
        ("threshold", "found"): 1,
        ("found", "wrong_class"): 1,
        ("threshold", "threshold"): 1,
    }
    assert result.objects == [
        ChangedObject(image="a", object=0, label="cat", before="threshold", after="found"),
        ChangedObject(image="a", object=1, label="dog", before="found", after="wrong_class"),
    ]
    assert result.difference.value == pytest.approx(float(first.value[0] - second.value[0]))


def test_nothing_to_compare() -> None:
    empty = resampled_map({}, {}, CLASSES, resamples=2, seed=0)
    result = compare(
        {}, CLASSES, misses=[], map_samples=empty, other="o", other_threshold=0.5, other_misses=[], other_map=empty
    )
    assert (result.changes, result.objects) == ({}, [])
    assert np.isnan(result.difference.value)
