"""Near-duplicates: by hand, beside the plain rule in integers, and beside torchvision's suppression."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detpipe.boxes import nms
from detpipe.proposals.selective_search.near_duplicates import duplicates_last
from tests.proposals.pictures import digits


def plain(boxes: np.ndarray, order: list[int]) -> list[int]:
    """Each box against every better one that stays, in integers: 5 x shared > 4 x union."""
    kept: list[int] = []
    behind: list[int] = []
    for this in order:
        x1, y1, x2, y2 = (int(v) for v in boxes[this])
        for other in kept:
            a1, b1, a2, b2 = (int(v) for v in boxes[other])
            shared = max(min(x2, a2) - max(x1, a1), 0) * max(min(y2, b2) - max(y1, b1), 0)
            union = (x2 - x1) * (y2 - y1) + (a2 - a1) * (b2 - b1) - shared
            if 5 * shared > 4 * union:
                behind.append(this)
                break
        else:
            kept.append(this)
    return kept + behind


def crowd(count: int, side: int, seed: int) -> np.ndarray:
    """Boxes around few centres, so that many almost repeat another."""
    raw = digits(4 * count, 256, seed).astype(int).reshape(count, 4)
    sides = 1 + raw[:, :2] % side
    corners = raw[:, 2:] % 7 + (raw[:, :1] % 3) * side // 2
    return np.concatenate([corners, corners + sides], axis=1).astype(np.int32)


def test_by_hand():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 8], [0, 0, 10, 9], [1, 0, 11, 9], [50, 0, 60, 10]], np.int32)
    # 8 / 10 is not more than 0.8, and 9 / 10 is; 81 / 109 is less.
    assert duplicates_last(boxes, np.arange(5)).tolist() == [0, 1, 3, 4, 2]
    # What was put behind puts nothing behind: of 2 and 1, whose IoU is 8 / 9, the better stays.
    assert duplicates_last(boxes, np.array([2, 1, 0])).tolist() == [2, 1, 0]
    assert duplicates_last(boxes, np.array([0, 2, 1])).tolist() == [0, 1, 2]
    assert duplicates_last(boxes, np.array([4, 3])).tolist() == [4, 3]


def test_of_none_and_of_one():
    assert duplicates_last(np.zeros((0, 4), np.int32), np.zeros(0, np.int64)).tolist() == []
    one = np.array([[3, 3, 4, 4]], np.int32)
    assert duplicates_last(one, np.zeros(0, np.int64)).tolist() == []
    assert duplicates_last(one, np.array([0])).tolist() == [0]


@pytest.mark.parametrize("side", [1, 3, 12, 60, 250])
@pytest.mark.parametrize("seed", range(4))
def test_as_by_the_plain_rule(side: int, seed: int):
    boxes = crowd(400, side, seed)
    order = np.argsort(digits(400, 256, seed + 100), kind="stable")[: 400 - 50 * seed]
    assert duplicates_last(boxes, order).tolist() == plain(boxes, order.tolist())


coordinates = st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(1, 60), st.integers(1, 60))


@given(st.lists(coordinates, max_size=40), st.integers(0, 32000))
def test_as_by_the_plain_rule_anywhere(corners: list[tuple[int, int, int, int]], far: int):
    boxes = np.array([[x + far, y, x + far + w, y + h] for x, y, w, h in corners], np.int32).reshape(-1, 4)
    order = np.arange(len(boxes))
    assert duplicates_last(boxes, order).tolist() == plain(boxes, order.tolist())


def test_large_sides():
    # Twice as wide as high is the limit of neither: long sides have wide cells.
    boxes = np.array([[0, 0, 32768, 100], [2000, 0, 32768, 100], [8000, 0, 32768, 100], [0, 0, 100, 32768]], np.int32)
    assert duplicates_last(boxes, np.arange(4)).tolist() == plain(boxes, [0, 1, 2, 3]) == [0, 2, 3, 1]


def test_those_that_stay_are_the_suppressions():
    boxes = crowd(600, 90, 9)
    order = np.arange(600)
    last = duplicates_last(boxes, order)
    kept = nms(boxes.astype(np.float32), np.arange(600, 0, -1, dtype=np.float32), 0.8)
    assert last[: len(kept)].tolist() == kept.tolist()
    assert sorted(last.tolist()) == list(range(600))
