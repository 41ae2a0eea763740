"""Labels at the thresholds, what is ignored, and the shares of the sample."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detpipe import boxes as geometry
from detpipe.classify.labeling import Regions, SamplingConfig, jitter, label_regions, sample_regions
from detpipe.structures import Float32Array, GroundTruth

SIZE = (100, 100)
EMPTY = np.zeros((0, 4), dtype=np.float32)
NOTHING = GroundTruth.from_boxes([], [])


def boxes_of(*rows: tuple[float, float, float, float]) -> Float32Array:
    return np.array(rows, dtype=np.float32).reshape(-1, 4)


def of_iou(*tenths: float) -> Float32Array:
    """Boxes whose IoU with (0, 0, 10, 10) is this many tenths: the same width, less height."""
    return boxes_of(*((0, 0, 10, height) for height in tenths))


def truth_of(*objects: tuple[tuple[float, float, float, float], int, str]) -> GroundTruth:
    """Objects as box, label, and "", "difficult" or "crowd"."""
    boxes = boxes_of(*(box for box, _, _ in objects))
    return GroundTruth(
        boxes=boxes,
        labels=np.array([label for _, label, _ in objects], dtype=np.int64),
        difficult=np.array([kind == "difficult" for _, _, kind in objects], dtype=np.bool_),
        crowd=np.array([kind == "crowd" for _, _, kind in objects], dtype=np.bool_),
        areas=geometry.area(boxes),
    )


ONE = truth_of(((0, 0, 10, 10), 3, ""))


def random_boxes(n: int, seed: int) -> Float32Array:
    generator = np.random.default_rng(seed)
    corners = generator.uniform(0, 80, (n, 2))
    return np.concatenate([corners, corners + generator.uniform(2, 20, (n, 2))], axis=1).astype(np.float32)


def test_labels_exactly_at_the_thresholds() -> None:
    sampling = SamplingConfig(fg_iou=0.6, bg_iou_low=0.1, bg_iou_high=0.3)
    regions = label_regions(of_iou(10, 6, 5.9, 3, 2.9, 1, 0.9), ONE, sampling)
    assert regions.labels.tolist() == [3, 3, -1, -1, 0, 0, -1]
    np.testing.assert_allclose(regions.ious, [1, 0.6, 0.59, 0.3, 0.29, 0.1, 0.09], rtol=1e-6)


def test_the_usual_thresholds_meet() -> None:
    assert label_regions(of_iou(5, 4.9, 0.1), ONE, SamplingConfig()).labels.tolist() == [3, 0, 0]


def test_a_region_is_its_nearest_objects() -> None:
    truth = truth_of(((0, 0, 10, 10), 1, ""), ((0, 0, 10, 8), 2, ""))
    regions = label_regions(of_iou(10, 8, 8.5), truth, SamplingConfig())
    assert regions.labels.tolist() == [1, 2, 2]
    np.testing.assert_allclose(regions.deltas[0], 0, atol=1e-6)
    want = geometry.encode(of_iou(8.5), of_iou(8))
    np.testing.assert_allclose(regions.deltas[2:], want, rtol=1e-6)


def test_background_has_no_deltas() -> None:
    assert not label_regions(of_iou(4, 1), ONE, SamplingConfig()).deltas.any()


def test_regions_on_difficult_objects_and_in_crowds_teach_nothing() -> None:
    truth = truth_of(((0, 0, 10, 10), 1, "difficult"), ((50, 50, 90, 90), 2, "crowd"))
    candidates = boxes_of(
        (0, 0, 10, 5),  # IoU 0.5 with the difficult object
        (0, 0, 10, 4.9),
        (0, 0, 100, 100),  # around both: IoU 0.01, and 0.16 of itself in the crowd
        (60, 60, 62, 62),  # inside of the crowd: IoU 0.0025, but all of itself
        (45, 50, 55, 60),  # half of itself
        (44, 50, 54, 60),
    )
    assert label_regions(candidates, truth, SamplingConfig()).labels.tolist() == [-1, 0, 0, -1, -1, 0]


def test_an_object_in_a_crowd_still_teaches() -> None:
    truth = truth_of(((0, 0, 10, 10), 1, ""), ((0, 0, 50, 50), 2, "crowd"), ((0, 0, 10, 10), 3, "difficult"))
    assert label_regions(of_iou(10, 3), truth, SamplingConfig()).labels.tolist() == [1, -1]


def test_nothing_to_label() -> None:
    assert len(label_regions(EMPTY, ONE, SamplingConfig())) == len(label_regions(EMPTY, NOTHING, SamplingConfig())) == 0
    regions = label_regions(of_iou(10, 1), NOTHING, SamplingConfig())
    assert regions.labels.tolist() == [0, 0]
    assert regions.ious.tolist() == [0, 0]
    # IoU 0 is below Fast R-CNN's 0.1.
    assert label_regions(of_iou(10), NOTHING, SamplingConfig(bg_iou_low=0.1)).labels.tolist() == [-1]


def sample(proposals: Float32Array, truth: GroundTruth, sampling: SamplingConfig, seed: int = 0) -> Regions:
    return sample_regions(proposals, truth, SIZE, sampling, np.random.default_rng(seed))


def test_the_shares() -> None:
    regions = sample(
        np.concatenate([random_boxes(500, 1), of_iou(*np.linspace(6, 10, 50))]),
        ONE,
        SamplingConfig(regions_per_image=40, fg_share=0.3),
    )
    assert np.count_nonzero(regions.labels > 0) == 12
    assert np.count_nonzero(regions.labels == 0) == 28


def test_one_kind_does_not_fill_the_place_of_the_other() -> None:
    few = sample(random_boxes(500, 1), ONE, SamplingConfig(regions_per_image=40, fg_share=0.3, jittered=0))
    assert few.boxes[few.labels > 0].tolist() == [[0, 0, 10, 10]]
    assert np.count_nonzero(few.labels == 0) == 28
    none = sample(random_boxes(500, 1), NOTHING, SamplingConfig(regions_per_image=40, fg_share=0.3))
    assert none.labels.tolist() == [0] * 28


def test_objects_are_among_the_examples_without_proposals() -> None:
    regions = sample(EMPTY, ONE, SamplingConfig(jittered=0))
    assert regions.boxes.tolist() == [[0, 0, 10, 10]]
    assert (regions.labels.tolist(), regions.ious.tolist()) == ([3], [1])
    ignored = truth_of(((0, 0, 10, 10), 1, "difficult"), ((20, 20, 30, 30), 1, "crowd"))
    assert len(sample(EMPTY, ignored, SamplingConfig())) == 0


def test_own_boxes_are_always_among_the_examples() -> None:
    truth = truth_of(((0, 0, 10, 10), 1, ""), ((20, 20, 30, 30), 2, ""))
    proposals = of_iou(*np.linspace(6, 9.9, 200))
    kept = [SamplingConfig(regions_per_image=8, fg_share=0.25, jittered=0, own_boxes=own) for own in (True, False)]
    for seed in range(5):
        assert sample(proposals, truth, kept[0], seed).ious.tolist() == [1, 1]
    assert any((sample(proposals, ONE, kept[1], seed).ious < 1).all() for seed in range(5))
    one = sample(proposals, ONE, kept[0])
    assert len(one) == 2
    assert one.ious.max() == 1


def test_neither_proposals_nor_objects() -> None:
    regions = sample(EMPTY, NOTHING, SamplingConfig())
    assert (regions.boxes.shape, regions.labels.shape, regions.deltas.shape) == ((0, 4), (0,), (0, 4))
    assert regions.boxes.dtype == np.float32


def test_candidates_without_a_pixel_are_left_out() -> None:
    regions = sample(boxes_of((5, 5, 5, 9), (50, 50, 60, 60), (70, 70, 70, 70)), NOTHING, SamplingConfig())
    assert regions.boxes.tolist() == [[50, 50, 60, 60]]


@given(st.integers(0, 60), st.integers(0, 4), st.integers(0, 1 << 30))
def test_a_sample_is_labelled_unique_and_repeatable(n: int, objects: int, seed: int) -> None:
    truth = GroundTruth.from_boxes(random_boxes(objects, seed), np.arange(1, objects + 1))
    proposals = random_boxes(n, seed + 1)
    sampling = SamplingConfig(regions_per_image=16)
    regions = sample(proposals, truth, sampling, seed)
    assert len(np.unique(regions.boxes, axis=0)) == len(regions) <= 16
    assert ((regions.labels >= 0) & (regions.labels <= objects)).all()
    assert (geometry.area(regions.boxes) > 0).all()
    shuffled = np.concatenate([proposals, proposals])[np.random.default_rng(seed).permutation(2 * n)]
    again = sample(shuffled, truth, sampling, seed)
    np.testing.assert_array_equal(regions.boxes, again.boxes)
    np.testing.assert_array_equal(regions.labels, again.labels)
    foreground = regions.labels > 0
    own = truth.boxes[regions.labels[foreground] - 1]
    moved = geometry.decode(regions.boxes[foreground], regions.deltas[foreground])
    np.testing.assert_allclose(moved, own, atol=1e-3)
    assert not regions.deltas[~foreground].any()


def test_jitter_stays_near_and_inside() -> None:
    objects = boxes_of((0, 0, 30, 40), (60, 60, 100, 100))
    sampling = SamplingConfig(jittered=200)
    moved = jitter(objects, SIZE, sampling, np.random.default_rng(0))
    assert moved.dtype == np.float32
    assert 150 < len(moved) < 400  # the comment in the code promises about two in three
    assert (geometry.iou(moved, objects).max(axis=1) >= 0.5).all()
    np.testing.assert_array_equal(geometry.clip(moved, SIZE), moved)
    assert len(np.unique(moved, axis=0)) == len(moved)


def test_jitter_of_nothing() -> None:
    assert jitter(EMPTY, SIZE, SamplingConfig(), np.random.default_rng(0)).shape == (0, 4)
    assert jitter(boxes_of((0, 0, 5, 5)), SIZE, SamplingConfig(jittered=0), np.random.default_rng(0)).shape == (0, 4)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"fg_iou": 1.1}, "fg_iou <= 1"),
        ({"bg_iou_high": 0.6}, "bg_iou_high <= fg_iou"),
        ({"bg_iou_low": 0.5}, "bg_iou_low < bg_iou_high"),
        ({"bg_iou_low": -0.1}, "0 <= bg_iou_low"),
        ({"fg_share": 1.0}, "fg_share"),
        ({"val_share": -0.5}, "val_share"),
        ({"regions_per_image": 0}, "regions_per_image"),
        ({"jittered": -1}, "jittered"),
    ],
)
def test_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        SamplingConfig(**values)


def test_only_the_best_proposals_are_candidates() -> None:
    boxes = random_boxes(50, 1)
    first = sample(boxes, NOTHING, SamplingConfig(max_proposals=10, regions_per_image=40, fg_share=0))
    assert {tuple(box) for box in first.boxes} == {tuple(box) for box in boxes[:10]}
    assert len(sample(boxes, NOTHING, SamplingConfig(max_proposals=0))) == 0
    assert len(sample(boxes, NOTHING, SamplingConfig(max_proposals=None, regions_per_image=99, fg_share=0))) == 50
