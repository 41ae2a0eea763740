"""Edits of the objects of an image: what is there after them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detpipe.datasets.entry import RawObject
from detpipe.datasets.object_edits import ObjectEdit, decimal, edited_objects

CAT = RawObject("cat", (1, 2, 3, 4), area=2.0, written=(1, 2, 2, 2), id="7")
DOG = RawObject("dog", (5, 6, 9, 9), difficult=True)


def test_no_edits_give_the_same_objects_and_none_give_none() -> None:
    assert edited_objects([CAT, DOG], []) == [CAT, DOG]
    assert edited_objects([], []) == []


def test_changed_ones_stay_in_place_and_added_ones_come_last() -> None:
    edits = [
        ObjectEdit(name="cow", box=(0, 0, 5, 5)),
        ObjectEdit(index=1, box=(5, 6, 8, 8)),
        ObjectEdit(index=0, name="dog"),
    ]
    after = edited_objects([CAT, DOG], edits)
    assert after == [
        RawObject("dog", (1, 2, 3, 4), area=2.0, written=(1, 2, 2, 2), id="7"),
        RawObject("dog", (5, 6, 8, 8), difficult=True),
        RawObject("cow", (0, 0, 5, 5)),
    ]


def test_a_removed_one_is_gone_and_a_new_box_has_no_old_area() -> None:
    edits = [ObjectEdit(index=1, is_removed=True), ObjectEdit(index=0, box=(0, 0, 9, 9))]
    assert edited_objects([CAT, DOG], edits) == [RawObject("cat", (0, 0, 9, 9), id="7")]


def test_an_added_object_needs_name_and_box() -> None:
    with pytest.raises(ValueError, match="name and a box"):
        ObjectEdit(name="cat")


@given(st.floats(0, 1e5, width=32))
def test_the_short_decimal_is_the_same_number_in_float32(value: float) -> None:
    assert np.float32(decimal(value)) == np.float32(value)
    assert decimal(decimal(value)) == decimal(value)


def test_the_short_decimal_has_the_digits_that_a_person_wrote() -> None:
    assert decimal(float(np.float32(10.13))) == 10.13
