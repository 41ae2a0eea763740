"""Learning curves: means over draws, sets that contain each other, and the power law, worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detpipe.metrics.bootstrap import Resampled
from detpipe.metrics.learning_curve import (
    LearningCurve,
    LearningPoint,
    PowerLaw,
    nested_order,
    over_draws,
    set_sizes,
)


def resampled(value: float, *samples: float) -> Resampled:
    return Resampled(np.array([value]), np.array(samples, dtype=np.float64)[:, None])


def point(images: int, value: float, spread: float = 0.0) -> LearningPoint:
    return LearningPoint(images, (value,), resampled(value, value - spread, value, value + spread))


def curve(*points: LearningPoint) -> LearningCurve:
    return LearningCurve(points)


def test_one_draw_keeps_its_samples():
    mean = over_draws([resampled(0.4, 0.3, 0.5)], seed=0)
    assert mean.value.tolist() == [0.4]
    assert mean.samples[:, 0].tolist() == pytest.approx([0.3, 0.5])


def test_equal_draws_add_no_spread():
    draw = resampled(0.4, *np.linspace(0.3, 0.5, 20))
    np.testing.assert_allclose(over_draws([draw, draw, draw], seed=1).samples, draw.samples)


def test_the_spread_of_draws_is_that_of_their_mean():
    """Draws that differ, test images that don't: the variance of the mean of D draws is the sample variance / D."""
    values = [0.2, 0.5, 0.6]
    mean = over_draws([resampled(value, *[value] * 4000) for value in values], seed=0)
    assert mean.value[0] == pytest.approx(np.mean(values))
    assert mean.samples.var() == pytest.approx(np.var(values, ddof=1) / 3, rel=0.1)


def test_samples_stay_accuracies():
    samples = over_draws([resampled(0.9, *[0.9] * 50), resampled(1.0, *[1.0] * 50)], seed=0).samples
    assert samples.max() <= 1


def test_no_draws_are_refused():
    with pytest.raises(ValueError, match="at least one draw"):
        over_draws([], seed=0)


def test_the_gain_is_per_doubling():
    gain = curve(point(10, 0.2), point(40, 0.6)).last_gain
    assert gain.value[0] == pytest.approx(0.2)  # two doublings
    assert gain.samples[:, 0].tolist() == pytest.approx([0.2] * 3)


@pytest.mark.parametrize("numbers", [(), (5,), (5, 5), (8, 4)])
def test_fewer_than_two_numbers_are_no_curve(numbers: tuple[int, ...]):
    with pytest.raises(ValueError, match="at least two"):
        curve(*(point(number, 0.5) for number in numbers))


def test_a_power_law_is_found():
    """1 - mAP = 2 n^-0.5: 0.5, 0.25 and 0.125 wrong at 16, 64 and 256 images; 1/16 at 1024."""
    law = curve(point(16, 0.5, 0.01), point(64, 0.75, 0.01), point(256, 0.875, 0.01)).power_law
    assert isinstance(law, PowerLaw)
    assert law.exponent.value[0] == pytest.approx(0.5)
    assert law.scale.value[0] == pytest.approx(2)
    assert law.at(1024).value[0] == pytest.approx(15 / 16)


@pytest.mark.parametrize(
    ("points", "why"),
    [
        ((point(16, 0.5), point(64, 0.75)), "too few"),
        ((point(16, 0.5), point(64, 0.75), point(256, 1.0)), "mAP is 1"),
        ((point(16, 0.5), point(64, math.nan), point(256, 0.7)), "unknown"),
        ((point(16, 0.5), point(64, 0.5), point(256, 0.5)), "not certain that mAP rises"),
        ((point(16, 0.8), point(64, 0.6), point(256, 0.5)), "not certain that mAP rises"),
        ((point(16, 0.5, 0.01), point(64, 0.51, 0.01), point(256, 0.9, 0.01)), "interval at 16 images"),
    ],
)
def test_no_power_law_where_the_points_do_not_support_it(points: tuple[LearningPoint, ...], why: str):
    law = curve(*points).power_law
    assert isinstance(law, str)
    assert why in law


@given(st.integers(1, 30), st.integers(1, 6), st.integers(0, 1000), st.data())
def test_an_order_has_every_image_once(images: int, classes: int, seed: int, data: st.DataObject):
    smallest = data.draw(st.integers(1, images))
    holds = np.random.default_rng(seed).random((images, classes)) < 0.2
    order = nested_order(holds, smallest, np.random.default_rng(seed + 1))
    assert sorted(order.tolist()) == list(range(images))
    if smallest >= classes:  # one image for each class is enough
        np.testing.assert_array_equal(holds[order[:smallest]].any(axis=0), holds.any(axis=0))


def test_a_rare_class_is_in_the_smallest_set():
    holds = np.zeros((50, 2), dtype=np.bool_)
    holds[:, 0] = True
    holds[7, 1] = True
    for seed in range(20):
        assert 7 in nested_order(holds, 2, np.random.default_rng(seed))[:2]


def test_where_all_classes_are_there_the_order_is_the_random_one():
    holds = np.ones((9, 3), dtype=np.bool_)
    plain = np.random.default_rng(4).permutation(9)
    np.testing.assert_array_equal(nested_order(holds, 3, np.random.default_rng(4)), plain)


def test_sizes():
    assert set_sizes(296, [0.12, 0.25, 0.5, 1.0]) == [36, 74, 148, 296]
    assert set_sizes(2, [0.12, 0.25, 0.5, 1.0]) == [1, 2]
    assert set_sizes(0, [0.5, 1.0]) == []
    assert len(nested_order(np.zeros((0, 2), dtype=np.bool_), 1, np.random.default_rng(0))) == 0
