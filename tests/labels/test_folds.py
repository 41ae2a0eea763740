"""Folds of images: each class is spread, copies stay together."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detpipe.labels.folds import split_folds


def test_each_fold_gets_its_share_of_every_class() -> None:
    counts = np.array([[1, 0]] * 10 + [[0, 2]] * 5)
    folds = split_folds(counts, range(15), 5, 0)
    for fold in range(5):
        assert counts[folds == fold].sum(axis=0).tolist() == [2, 2]


def test_images_of_one_group_are_in_one_fold() -> None:
    groups = ["a", "b", "a", "c", "b", "d"]
    folds = split_folds(np.ones((6, 1), dtype=np.int64), groups, 3, 0)
    assert folds[0] == folds[2]
    assert folds[1] == folds[4]
    assert len(set(folds.tolist())) == 3


def test_a_class_with_fewer_images_than_folds_is_in_different_folds() -> None:
    counts = np.zeros((20, 2), dtype=np.int64)
    counts[:, 0] = 1
    counts[[3, 8], 1] = 1
    folds = split_folds(counts, range(20), 5, 0)
    assert folds[3] != folds[8]
    assert sorted(np.bincount(folds)) == [4, 4, 4, 4, 4]


def test_no_images_and_one_image() -> None:
    assert split_folds(np.zeros((0, 2), dtype=np.int64), [], 5, 0).tolist() == []
    assert split_folds(np.ones((1, 2), dtype=np.int64), ["a"], 5, 0).tolist() == [0]


def test_less_than_two_folds_are_refused() -> None:
    with pytest.raises(ValueError, match="folds"):
        split_folds(np.ones((3, 1), dtype=np.int64), range(3), 1, 0)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 8)), max_size=30), st.integers(2, 6))
def test_it_is_a_function_of_its_arguments_and_groups_are_whole(images: list[tuple[int, int, int]], folds: int) -> None:
    counts = np.array([image[:2] for image in images], dtype=np.int64).reshape(-1, 2)
    groups = [image[2] for image in images]
    found = split_folds(counts, groups, folds, 7)
    assert found.tolist() == split_folds(counts, groups, folds, 7).tolist()
    assert all(0 <= fold < folds for fold in found)
    assert len({(group, fold) for group, fold in zip(groups, found.tolist(), strict=True)}) == len(set(groups))
