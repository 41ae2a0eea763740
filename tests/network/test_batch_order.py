"""The order of examples: fixed shares, whole passes, and nothing but (seed, batch) in it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detpipe.network.batch_order import BalancedOrder, evenly_spread


def order(
    n_foreground: int, n_background: int, *, batch: int = 16, share: float = 0.25, seed: int = 0
) -> BalancedOrder:
    labels = np.random.default_rng(9).permutation(
        np.concatenate([np.arange(1, n_foreground + 1), np.zeros(n_background, dtype=np.int64)])
    )
    balanced = BalancedOrder(labels.astype(np.int64), batch_size=batch, fg_share=share, seed=seed)
    balanced.labels = labels  # type: ignore[attr-defined]
    return balanced


@given(st.integers(1, 50), st.integers(1, 50), st.integers(1, 40), st.floats(0, 0.99), st.integers(0, 5))
def test_shares_are_fixed_and_foreground_comes_first(fg: int, bg: int, batch: int, share: float, number: int) -> None:
    balanced = order(fg, bg, batch=batch, share=share)
    places = balanced(number)
    labels = balanced.labels[places]  # type: ignore[attr-defined]
    assert places.dtype == np.int64
    assert len(places) == batch
    n_foreground = round(batch * share)
    assert (labels[:n_foreground] > 0).all()
    assert (labels[n_foreground:] == 0).all()


@pytest.mark.parametrize(("fg", "bg"), [(7, 40), (100, 100), (1, 3)])
def test_a_pass_takes_every_example_once(fg: int, bg: int) -> None:
    balanced = order(fg, bg)
    labels = balanced.labels  # type: ignore[attr-defined]
    taken = np.concatenate([balanced(number) for number in range(max(fg, bg))])
    foreground, background = taken[labels[taken] > 0], taken[labels[taken] == 0]
    for stream, count in ((foreground, fg), (background, bg)):
        for begin in range(0, len(stream) - count, count):
            assert len(set(stream[begin : begin + count].tolist())) == count


def test_passes_have_orders_of_their_own() -> None:
    balanced = order(40, 120)
    epoch = [np.concatenate([balanced(number)[:4] for number in range(10 * k, 10 * k + 10)]) for k in (0, 1)]
    assert sorted(epoch[0]) == sorted(epoch[1])
    assert epoch[0].tolist() != epoch[1].tolist()


@given(st.lists(st.integers(0, 300), max_size=12), st.integers(1, 30), st.integers(1, 30))
def test_a_batch_depends_on_its_number_alone(before: list[int], fg: int, bg: int) -> None:
    balanced = order(fg, bg)
    for number in before:
        balanced(number)
    np.testing.assert_array_equal(balanced(123), order(fg, bg)(123))


def test_another_seed_is_another_order() -> None:
    assert order(40, 40, seed=1)(0).tolist() != order(40, 40, seed=2)(0).tolist()


@pytest.mark.parametrize(("fg", "bg"), [(0, 30), (30, 0)])
def test_a_missing_kind_leaves_its_place_to_the_other(fg: int, bg: int) -> None:
    places = order(fg, bg)(3)
    assert len(places) == 16
    assert set(places.tolist()) <= set(range(30))


def test_batches_larger_than_the_data() -> None:
    balanced = order(1, 2, batch=64)
    places = balanced(5)
    assert len(places) == 64
    labels = balanced.labels  # type: ignore[attr-defined]
    assert sorted(np.bincount(places, minlength=3).tolist()) == [16, 24, 24]
    assert np.count_nonzero(labels[places]) == 16


def test_the_passes_that_are_kept_are_few() -> None:
    balanced = order(30, 30)
    for number in range(200):
        balanced(number)
    assert len(balanced._passes) <= 4


def test_no_examples() -> None:
    with pytest.raises(ValueError, match="has the training set no objects"):
        BalancedOrder(np.zeros(0, dtype=np.int64), batch_size=4, fg_share=0.25, seed=0)


def test_threads_may_ask_at_the_same_time() -> None:
    """Passes so short that a thread drops what another has just made."""
    wanted = [order(2, 3)(batch).tolist() for batch in range(200)]
    shared = order(2, 3)
    with ThreadPoolExecutor(8) as threads:
        assert [places.tolist() for places in threads.map(shared, range(200))] == wanted


def test_evenly_spread_has_both_ends_and_no_place_twice() -> None:
    assert evenly_spread(11, 3).tolist() == [0, 5, 10]
    assert evenly_spread(2, 32).tolist() == [0, 1]
    assert evenly_spread(0, 32).tolist() == []
