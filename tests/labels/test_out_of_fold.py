"""Heads that did not see an image, their targets, and features of less width."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from detpipe.classify.labeling import IGNORED
from detpipe.heads.stored.softmax_regression import SoftmaxRegressionConfig
from detpipe.labels.out_of_fold import (
    RegionTable,
    Targets,
    moved_boxes,
    reduced,
    score_rows,
    targets_of,
    train_without,
)
from detpipe.labels.regions import AuditRegions, Role
from detpipe.structures import GroundTruth

BOX, FAR = (10, 10, 50, 50), (120, 10, 160, 50)
HEAD = SoftmaxRegressionConfig()


def table(folds: list[int], features: np.ndarray) -> RegionTable:
    n = len(folds)
    return RegionTable(
        features.astype(np.float32),
        np.zeros((n, 11), dtype=np.float32),
        np.tile(np.array([BOX], dtype=np.float32), (n, 1)),
        np.array(folds, dtype=np.int64),
        ("cat", "dog"),
    )


def targets(labels: list[int]) -> Targets:
    found = np.array(labels, dtype=np.int64)
    return Targets(found, (found > 0).astype(np.float32), np.zeros((len(found), 4), dtype=np.float32))


def test_a_fold_is_scored_by_what_the_others_say() -> None:
    # In fold 0 the label of the same features is another one: its head has seen only cats.
    features = np.array([[1.0, 0], [1, 0], [1, 0], [0, 1], [0, 1]])
    seen = table([0, 1, 1, 0, 1], features)
    learned = targets([2, 1, 1, 0, 0])
    rows = np.array([0, 3])
    found = score_rows(train_without(seen, learned, 0, HEAD, seed=0, bf16=False), seen, rows)
    assert found.scores.argmax(axis=1)[0] == 0
    assert found.scores[0, 0] > 0.5 > found.scores[1, 0]


def test_the_labels_of_its_own_fold_do_not_change_a_head() -> None:
    features = np.random.default_rng(0).standard_normal((8, 3))
    seen = table([0, 0, 1, 1, 1, 1, 1, 1], features)
    heads = [
        train_without(seen, targets([*own, 1, 1, 2, 0, 0, 2]), 0, HEAD, seed=0, bf16=False) for own in ([1, 2], [0, 0])
    ]
    assert heads[0] is not None
    assert heads[1] is not None
    for one, other in zip(heads[0].tensors().values(), heads[1].tensors().values(), strict=True):
        assert np.array_equal(one.numpy(), other.numpy())


def test_without_objects_outside_of_a_fold_there_is_no_head_and_all_scores_are_0() -> None:
    seen = table([0, 1], np.eye(2))
    head = train_without(seen, targets([1, 0]), 0, HEAD, seed=0, bf16=False)
    assert head is None
    found = score_rows(head, seen, np.array([0]))
    assert not found.scores.any()
    assert not found.deltas.any()


def test_no_rows_have_no_scores() -> None:
    seen = table([0, 1, 1], np.eye(3))
    head = train_without(seen, targets([1, 1, 0]), 0, HEAD, seed=0, bf16=False)
    assert score_rows(head, seen, np.zeros(0, dtype=np.int64)).scores.shape == (0, 2)


def regions() -> AuditRegions:
    boxes = np.array([BOX, BOX, FAR, FAR, FAR, FAR], dtype=np.float32)
    roles = [Role.proposal, Role.label, Role.proposal, Role.proposal, Role.invented, Role.near_invented]
    return AuditRegions(
        boxes, np.array(roles, dtype=np.int64), np.array([-1, 0, -1, -1, 0, 0]), np.arange(6), np.array([1])
    )


def test_objects_background_and_regions_that_are_not_used() -> None:
    truth = GroundTruth.from_boxes([BOX], [2])
    found = targets_of(regions(), truth, 10, np.random.default_rng(0))
    assert found.labels.tolist() == [2, 2, 0, 0, 0, IGNORED]
    fewer = targets_of(regions(), truth, 1, np.random.default_rng(0))
    assert (fewer.labels == 0).sum() == 1
    assert (fewer.labels == 2).sum() == 2


def test_regions_on_difficult_objects_are_not_used() -> None:
    truth = replace(GroundTruth.from_boxes([BOX], [2]), difficult=np.array([True]))
    found = targets_of(regions(), truth, 10, np.random.default_rng(0))
    assert found.labels[:2].tolist() == [IGNORED, IGNORED]


def test_no_regions_have_no_targets() -> None:
    none = np.zeros(0, dtype=np.int64)
    empty = AuditRegions(np.zeros((0, 4), dtype=np.float32), none, none, none, none)
    assert len(targets_of(empty, GroundTruth.from_boxes([BOX], [1]), 10, np.random.default_rng(0)).labels) == 0


def test_a_box_that_would_leave_the_image_or_become_a_line_stays() -> None:
    boxes = np.array([BOX, BOX, BOX], dtype=np.float32)
    deltas = np.array([[0.5, 0, 0, 0], [100, 0, 0, 0], [0, 0, -9, 0]], dtype=np.float32)
    assert moved_boxes(boxes, deltas, (100, 200)).tolist() == [[30, 10, 70, 50], list(BOX), list(BOX)]


def test_principal_components_keep_the_distances() -> None:
    generator = np.random.default_rng(0)
    x = generator.standard_normal((50, 4)) @ generator.standard_normal((4, 30))
    x /= x.std(axis=0)
    found = reduced(x, 4, 0)
    assert found.shape == (50, 4)
    assert np.linalg.norm(found[0] - found[1]) == pytest.approx(np.linalg.norm(x[0] - x[1]), rel=1e-3)
    assert np.array_equal(found, reduced(x, 4, 0))


@pytest.mark.parametrize("width", [0, 30, 40])
def test_features_are_not_reduced_to_0_or_more_than_there_are(width: int) -> None:
    x = np.ones((5, 30), dtype=np.float16)
    assert reduced(x, width, 0).shape == (5, 30)
    assert reduced(np.zeros((0, 30)), 4, 0).shape[0] == 0
