"""Two methods on the same images."""

from __future__ import annotations

import math

import numpy as np
import pytest

from detpipe.metrics.bootstrap import ImageBootstrap, Resampled
from detpipe.metrics.paired_difference import paired_difference


def of(*samples: float, value: float) -> Resampled:
    return Resampled(np.array([value], np.float64), np.array(samples, np.float64)[:, None])


def test_by_hand():
    first, second = of(5, 4, 3, 2, value=3), of(1, 1, 1, 3, value=1)
    compared = paired_difference(first, second)  # 4, 3, 2, -1
    assert compared.difference.value.tolist() == [2]
    assert compared.difference.samples[:, 0].tolist() == [4, 3, 2, -1]
    assert compared.same_sign.tolist() == [3 / 4]
    assert compared.p.tolist() == [2 * (1 + 1) / (4 + 1)]
    back = paired_difference(second, first)
    assert back.same_sign.tolist() == [3 / 4]
    assert back.p.tolist() == compared.p.tolist()
    assert back.to_json()["low"] == [-number for number in compared.to_json()["high"]]


def test_equal_methods_do_not_differ_at_all():
    generator = np.random.default_rng(0)
    values, images = generator.random((40, 2)), np.sort(generator.integers(0, 15, 40))
    bootstrap = ImageBootstrap.draw(15, 200, seed=3)
    groups = generator.integers(0, 3, 40)
    one, same = (bootstrap.means(values.copy(), images, groups) for _ in range(2))
    compared = paired_difference(one, same)
    assert compared.to_json() == {
        "difference": [0, 0], "low": [0, 0], "high": [0, 0], "same_sign": [1, 1], "p": [1, 1]
    }  # fmt: skip


def test_pairs_see_what_two_intervals_do_not():
    # Hard and easy images make both intervals wide; the second method is worse by 0.02 on each of them.
    hard = np.random.default_rng(0).random(100)[:, None]
    bootstrap = ImageBootstrap.draw(100, 500, seed=0)
    images, groups = np.arange(100), np.zeros(100, np.int64)
    first, second = bootstrap.means(hard, images, groups), bootstrap.means(hard - 0.02, images, groups)
    assert first.interval[0].item() < second.interval[1].item()
    compared = paired_difference(first, second)
    low, high = (bound.item() for bound in compared.difference.interval)
    assert low == pytest.approx(0.02)
    assert high == pytest.approx(0.02)
    assert compared.same_sign.tolist() == [1]
    assert compared.p.item() == pytest.approx(2 / 501)


def test_the_interval_of_a_difference_is_the_normal_one():
    # Differences of the images +1 (60 of 200) or 0: mean 0.3, standard error sqrt(0.3 x 0.7 / 200).
    images, groups = np.arange(200), np.zeros(200, np.int64)
    bootstrap = ImageBootstrap.draw(200, 4000, seed=1)
    first = bootstrap.means((np.arange(200) < 160).astype(np.float64)[:, None], images, groups)
    second = bootstrap.means((np.arange(200) < 100).astype(np.float64)[:, None], images, groups)
    low, high = (bound.item() for bound in paired_difference(first, second).difference.interval)
    half = 1.96 * math.sqrt(0.3 * 0.7 / 200)
    assert low == pytest.approx(0.3 - half, abs=0.006)
    assert high == pytest.approx(0.3 + half, abs=0.006)


def test_of_nothing():
    for samples in (np.zeros((0, 1)), np.full((3, 1), np.nan)):
        nothing = Resampled(np.array([np.nan]), samples)
        assert paired_difference(nothing, nothing).to_json() == {
            name: [None] for name in ("difference", "low", "high", "same_sign", "p")
        }


def test_what_is_refused():
    with pytest.raises(ValueError, match=r"one bootstrap.*\(1, 1\) and \(2, 1\)"):
        paired_difference(of(1, value=1), of(1, 2, value=1))
