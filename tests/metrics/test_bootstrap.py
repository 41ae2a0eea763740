"""Intervals: against a plain slow implementation, and where theory knows the answer."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detpipe.metrics.bootstrap import ImageBootstrap, Resampled


def test_each_resample_draws_as_many_images_as_there_are():
    bootstrap = ImageBootstrap.draw(7, 50, seed=1)
    assert bootstrap.counts.shape == (50, 7)
    assert (bootstrap.counts.sum(axis=1) == 7).all()
    assert np.array_equal(bootstrap.counts, ImageBootstrap.draw(7, 50, seed=1).counts)
    assert not np.array_equal(bootstrap.counts, ImageBootstrap.draw(7, 50, seed=2).counts)


def slow_mean(values: list[float], groups: list[int]) -> float:
    means = [np.mean([v for v, g in zip(values, groups, strict=True) if g == group]) for group in set(groups)]
    return float(np.mean(means)) if means else math.nan


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_equals_drawing_the_images_one_by_one(seed: int):
    generator = np.random.default_rng(seed)
    n_images, n = int(generator.integers(1, 6)), int(generator.integers(0, 9))
    images = np.sort(generator.integers(0, n_images, n))
    groups = generator.integers(1, 4, n)
    values = generator.random((n, 2))
    bootstrap = ImageBootstrap.draw(n_images, 8, seed)
    resampled = bootstrap.means(values, images, groups)
    for row, counts in zip(resampled.samples, bootstrap.counts.tolist(), strict=True):
        drawn = [image for image, count in enumerate(counts) for _ in range(count)]
        objects = [place for image in drawn for place in np.flatnonzero(images == image).tolist()]
        for column in range(2):
            slow = slow_mean(values[objects, column].tolist(), groups[objects].tolist())
            assert row[column] == pytest.approx(slow, nan_ok=True)
    assert resampled.value[0] == pytest.approx(slow_mean(values[:, 0].tolist(), groups.tolist()), nan_ok=True)


def test_one_object_an_image_gives_the_interval_of_a_proportion():
    # 400 images, one object each, 30 % found: the mean is normal with variance p (1 - p) / n.
    values = (np.arange(400) < 120).astype(np.float64)[:, None]
    bootstrap = ImageBootstrap.draw(400, 4000, seed=0)
    resampled = bootstrap.means(values, np.arange(400), np.zeros(400, np.int64))
    low, high = (bound.item() for bound in resampled.interval)
    half = 1.96 * math.sqrt(0.3 * 0.7 / 400)
    assert resampled.value.item() == pytest.approx(0.3)
    assert low == pytest.approx(0.3 - half, abs=0.004)
    assert high == pytest.approx(0.3 + half, abs=0.004)


def test_objects_of_one_image_are_one_witness():
    # The same 400 objects in 40 images, ten alike in each: the interval is that of 40, sqrt(10) times as wide.
    values = (np.arange(400) < 120).astype(np.float64)[:, None]
    bootstrap = ImageBootstrap.draw(40, 4000, seed=0)
    low, high = bootstrap.means(values, np.repeat(np.arange(40), 10), np.zeros(400, np.int64)).interval
    assert (high - low).item() == pytest.approx(2 * 1.96 * math.sqrt(0.3 * 0.7 / 40), rel=0.06)


def test_the_same_value_everywhere_is_sure():
    resampled = ImageBootstrap.draw(3, 20, seed=0).means(
        np.full((4, 1), 0.25), np.array([0, 0, 1, 2]), np.array([1, 2, 1, 1])
    )
    assert [bound.item() for bound in resampled.interval] == [0.25, 0.25]


def test_a_resample_without_objects_is_left_out_of_the_interval():
    # One of two images has an object: a quarter of the resamples never draws it.
    resampled = ImageBootstrap.draw(2, 400, seed=0).means(np.ones((1, 1)), np.array([1]), np.array([0]))
    assert 0.15 < np.isnan(resampled.samples).mean() < 0.35
    assert resampled.to_json() == {"value": [1], "low": [1], "high": [1]}


def test_nothing_to_average_and_no_resamples():
    none = np.zeros(0, np.int64)
    for images, resamples in ((0, 5), (4, 5), (4, 0), (0, 0)):
        resampled = ImageBootstrap.draw(images, resamples, seed=0).means(np.zeros((0, 2)), none, none)
        assert resampled.samples.shape == (resamples, 2)
        assert resampled.to_json() == {"value": [None, None], "low": [None, None], "high": [None, None]}
    known = ImageBootstrap.draw(2, 0, seed=0).means(np.ones((2, 1)), np.array([0, 1]), np.array([0, 0]))
    assert known.to_json() == {"value": [1], "low": [None], "high": [None]}
    with pytest.raises(ValueError, match="resamples"):
        ImageBootstrap.draw(2, -1, seed=0)


def test_blocks_of_resamples_are_as_good_as_all_at_once(monkeypatch: pytest.MonkeyPatch):
    values, images, groups = np.random.default_rng(0).random((30, 3)), np.arange(30) // 3, np.arange(30) % 2
    bootstrap = ImageBootstrap.draw(10, 64, seed=0)
    at_once = bootstrap.means(values, images, groups)
    monkeypatch.setattr("detpipe.metrics.bootstrap._AT_ONCE", 50)
    assert bootstrap.means(values, images, groups).samples == pytest.approx(at_once.samples)


def test_columns():
    resampled = Resampled(np.arange(3.0), np.arange(6.0).reshape(2, 3))
    part = resampled.columns([2, 0])
    assert part.value.tolist() == [2, 0]
    assert part.samples.tolist() == [[2, 0], [5, 3]]
