"""Tables in text: delimiters, cells with line breaks, and text that is no table."""

from __future__ import annotations

from pathlib import Path

import pytest

from detpipe.datasets.delimited_text import first_cells, read_rows, read_table
from detpipe.datasets.text_file import TextFileError


def table(folder: Path, content: str) -> Path:
    path = folder / "table.csv"
    path.write_bytes(content.encode())
    return path


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_rows_have_the_number_of_their_line(tmp_path: Path, delimiter: str, end: str) -> None:
    content = end.join(["", f" a {delimiter}b", delimiter, f'"c d"{delimiter} e', ""])
    assert read_table(table(tmp_path, content), "a table") == ([(2, ["a", "b"]), (4, ["c d", "e"])], delimiter)
    assert first_cells(content) == ["a", "b"]


def test_a_cell_with_a_line_break(tmp_path: Path) -> None:
    assert read_rows(table(tmp_path, 'a,"b\nc"\nd,e\x85f\n'), "a table") == [(2, ["a", "b\nc"]), (3, ["d", "e\x85f"])]


def test_an_empty_table_has_no_rows(tmp_path: Path) -> None:
    assert read_rows(table(tmp_path, "\n , \n"), "a table") == []
    assert first_cells("") == first_cells("\n") == []


def test_text_that_is_no_table(tmp_path: Path) -> None:
    with pytest.raises(TextFileError, match=r"table\.csv:1: expected a table") as caught:
        read_rows(table(tmp_path, f'a,"{"x" * 200_000}"\n'), "a table")
    assert "\n" not in str(caught.value)
    assert first_cells(f'"{"x" * 200_000}"') == []
