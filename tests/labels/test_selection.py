"""Selection: k-centre and the mixing of criteria, on points whose answer can be seen."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detpipe.labels.selection import (
    Centres,
    Criterion,
    SelectionShares,
    comparable,
    nearest_distances,
    select,
    shares_below,
)

ALL = np.ones(5, dtype=np.bool_)


def line(*x: float) -> np.ndarray:
    return np.array(x, dtype=np.float32)[:, None]


def scores(uncertain: list[float], disagreement: list[float]) -> dict[Criterion, np.ndarray]:
    return {Criterion.uncertain: np.array(uncertain), Criterion.disagreement: np.array(disagreement)}


def only(name: str) -> SelectionShares:
    return SelectionShares(**{**dict.fromkeys(("uncertain", "disagreement", "different", "random"), 0.0), name: 1.0})


def test_k_centre_takes_the_farthest_first() -> None:
    """Labelled at 0; candidates at 1, 4, 10, 9, 5: the farthest is 10, then 5 (5 from both), then 1 and 4 tie at 1."""
    centres = Centres(line(1, 4, 10, 9, 5), line(0))
    taken = centres.take(3, ALL, Criterion.different)
    assert [(one.index, one.distance) for one in taken] == [(2, 10), (4, 5), (0, 1)]


def test_k_centre_without_labelled_images_starts_with_the_first() -> None:
    taken = Centres(line(3, 4, 10), line()[:0]).take(9, ALL[:3], Criterion.different)
    assert [one.index for one in taken] == [0, 2, 1]
    assert taken[0].distance == np.inf


def test_near_duplicates_are_not_both_chosen() -> None:
    """The two best are twins; the third is as good as nothing, but elsewhere."""
    found = select(
        scores([0.9, 0.89, 0.1, 0.0], [0.0] * 4),
        line(1, 1.001, 5, 9),
        line(0),
        count=2,
        shares=only("uncertain"),
        generator=np.random.default_rng(0),
    )
    assert sorted(one.index for one in found) in ([0, 2], [1, 2])


def test_what_a_criterion_can_not_fill_is_taken_by_difference() -> None:
    found = select(
        scores([0.0, 0.5, 0.0], [0.0] * 3),
        line(1, 2, 8),
        line(0),
        count=2,
        shares=only("uncertain"),
        generator=np.random.default_rng(0),
    )
    assert {one.index: one.criterion for one in found} == {1: Criterion.uncertain, 2: Criterion.different}


def test_the_control_is_a_random_sample_whatever_the_scores() -> None:
    """Each of 10 candidates is drawn in about half of the cases when half are drawn."""
    counts = np.zeros(10)
    generator = np.random.default_rng(0)
    for _ in range(400):
        found = select(
            scores([1.0] + [0.0] * 9, [0.0] * 10),
            line(*range(10)),
            line(0),
            count=10,
            shares=SelectionShares(uncertain=0.1, disagreement=0.1, different=0.3, random=0.5),
            generator=generator,
        )
        control = [one.index for one in found if one.criterion is Criterion.random]
        assert len(control) == 5
        counts[control] += 1
    assert counts.min() > 160
    assert counts.max() < 240


@given(st.integers(0, 30), st.integers(1, 40), st.integers(0, 100))
def test_everything_is_chosen_once_and_no_more_than_asked(candidates: int, count: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    features = generator.normal(size=(candidates, 3)).astype(np.float32)
    values = [generator.random(candidates) * (generator.random(candidates) < 0.5) for _ in range(2)]
    of = dict(zip((Criterion.uncertain, Criterion.disagreement), values, strict=True))
    labelled = features[:0]
    chosen = select(of, features, labelled, count=count, shares=SelectionShares(), generator=generator)
    indices = [one.index for one in chosen]
    assert len(set(indices)) == len(indices) == min(count, candidates)
    wanted = SelectionShares().numbers(min(count, candidates))
    assert sum(one.criterion is Criterion.random for one in chosen) == wanted[Criterion.random]


def test_the_same_seed_gives_the_same_choice() -> None:
    features = np.random.default_rng(1).normal(size=(30, 4)).astype(np.float32)
    values = np.random.default_rng(2).random(30)
    of = {Criterion.uncertain: values, Criterion.disagreement: values[::-1].copy()}
    first, second = (
        select(of, features, features[:0], count=9, shares=SelectionShares(), generator=np.random.default_rng(3))
        for _ in range(2)
    )
    assert first == second


def test_numbers_by_share() -> None:
    assert list(SelectionShares().numbers(20).values()) == [6, 4, 6, 4]
    assert list(SelectionShares().numbers(1).values()) == [1, 0, 0, 0]
    assert list(SelectionShares(uncertain=2, disagreement=0, different=1, random=1).numbers(4).values()) == [2, 0, 1, 1]
    assert sum(SelectionShares().numbers(0).values()) == 0
    for wrong in ({"random": -0.1}, dict.fromkeys(("uncertain", "disagreement", "different", "random"), 0.0)):
        with pytest.raises(ValueError, match="shares"):
            SelectionShares(**wrong)


def test_the_first_images_have_the_shares_of_all() -> None:
    generator = np.random.default_rng(0)
    features = generator.normal(size=(100, 3)).astype(np.float32)
    of = {Criterion.uncertain: generator.random(100), Criterion.disagreement: generator.random(100)}
    chosen = select(of, features, features[:0], count=20, shares=SelectionShares(), generator=generator)
    first = [one.criterion for one in chosen[:10]]
    assert [first.count(one) for one in Criterion] == [3, 2, 3, 2]


def test_comparable_features() -> None:
    labelled, new = comparable(np.array([[0, 7], [2, 7]], np.float32), np.array([[4, 7]], np.float32))
    assert labelled.tolist() == [[-1, 0], [0, 0]]  # a constant column counts for nothing
    assert new.tolist() == [[1, 0]]
    empty = np.zeros((0, 2), np.float32)
    assert [part.shape for part in comparable(empty, empty)] == [(0, 2), (0, 2)]


def test_distances_and_shares() -> None:
    assert nearest_distances(line(1, 4), line(0, 5)).tolist() == [1, 1]
    assert nearest_distances(line(1), line()[:0]).tolist() == [np.inf]
    assert shares_below(np.array([3.0, 1.0, 3.0, 2.0])).tolist() == [0.5, 0, 0.5, 0.25]
    assert shares_below(np.zeros(0)).tolist() == []
