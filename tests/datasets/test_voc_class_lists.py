"""VOC's lists of one class: flags by the objects, and the lines around them."""

from __future__ import annotations

from detpipe.datasets.entry import RawObject
from detpipe.datasets.voc_class_lists import class_flag, with_flags


def test_flags() -> None:
    cat, hard = RawObject("cat", (0, 0, 2, 2)), RawObject("cat", (0, 0, 2, 2), difficult=True)
    assert [class_flag(objects, "cat") for objects in ([], [RawObject("dog", (0, 0, 1, 1))], [hard], [hard, cat])] == [
        -1,
        -1,
        0,
        1,
    ]


def test_only_the_flags_of_named_images_change_and_columns_stay() -> None:
    data = b"a b -1\nc  1\r\n\nd\t0 \ne -1"
    assert with_flags(data, {"a b": 1, "c": -1, "d": 1, "x": 1}) == b"a b  1\nc -1\r\n\nd 1 \ne -1"
    assert with_flags(data, {"c": 1}) == data
    assert with_flags(b"", {"c": 1}) == b""
