from __future__ import annotations

import math

from detpipe.report.text_table import as_bytes, as_count, number, shortened, significant, text_table


def test_columns() -> None:
    assert text_table(["name", "n"], [["a", "12"], ["long name", ""]]) == "name        n\na          12\nlong name"
    assert text_table(["name", "n"], []) == "name  n"


def test_the_middle_of_many_rows_is_left_out() -> None:
    rows = [[str(i)] for i in range(10)]
    assert shortened(rows, 5) == [["0"], ["1"], ["…"], ["8"], ["9"]]
    assert shortened(rows, 10) == rows
    assert shortened([], 5) == []


def test_numbers() -> None:
    assert [number(x) for x in (-0.0004, 0.0004, -0.0006, math.nan, None)] == ["0.000", "0.000", "-0.001", "–", "–"]
    assert [significant(x) for x in (0.012345, 1234567.0, math.nan, None)] == ["0.0123", "1.23e+06", "–", "–"]
    assert [as_bytes(x) for x in (999, 12_345, 5e6, 7.5e9)] == ["999 B", "12.3 kB", "5.0 MB", "7.50 GB"]
    assert [as_count(x) for x in (0, 999, 4_652_008, 3.08e9)] == ["0", "999", "4.65 M", "3.08 G"]


def test_wide_characters_take_two_columns() -> None:
    table = text_table(["class", "n"], [["猫", "1"], ["ねこ猫", "12"], ["e\u0301", "3"]])
    assert table.splitlines() == ["class    n", "猫       1", "ねこ猫  12", "e\u0301        3"]
