"""Edits in VOC files: the objects after them, and all other bytes as they were."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detpipe.datasets.entry import RawObject
from detpipe.datasets.object_edits import ObjectEdit, edited_objects
from detpipe.datasets.voc_edit import edited_voc_annotation
from detpipe.datasets.voc_xml import BrokenAnnotationError, parse_voc_annotation

FILE = Path("a.xml")
FULL = b"""<?xml version="1.0" encoding="UTF-8"?>
<!-- by hand -->
<annotation verified="yes">
    <folder>x</folder>
    <owner flickrid='a>b'><name>cat</name></owner>
    <object>
        <name>cat</name>
        <pose>Left</pose>
        <bndbox>
            <ymin>3</ymin><xmin>2</xmin>
            <xmax>12.5</xmax>
            <ymax>13</ymax>
        </bndbox>
        <part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>
    </object>
    <object><name>dog</name></object>
    <object kept="1">
        <name> dog </name>
        <difficult>1</difficult>
        <bndbox><xmin>5</xmin><ymin>6</ymin><xmax>7</xmax><ymax>9</ymax></bndbox>
        <attributes><attribute/></attributes>
    </object>
    <segmented>0</segmented>
</annotation>
"""


def edit(data: bytes, *edits: ObjectEdit, encoding: str | None = None) -> bytes:
    return edited_voc_annotation(data, FILE, edits, encoding)


def objects(data: bytes) -> tuple[RawObject, ...]:
    return parse_voc_annotation(data, FILE).objects


def test_a_new_box_is_no_longer_rotated() -> None:
    rotation = b"<attribute><name>rotation</name><value>30.0</value></attribute>"
    data = FULL.replace(b"<attribute/>", b"<attribute><name>age</name><value>3</value></attribute>" + rotation)
    after = edit(data, ObjectEdit(index=1, box=(1, 2, 9, 12)))
    assert objects(after)[1].box == (1, 2, 9, 12)
    assert after.count(b"<value>3</value>") == after.count(b"<name>rotation</name><value>0.0</value>") == 1


def test_no_edits_give_the_same_bytes() -> None:
    assert edit(FULL) == FULL


def test_a_new_name_changes_these_letters_alone() -> None:
    # The second object has no box, so it is none, and the third is object 1.
    assert edit(FULL, ObjectEdit(index=1, name="cow & co")) == FULL.replace(
        b"<name> dog </name>", b"<name>cow &amp; co</name>"
    )


def test_a_new_box_changes_the_four_numbers_alone() -> None:
    after = edit(FULL, ObjectEdit(index=0, box=(4, 5, 30.25, 40)))
    assert after == FULL.replace(b"<ymin>3</ymin><xmin>2</xmin>", b"<ymin>6</ymin><xmin>5</xmin>").replace(
        b"<xmax>12.5</xmax>", b"<xmax>30.25</xmax>"
    ).replace(b"<ymax>13</ymax>", b"<ymax>40</ymax>")


def test_a_removed_object_goes_with_its_white_space() -> None:
    after = edit(FULL, ObjectEdit(index=0, is_removed=True))
    start, end = FULL.index(b"\n    <object>"), FULL.index(b"\n    <object><name>dog")
    assert after == FULL[:start] + FULL[end:]


def test_an_added_object_stands_behind_the_others_and_is_indented_as_they_are() -> None:
    after = edit(FULL, ObjectEdit(name="cat", box=(0, 0, 10, 20)))
    added = b"""
    <object>
        <name>cat</name>
        <pose>Unspecified</pose>
        <truncated>0</truncated>
        <difficult>0</difficult>
        <bndbox>
            <xmin>1</xmin>
            <ymin>1</ymin>
            <xmax>10</xmax>
            <ymax>20</ymax>
        </bndbox>
    </object>"""
    place = FULL.index(b"\n    <segmented>")
    assert after == FULL[:place] + added + FULL[place:]


@pytest.mark.parametrize(
    "data",
    [
        b"<annotation></annotation>",
        b"<annotation>\r\n\t<filename>a</filename>\r\n</annotation>",
        b"<annotation>\n<filename>a</filename>\n</annotation>",
        b"<annotation><object><name>a</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
        b"</object></annotation>",
    ],
)
def test_adding_to_any_file_and_removing_gives_its_bytes_back(data: bytes) -> None:
    before = objects(data)
    after = edit(data, ObjectEdit(name="cat", box=(0, 0, 5, 5)))
    assert objects(after) == (*before, RawObject("cat", (0, 0, 5, 5)))
    assert edit(after, ObjectEdit(index=len(before), is_removed=True)) == data


def test_an_empty_element_is_opened_for_an_object() -> None:
    after = edit(b"<annotation a='/>' />", ObjectEdit(name="cat", box=(0, 0, 5, 5)))
    assert objects(after) == (RawObject("cat", (0, 0, 5, 5)),)
    assert edit(after, ObjectEdit(index=0, is_removed=True)) == b"<annotation a='/>' ></annotation>"


def test_an_outline_goes_when_the_box_changes_and_stays_when_the_class_changes() -> None:
    outline = b"<polygon><pt><x>1</x><y>2</y></pt><pt><x>9</x><y>9</y></pt></polygon>"
    data = b"<annotation><object><name>a</name><deleted>0</deleted>" + outline + b"</object></annotation>"
    assert edit(data, ObjectEdit(index=0, name="b")) == data.replace(b"<name>a", b"<name>b")
    after = edit(data, ObjectEdit(index=0, box=(1, 1, 4, 5)))
    assert objects(after) == (RawObject("a", (1, 1, 4, 5)),)
    assert b"polygon" not in after
    assert b"<deleted>0</deleted>" in after


def test_objects_that_were_deleted_are_not_counted() -> None:
    gone = b"<object><name>x</name><deleted>1</deleted><polygon><x1>1</x1><y1>1</y1></polygon></object>"
    one = b"<object><name>a</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object>"
    data = b"<annotation>" + gone + one + b"</annotation>"
    assert edit(data, ObjectEdit(index=0, is_removed=True)) == b"<annotation>" + gone + b"</annotation>"


@pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig", "utf-16", "gb18030", "cp932", "latin-1"])
@pytest.mark.parametrize("name", ["猫", "é", "cat"])
def test_the_encoding_stays(codec: str, name: str) -> None:
    declared = {"utf-8-sig": "UTF-8", "cp932": "Shift_JIS"}.get(codec, codec)
    text = f'<?xml version="1.0" encoding="{declared}"?>' + FULL.decode().partition("?>")[2]
    data = text.encode(codec)
    after = edit(data, ObjectEdit(index=0, name=name))
    assert objects(after)[0].name == name
    assert after.startswith(data[:50])
    assert edit(after, ObjectEdit(index=0, name="cat")) == data


def test_in_a_file_of_unknown_encoding_other_letters_are_references() -> None:
    data = FULL.replace(b"by hand", b"\x81\x40\xff")
    assert edit(data, ObjectEdit(index=0, name="猫")) == data.replace(b"<name>cat</name>\n", b"<name>&#29483;</name>\n")


def test_entities_are_refused() -> None:
    with pytest.raises(BrokenAnnotationError, match="entities"):
        edit(b'<!DOCTYPE x [<!ENTITY a "b">]>' + FULL, ObjectEdit(index=0, name="x"))


def test_a_box_that_voc_can_not_express_is_refused_with_the_file() -> None:
    with pytest.raises(ValueError, match=r"a\.xml: .*higher than 1 pixel"):
        edit(FULL, ObjectEdit(index=0, box=(1, 1, 5, 2)))


SIDES = st.floats(0, 5000, width=32, allow_subnormal=False).filter(lambda value: value == 0 or value > 1e-3)
NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zs", "Zl", "Zp", "Cn", "Co"]), min_size=1)


@st.composite
def boxes(draw: st.DrawFn) -> tuple[float, float, float, float]:
    x1, y1 = draw(SIDES), draw(SIDES)
    width, height = (draw(st.floats(1.5, 5000, width=32)) for _ in range(2))
    box = np.float32([x1, y1, x1 + width, y1 + height])
    return tuple(map(float, box))  # type: ignore[return-value]


@given(boxes(), NAMES)
def test_the_reader_finds_what_was_written(box: tuple[float, float, float, float], name: str) -> None:
    some = [ObjectEdit(index=0, name=name, box=box), ObjectEdit(name=name, box=box)]
    found = objects(edit(FULL, *some))
    wanted = edited_objects(objects(FULL), some)
    assert [one.name for one in found] == [one.name for one in wanted]
    assert np.array_equal(np.float32([one.box for one in found]), np.float32([one.box for one in wanted]))


@given(boxes(), NAMES, st.integers(0, 1))
def test_a_change_and_its_inverse_give_the_objects_back(
    box: tuple[float, float, float, float], name: str, index: int
) -> None:
    before = objects(FULL)
    changed = edit(FULL, ObjectEdit(index=index, name=name, box=box))
    assert objects(changed)[1 - index] == before[1 - index]
    back = edit(changed, ObjectEdit(index=index, name=before[index].name, box=before[index].box))
    assert objects(back) == before
