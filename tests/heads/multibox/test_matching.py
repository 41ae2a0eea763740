"""Which prediction answers for which object: against brute force, and by hand."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from detpipe.heads.multibox.matching import BACKGROUND, IGNORED, bipartite, many_to_one, without

OVERLAPS = torch.tensor([[0.15, 0.45, 0.2, 0.6], [0.3, 0.65, 0.05, 0.1], [0.05, 0.4, 0.25, 0.4]])
"""Three objects, four priors: the matrix of detectron2's test_matcher."""


def least_sum(cost: npt.NDArray[np.int64]) -> int:
    """Over all ways in which each object of the shorter side has a prediction of its own."""
    few, many = sorted(cost.shape)
    rows = cost if cost.shape[0] == few else cost.T
    return min(
        sum(int(rows[row, column]) for row, column in enumerate(way))
        for way in itertools.permutations(range(many), few)
    )


@given(hnp.arrays(np.int64, st.tuples(st.integers(1, 4), st.integers(1, 5)), elements=st.integers(-9, 9)))
def test_bipartite_is_the_best_of_all_permutations(cost: npt.NDArray[np.int64]) -> None:
    match = bipartite(torch.from_numpy(cost)).numpy()
    matched = np.flatnonzero(match != BACKGROUND)
    assert match.shape == (cost.shape[1],)
    assert len(matched) == min(cost.shape)  # more objects than predictions leave some without
    assert len(set(match[matched].tolist())) == len(matched)
    assert cost[match[matched], matched].sum() == least_sum(cost)


def test_bipartite_by_hand() -> None:
    """The first prediction suits both objects best, but the second object has no other that is nearly as good."""
    cost = torch.tensor([[1.0, 2, 9], [1, 8, 9]])
    assert bipartite(cost).tolist() == [1, 0, BACKGROUND]


def test_the_dearest_objects_go_without() -> None:
    assert bipartite(torch.tensor([[5.0], [3], [4]])).tolist() == [1]


def test_bipartite_of_nothing() -> None:
    assert bipartite(torch.zeros(0, 3)).tolist() == [BACKGROUND] * 3
    for objects in (0, 2):
        match = bipartite(torch.zeros(objects, 0))
        assert match.shape == (0,)
        assert match.dtype == torch.int64


def test_a_cost_that_is_no_number() -> None:
    with pytest.raises(ValueError, match="invalid numeric entries"):
        bipartite(torch.tensor([[1.0, float("nan")]]))


def test_a_cost_with_gradients_is_matched() -> None:
    assert bipartite(torch.tensor([[2.0, 1.0]], requires_grad=True)).tolist() == [BACKGROUND, 0]


@pytest.mark.parametrize(
    ("at_least", "wanted"),
    [
        # Best overlaps are 0.3, 0.65, 0.25, 0.6: all are below 0.7, and only the third is below 0.3.
        (0, [IGNORED, IGNORED, BACKGROUND, IGNORED]),
        # The best priors of the objects are 3, 1, and 1 or 3, which others overlap more: the third one gets 2.
        (1, [IGNORED, 1, 2, 0]),
        # The second nearest: 1 (0.45 of the first object, less than 0.65 of the second) and 0.
        (2, [1, 1, 2, 0]),
        # All are claimed: each prior has its best object, as detectron2 has it.
        (4, [1, 1, 2, 0]),
        (9, [1, 1, 2, 0]),
    ],
)
def test_many_to_one_by_hand(at_least: int, wanted: list[int]) -> None:
    assert many_to_one(OVERLAPS, positive=0.7, negative=0.3, at_least=at_least).tolist() == wanted


def test_bounds_belong_to_the_upper_side() -> None:
    overlaps = torch.tensor([[0.5, 0.499, 0.4, 0.399]])
    assert many_to_one(overlaps, positive=0.5, negative=0.4, at_least=0).tolist() == [0, IGNORED, IGNORED, BACKGROUND]


def test_of_two_objects_that_claim_a_prior_the_nearer_one_has_it() -> None:
    overlaps = torch.tensor([[0.2, 0.0], [0.3, 0.0]])
    assert many_to_one(overlaps, positive=0.5, negative=0.4, at_least=1).tolist() == [1, BACKGROUND]


def test_an_object_gets_its_best_prior_even_if_that_overlaps_another_object_more() -> None:
    """Every prior overlaps the first object most, by `positive` or more."""
    overlaps = torch.tensor([[0.8, 0.9, 0.7], [0.6, 0.1, 0.2]])
    for at_least in (1, 2, 4):
        assert many_to_one(overlaps, positive=0.5, negative=0.4, at_least=at_least).tolist() == [1, 0, 0]
    assert many_to_one(overlaps, positive=0.5, negative=0.4, at_least=0).tolist() == [0, 0, 0]


def test_of_two_objects_with_the_same_best_prior_the_other_gets_its_next() -> None:
    """Both have the prior 0; the next of the first object is 1, and then 2."""
    overlaps = torch.tensor([[0.7, 0.6, 0.5, 0.0], [0.8, 0.1, 0.0, 0.0]])
    assert many_to_one(overlaps, positive=0.75, negative=0.4, at_least=1).tolist() == [1, 0, IGNORED, BACKGROUND]
    three = torch.tensor([[0.9, 0.8, 0.7], [0.9, 0.8, 0.7], [0.9, 0.8, 0.7]])  # equal: the lower number first
    assert many_to_one(three, positive=0.5, negative=0.4, at_least=1).tolist() == [0, 1, 2]


def test_more_objects_than_priors_leave_some_without() -> None:
    overlaps = torch.tensor([[0.6], [0.7], [0.5]])
    assert many_to_one(overlaps, positive=0.5, negative=0.4, at_least=1).tolist() == [1]


@given(hnp.arrays(np.float32, st.tuples(st.integers(1, 4), st.integers(4, 6)), elements=st.integers(1, 9)))
def test_every_object_has_a_prior_where_all_overlap(tenths: npt.NDArray[np.float32]) -> None:
    match = many_to_one(torch.from_numpy(tenths / 10), positive=0.5, negative=0.4, at_least=1)
    assert set(range(len(tenths))) <= set(match.tolist())


def test_a_further_claim_doesn_t_take_a_prior_from_the_object_that_it_is_near_enough_to() -> None:
    """The second object's best prior is 2; its next, 0, overlaps the first one by 0.8."""
    overlaps = torch.tensor([[0.8, 0.9, 0.1], [0.6, 0.1, 0.65]])
    assert many_to_one(overlaps, positive=0.5, negative=0.4, at_least=2).tolist() == [0, 0, 1]


def test_without_overlap_nothing_is_claimed() -> None:
    assert many_to_one(torch.zeros(2, 3), positive=0.5, negative=0.4, at_least=2).tolist() == [BACKGROUND] * 3
    one = torch.tensor([[0.0, 0.1, 0.0]])
    assert many_to_one(one, positive=0.5, negative=0.4, at_least=3).tolist() == [BACKGROUND, 0, BACKGROUND]


@pytest.mark.parametrize("shape", [(0, 3), (2, 0), (0, 0)])
def test_many_to_one_of_nothing(shape: tuple[int, int]) -> None:
    match = many_to_one(torch.zeros(shape), positive=0.5, negative=0.4, at_least=2)
    assert match.tolist() == [BACKGROUND] * shape[1]
    assert match.dtype == torch.int64


def test_without() -> None:
    match = torch.tensor([BACKGROUND, 0, IGNORED, BACKGROUND, 1])
    ignored = torch.tensor([True, True, True, False, False])
    assert without(match, ignored).tolist() == [IGNORED, 0, IGNORED, BACKGROUND, 1]
    assert without(match[:0], ignored[:0]).shape == (0,)
