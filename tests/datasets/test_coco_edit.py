"""Edits in COCO files: the annotations after them, and all other text as it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detpipe.datasets.coco import CocoFileError
from detpipe.datasets.coco_edit import edited_coco_file
from detpipe.datasets.object_edits import ObjectEdit
from detpipe.structures import ImageId

FILE = Path("a.json")
FULL = b"""{"info": {"version": 1.50},
 "annotations": [
  {"id": 5, "image_id": 1, "category_id": 7, "bbox": [1.50, 2, 10, 20], "area": 1e2,
   "segmentation": [[1, 2, 3, 4, 5, 6]], "iscrowd": 0, "mine": {"a": 1}},
  {"id": 9, "image_id": 2, "category_id": 3, "bbox": [0, 0, 4, 4]},
  {"id": 7, "image_id": 1, "category_id": 3, "iscrowd": 1},
  {"id": 6, "image_id": 1, "category_id": 3, "bbox": [30.0, 40, 5, 6], "iscrowd": 0}
 ],
 "images": [{"id": 1, "file_name": "a.jpg"}, {"id": 2.0, "file_name": "b.jpg"}, {"id": 3, "file_name": "c.jpg"}],
 "categories": [{"id": 7, "name": "cat", "supercategory": "pet"}, {"id": 3, "name": "dog", "supercategory": "pet"}],
 "licenses": []}
"""
IDS = {"cat": 7, "dog": 3, "cow": 1}


def edit(data: bytes, edits: dict[ImageId, list[ObjectEdit]]) -> bytes:
    return edited_coco_file(data, FILE, edits, IDS)


def rows(data: bytes) -> dict[int, dict[str, Any]]:
    return {one["id"]: one for one in json.loads(data)["annotations"]}


def test_no_edits_give_the_same_bytes() -> None:
    assert edit(FULL, {}) == edit(FULL, {1: []}) == FULL


def test_a_changed_class_keeps_id_outline_and_unknown_fields() -> None:
    after = edit(FULL, {1: [ObjectEdit(index=0, name="dog")]})
    assert rows(after)[5] == {**rows(FULL)[5], "category_id": 3}
    # All other lines are the same, to the byte.
    start, end = FULL.index(b'{"id": 5'), FULL.index(b',\n  {"id": 9')
    assert after == FULL[:start] + json.dumps(rows(after)[5]).encode() + FULL[end:]


def test_a_changed_box_changes_the_area_and_drops_the_outline() -> None:
    after = rows(edit(FULL, {1: [ObjectEdit(index=0, box=(1.5, 2, 11.5, 12))]}))
    assert after[5] == {**rows(FULL)[5], "bbox": [1.5, 2, 10, 10], "area": 100, "segmentation": []}
    # The second object of the image is the third annotation, because the one before has no box.
    after = rows(edit(FULL, {1: [ObjectEdit(index=1, box=(0, 0, 2, 3))]}))
    assert after[6] == {"id": 6, "image_id": 1, "category_id": 3, "bbox": [0, 0, 2, 3], "iscrowd": 0, "area": 6}


def test_a_changed_box_is_no_longer_rotated() -> None:
    data = FULL.replace(b'"mine": {"a": 1}', b'"attributes": {"occluded": false, "rotation": 30.0}')
    new = {**rows(data)[5], "category_id": 3}
    assert rows(edit(data, {1: [ObjectEdit(index=0, name="dog")]}))[5] == new
    after = rows(edit(data, {1: [ObjectEdit(index=0, box=(1, 2, 4, 6))]}))[5]
    assert (after["bbox"], after["attributes"]) == ([1, 2, 3, 4], {"occluded": False, "rotation": 0.0})


def test_added_ones_have_new_ids_and_the_id_of_their_image_as_it_is_written() -> None:
    edits: dict[ImageId, list[ObjectEdit]] = {
        2: [ObjectEdit(name="cat", box=(1, 2, 3.5, 4))],
        3: [ObjectEdit(name="cow", box=(0, 0, 9, 9))],
    }
    after = edit(FULL, edits)
    assert list(rows(after)) == [5, 9, 7, 6, 10, 11]
    wanted = {"id": 10, "image_id": 2.0, "category_id": 7, "bbox": [1, 2, 2.5, 2], "area": 5}
    assert rows(after)[10] == {**wanted, "iscrowd": 0, "segmentation": []}
    assert rows(after)[11]["category_id"] == 1
    categories = json.loads(after)["categories"]
    assert categories[2] == {"id": 1, "name": "cow", "supercategory": "cow"}
    assert FULL[: FULL.index(b"\n ],\n")] in after


def test_removing_what_was_added_gives_the_bytes_back() -> None:
    added = edit(FULL, {3: [ObjectEdit(name="cat", box=(1, 2, 3, 4))]})
    assert edit(added, {3: [ObjectEdit(index=0, is_removed=True)]}) == FULL


@pytest.mark.parametrize("empty", ["[]", "null", "[ ]"])
def test_the_first_annotation_of_a_file_can_be_added_and_the_last_removed(empty: str) -> None:
    text = '{"images": [{"id": "x", "file_name": "a.jpg"}], "annotations": EMPTY, "categories": []}'.replace(
        "EMPTY", empty
    )
    added = edit(text.encode(), {"x": [ObjectEdit(name="cow", box=(0, 0, 2, 2))]})
    assert [one["image_id"] for one in json.loads(added)["annotations"]] == ["x"]
    assert json.loads(added)["categories"] == [{"id": 1, "name": "cow"}]
    removed = edit(added, {"x": [ObjectEdit(index=0, is_removed=True)]})
    assert json.loads(removed)["annotations"] == []


def test_any_annotations_can_be_removed_together() -> None:
    edits: dict[ImageId, list[ObjectEdit]] = {
        1: [ObjectEdit(index=0, is_removed=True), ObjectEdit(index=1, is_removed=True)],
        2: [ObjectEdit(index=0, is_removed=True)],
    }
    assert list(rows(edit(FULL, edits))) == [7]


@pytest.mark.parametrize("codec", ["utf-8-sig", "utf-16-le", "utf-32"])
def test_the_encoding_stays(codec: str) -> None:
    data = FULL.decode().replace('"mine"', '"猫"').encode(codec)
    after = edit(data, {2: [ObjectEdit(index=0, name="cat")]})
    assert json.loads(after.decode(codec).removeprefix("\ufeff"))["annotations"][1]["category_id"] == 7
    assert edit(after, {2: [ObjectEdit(index=0, name="dog")]}) == data


@pytest.mark.parametrize("data", [b"[]", b"{", b'{"images": [1}', b'{"images": []}'])
def test_a_file_that_is_another_by_now_is_named(data: bytes) -> None:
    with pytest.raises(CocoFileError, match=r"a\.json"):
        edit(data, {1: [ObjectEdit(index=0, is_removed=True)]})


NUMBERS = st.floats(0, 4000, width=32, allow_subnormal=False).filter(lambda value: value == 0 or value > 1e-3)


@given(NUMBERS, NUMBERS, st.floats(0.5, 4000, width=32), st.floats(0.5, 4000, width=32))
def test_a_change_and_its_inverse_give_the_same_corners(x: float, y: float, width: float, height: float) -> None:
    box = tuple(map(float, np.float32([x, y, x + width, y + height])))
    changed = edit(FULL, {1: [ObjectEdit(index=0, box=box, name="dog")]})  # type: ignore[arg-type]
    x, y, width, height = rows(changed)[5]["bbox"]
    assert np.array_equal(np.float32([x, y, x + width, y + height]), np.float32(box))
    old = rows(FULL)[5]["bbox"]
    corners = tuple(map(float, np.float32([old[0], old[1], old[0] + old[2], old[1] + old[3]])))
    back = rows(edit(changed, {1: [ObjectEdit(index=0, box=corners, name="cat")]}))  # type: ignore[arg-type]
    assert back[5] == {**rows(FULL)[5], "area": 200, "segmentation": []}
    assert {key: row for key, row in back.items() if key != 5} == {k: r for k, r in rows(FULL).items() if k != 5}
