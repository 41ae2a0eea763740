"""Gaussian, uniform, sliding window and the oracle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detpipe.proposals.baselines import (
    Gaussian,
    GroundTruthBoxes,
    SlidingWindow,
    Uniform,
    from_relative,
    relative_objects,
    to_relative,
)
from detpipe.proposals.proposer import Proposer
from detpipe.structures import Dataset, GroundTruth, ImageRecord

IMAGE = np.zeros((300, 500, 3), np.uint8)


def record(image_id: int | str) -> ImageRecord:
    return ImageRecord(image_id, Path(f"{image_id}.jpg"), (300, 500))


def test_relative_box_by_hand():
    # 40 x 10 pixels in an image 100 high and 400 wide: centre (40, 25), side 20 of 200, aspect 4.
    relative = to_relative(np.array([[20, 20, 60, 30]], np.float32), (100, 400))
    np.testing.assert_allclose(relative, [[0.1, 0.25, 0.1, 2]])
    assert to_relative(np.zeros((0, 4), np.float32), (3, 3)).shape == (0, 4)


@given(
    st.tuples(st.floats(-50, 400), st.floats(-50, 400), st.floats(1, 300), st.floats(1, 300)),
    st.tuples(st.integers(1, 900), st.integers(1, 900)),
)
def test_relative_box_round_trip(box: tuple[float, float, float, float], image_size: tuple[int, int]):
    x, y, width, height = box
    boxes = np.array([[x, y, x + width, y + height]], np.float32)
    np.testing.assert_allclose(from_relative(to_relative(boxes, image_size), image_size), boxes, atol=1e-2)


@pytest.mark.parametrize("proposer", [Gaussian, Uniform])
def test_random_ones_depend_on_seed_and_image_alone(proposer: type[Proposer]):
    one = proposer(max_proposals=50)
    first = one.propose(IMAGE, record("a"), None)
    one.propose(IMAGE, record("b"), None)
    assert first.boxes.tobytes() == one.propose(IMAGE, record("a"), None).boxes.tobytes()
    assert first.boxes.tobytes() != one.propose(IMAGE, record("b"), None).boxes.tobytes()
    assert first.boxes.tobytes() != proposer(max_proposals=50, seed=1).propose(IMAGE, record("a"), None).boxes.tobytes()
    assert one(IMAGE).boxes.tobytes() == one(IMAGE.copy()).boxes.tobytes()
    assert one(IMAGE).boxes.tobytes() != one(IMAGE + np.uint8(1)).boxes.tobytes()


@pytest.mark.parametrize("proposer", [Gaussian, Uniform, SlidingWindow])
def test_boxes_lie_in_the_image(proposer: type[Proposer]):
    for size in ((300, 500), (1, 1), (7, 900)):
        found = proposer(max_proposals=400)(np.zeros((*size, 3), np.uint8))
        assert 1 <= len(found) <= 400
        assert (found.boxes >= 0).all()
        assert (found.boxes <= (size[1], size[0]) * 2).all()
        assert (found.boxes[:, 2:] > found.boxes[:, :2]).all()
    with pytest.raises(ValueError, match="max_proposals"):
        proposer(max_proposals=None)


def test_gaussian_has_its_mean_and_covariance():
    tight = Gaussian(
        mean=[0.5, 0.4, 0.2, 1.0],
        covariance=[[1e-4, 5e-5, 0, 0], [5e-5, 1e-4, 0, 0], [0, 0, 1e-4, 0], [0, 0, 0, 1e-2]],
        max_proposals=4000,
    )
    relative = to_relative(tight(IMAGE).boxes, (300, 500))
    np.testing.assert_allclose(relative.mean(axis=0), tight.mean, atol=0.01)
    np.testing.assert_allclose(np.cov(relative.T), tight.covariance, atol=1e-3)
    assert np.corrcoef(relative.T)[0, 1] == pytest.approx(0.5, abs=0.05)


def test_gaussian_draws_again_what_lies_outside():
    wide = Gaussian(mean=[0.0, 0.5, 0.3, 0.0], max_proposals=500)
    assert len(wide(IMAGE)) == 500
    hopeless = Gaussian(mean=[0.5, 0.5, -99.0, 0.0], max_proposals=2)
    with pytest.raises(ValueError, match="almost no box"):
        hopeless(IMAGE)


def test_gaussian_refuses_what_is_no_distribution():
    with pytest.raises(ValueError, match="4 means"):
        Gaussian(mean=[0.5])
    with pytest.raises(ValueError, match="positive definite"):
        Gaussian(covariance=(-np.eye(4)).tolist())
    with pytest.raises(ValueError, match="symmetric"):
        Gaussian(covariance=(np.eye(4) + np.diag([0.5] * 3, 1)).tolist())


def objects() -> list[tuple[GroundTruth, tuple[int, int]]]:
    boxes = from_relative(
        np.random.default_rng(0).uniform([0.3, 0.3, 0.1, -1], [0.7, 0.7, 0.3, 1], (300, 4)), (300, 500)
    )
    return [(GroundTruth.from_boxes(boxes, np.ones(300)), (300, 500))]


def test_fit_finds_the_distribution_of_the_objects():
    uniform = Uniform.fit(objects(), max_proposals=10, seed=4)
    np.testing.assert_allclose(uniform.low, [0.3, 0.3, 0.1, -1], atol=0.02)
    np.testing.assert_allclose(uniform.high, [0.7, 0.7, 0.3, 1], atol=0.02)
    assert (uniform.max_proposals, uniform.seed) == (10, 4)
    gaussian = Gaussian.fit(objects(), max_proposals=10)
    np.testing.assert_allclose(gaussian.mean, [0.5, 0.5, 0.2, 0], atol=0.06)
    assert gaussian.covariance[3][3] == pytest.approx(4 / 12, abs=0.05)


def test_fit_leaves_out_crowds_and_empty_boxes_and_needs_objects():
    truth = GroundTruth.from_boxes([[0, 0, 9, 9], [1, 1, 1, 5], [2, 2, 4, 4]], [1, 1, 1])
    truth.crowd[0] = True
    assert len(relative_objects([(truth, (10, 10))])) == 1
    with pytest.raises(ValueError, match="at least one object"):
        Uniform.fit([])
    with pytest.raises(ValueError, match="at least 5 objects"):
        Gaussian.fit([(truth, (10, 10))])
    same = GroundTruth.from_boxes([[0, 0, 9, 9]] * 6, [1] * 6)
    assert len(Gaussian.fit([(same, (20, 20))], max_proposals=20)(IMAGE)) == 20


def test_uniform_refuses_ranges_that_are_none():
    with pytest.raises(ValueError, match="low <= high"):
        Uniform(low=[0.5, 0, 0.1, 0], high=[0.4, 1, 1, 1])
    with pytest.raises(ValueError, match="above 0 in low"):
        Uniform(low=[0, 0, 0, 0])


def test_sliding_window_has_all_sizes_and_spreads_them():
    image = np.zeros((600, 700, 3), np.uint8)
    found = SlidingWindow(max_proposals=2000)(image)
    sizes = {tuple(size) for size in (found.boxes[:, 2:] - found.boxes[:, :2]).tolist()}
    assert len(sizes) == 28
    assert 1000 < len(found) <= 2000
    # Each size stands symmetrically: its grid is in the middle of the image.
    squares = found.boxes[((found.boxes[:, 2:] - found.boxes[:, :2]) == 64).all(axis=1)]
    assert abs(squares[:, 0].min() - (700 - squares[:, 2].max())) <= 2
    assert abs(squares[:, 1].min() - (600 - squares[:, 3].max())) <= 2


def test_sliding_window_of_a_small_image_is_the_whole_and_what_fits():
    found = SlidingWindow(max_proposals=50)(np.zeros((16, 20, 3), np.uint8))
    assert {tuple(box) for box in found.boxes.tolist()} >= {(0, 0, 20, 16)}
    assert set((found.boxes[:, 3] - found.boxes[:, 1]).tolist()) == {16}
    assert SlidingWindow()(np.zeros((5, 5, 3), np.uint8)).boxes.tolist() == [[0, 0, 5, 5]]


def test_ground_truth_gives_the_objects():
    truth = GroundTruth.from_boxes(
        [[5, 5, 9, 9], [1, 1, 4, 4], [0, 0, 300, 300], [2, 2, 2, 5], [1, 1, 4, 4]], [1, 2, 1, 1, 2]
    )
    truth.crowd[2] = True
    found = GroundTruthBoxes().propose(IMAGE, record("a"), truth)
    assert found.boxes.tolist() == [[1, 1, 4, 4], [5, 5, 9, 9]]
    assert found.scores.tolist() == [1, 1]


def test_ground_truth_of_an_empty_image_and_without_annotations():
    assert len(GroundTruthBoxes().propose(IMAGE, record("a"), GroundTruth.from_boxes([], []))) == 0
    with pytest.raises(ValueError, match="no annotations"):
        GroundTruthBoxes().propose(IMAGE, record("a"), None)
    bare = Dataset("folder", (), (), (record("a"),), None)
    with pytest.raises(ValueError, match="folder without any"):
        GroundTruthBoxes().check([bare])
    GroundTruthBoxes().check()
    with pytest.raises(ValueError, match="pixels alone"):
        GroundTruthBoxes()(IMAGE)
