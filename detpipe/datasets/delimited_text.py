"""Reads tables in text: CSV, and the forms that spreadsheet programs save with semicolons or tabs."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from detpipe.datasets.text_file import TextFileError, read_text

_DELIMITERS = ",;\t"
Rows = list[tuple[int, list[str]]]
"""The number of the line that a row ends on, from 1, and its cells without outer spaces."""


def read_rows(path: Path, expected: str) -> Rows:
    """The rows of `read_table`, which may be separated by any of the delimiters."""
    return read_table(path, expected)[0]


def read_table(path: Path, expected: str, encoding: str | None = None) -> tuple[Rows, str]:
    """The rows that have a cell with text, and the delimiter between cells. An empty table gives no rows.

    The delimiter is the one of comma, semicolon and tab that the first line with text has most. expected: what the file
    should be, for the error. encoding: as in `read_text`. Raises TextFileError for text that is not a table, and the
    errors of `read_text`.
    """
    text = read_text(path, expected, encoding)
    delimiter = _delimiter(text)
    # Not splitlines, which also splits at signs that are part of a cell.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    try:
        rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader]
    except csv.Error as error:
        raise TextFileError(
            f"{path}:{reader.line_num}: expected {expected}, got {error}; save it as CSV again"
        ) from error
    return [(number, row) for number, row in rows if any(row)], delimiter


def first_cells(text: str) -> list[str]:
    """The cells of the first line with text, in the beginning of a file; [] if it is not CSV."""
    try:
        rows = csv.reader([_first_line(text)], delimiter=_delimiter(text), skipinitialspace=True)
        return [cell.strip() for cell in next(rows, [])]
    except csv.Error:
        return []


def _delimiter(text: str) -> str:
    return max(_DELIMITERS, key=_first_line(text).count)


def _first_line(text: str) -> str:
    return next((line for line in text.splitlines() if line.strip()), "")
