"""The regions of an audit: labels, copies, proposals and made-up faults."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from detpipe import boxes as geometry
from detpipe.labels.regions import (
    AuditRegions,
    LabelSizes,
    RegionConfig,
    Role,
    audit_regions,
    invented_boxes,
    shifted_boxes,
    slightly_moved,
    thinned,
)
from detpipe.structures import Float32Array, GroundTruth

SIZE = (200, 300)
LABELS = GroundTruth.from_boxes([[20, 20, 80, 90], [150, 60, 220, 120]], [1, 2])
SIZES = LabelSizes.sample(np.array([[0.2, 0.3]], dtype=np.float32), np.array([2]))
NONE = np.zeros((0, 4), dtype=np.float32)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def regions_of(truth: GroundTruth, proposals: Float32Array = NONE, config: RegionConfig | None = None) -> AuditRegions:
    return audit_regions(proposals, truth, SIZE, SIZES, config or RegionConfig(), rng())


def test_every_label_has_its_own_box_its_copies_and_a_shifted_box() -> None:
    found = regions_of(LABELS)
    for label in range(2):
        assert found.boxes[found.of(Role.label, label)].tolist() == [LABELS.boxes[label].tolist()]
        assert len(found.of(Role.near_label, label)) == 4
        assert len(found.of(Role.shifted, label)) == 1
    assert len(found.of(Role.invented)) == 3
    assert (geometry.area(found.boxes) > 0).all()


def test_the_best_proposals_come_first_without_near_duplicates() -> None:
    proposals = np.array([[0, 0, 50, 50], [0, 0, 50, 51], [100, 100, 150, 150], [9, 9, 9, 9]], dtype=np.float32)
    found = regions_of(LABELS, proposals)
    assert found.of(Role.proposal).tolist() == [0, 1]
    assert found.ranks[:2].tolist() == [0, 2]
    assert thinned(proposals, 0.8, 1).tolist() == [0]
    narrow = np.array([[5, 5, 5.5, 90], [100, 100, 150, 150]], dtype=np.float32)
    assert thinned(narrow, 0.8, 5).tolist() == [1]


def test_other_regions_have_the_rank_of_the_most_similar_proposal() -> None:
    proposals = np.array([[150, 60, 221, 121], [20, 20, 81, 91]], dtype=np.float32)
    found = regions_of(LABELS, proposals)
    assert found.ranks[found.of(Role.label)].tolist() == [1, 0]


def test_crowds_and_labels_without_area_have_no_regions() -> None:
    boxes = np.array([[20, 20, 80, 90], [30, 40, 30, 60], [0, 0, 300, 200]], dtype=np.float32)
    truth = replace(GroundTruth.from_boxes(boxes, [1, 1, 1]), crowd=np.array([False, False, True]))
    found = regions_of(truth)
    assert found.owners[found.of(Role.label)].tolist() == [0]


def test_no_labels_and_no_proposals_leave_invented_boxes() -> None:
    found = regions_of(GroundTruth.from_boxes([], []))
    assert set(found.roles.tolist()) == {Role.invented, Role.near_invented}


def test_a_shifted_box_is_wrong_and_inside_the_image() -> None:
    boxes = np.repeat(LABELS.boxes, 100, axis=0)
    moved, wrong = shifted_boxes(boxes, SIZE, rng())
    ious = geometry.iou(moved, boxes)[np.arange(200), np.arange(200)]
    assert wrong.mean() > 0.9
    assert ((ious[wrong] >= 0.1) & (ious[wrong] <= 0.75)).all()
    assert np.array_equal(geometry.clip(moved, SIZE), moved)


def test_a_copy_is_as_accurate_as_a_label() -> None:
    boxes = np.repeat(LABELS.boxes, 100, axis=0)
    ious = geometry.iou(slightly_moved(boxes, SIZE, rng()), boxes)[np.arange(200), np.arange(200)]
    assert np.median(ious) > 0.7


def test_invented_boxes_are_on_the_background() -> None:
    found, classes = invented_boxes(LABELS.boxes, SIZE, SIZES, 3, rng())
    assert classes.tolist() == [2, 2, 2]
    assert geometry.iou(found, LABELS.boxes).max() < 0.1
    assert np.allclose(found[:, 2:] - found[:, :2], [60, 60])


def test_an_image_that_is_full_of_labels_has_none() -> None:
    full = np.array([[0, 0, 300, 200]], dtype=np.float32)
    large = LabelSizes.sample(np.array([[0.9, 0.9]], dtype=np.float32), np.array([1]))
    boxes, classes = invented_boxes(full, SIZE, large, 3, rng())
    assert (len(boxes), len(classes)) == (0, 0)


def test_without_any_label_nothing_is_invented() -> None:
    none = LabelSizes.sample(np.zeros((0, 2), dtype=np.float32), np.zeros(0, dtype=np.int64))
    assert len(audit_regions(NONE, GroundTruth.from_boxes([], []), SIZE, none, RegionConfig(), rng())) == 0


def test_labels_beyond_max_faults_have_no_shifted_box() -> None:
    found = regions_of(LABELS, config=RegionConfig(max_faults=1, copies=0))
    assert len(found.of(Role.shifted)) == 1
    assert len(found.of(Role.label)) == 2


@pytest.mark.parametrize("wrong", [{"proposals": 0}, {"copies": -1}, {"invented": 0}, {"max_faults": 0}])
def test_numbers_are_checked(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        RegionConfig(**wrong)


def test_thin_iou_is_checked() -> None:
    with pytest.raises(ValueError, match="thin_iou"):
        RegionConfig(thin_iou=0.0)


def test_one_changed_label_changes_few_of_the_sizes_that_are_drawn() -> None:
    generator = np.random.default_rng(1)
    shares, labels = generator.random((1000, 2)).astype(np.float32), np.ones(1000, dtype=np.int64)
    changed = shares.copy()
    changed[500] = 0.5
    before, _ = LabelSizes.sample(shares, labels).draw(2000, SIZE, rng())
    after, _ = LabelSizes.sample(np.delete(changed, 3, axis=0), labels[1:]).draw(2000, SIZE, rng())
    assert (before != after).any(axis=1).mean() < 0.02
    assert len(np.unique(before, axis=0)) > 240
