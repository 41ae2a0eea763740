"""Reads tables in text: CSV, and the forms that spreadsheet programs save with semicolons or tabs."""

from __future__ import annotations

import csv
from pathlib import Path

from detpipe.datasets.text_file import TextFileError, read_text

_DELIMITERS = ",;\t"


def read_rows(path: Path, expected: str) -> list[tuple[int, list[str]]]:
    """The rows that have a cell with text, with the number of the line they end on from 1; cells without outer spaces.

    The delimiter is the one of comma, semicolon and tab that the first line has most. An empty table gives [].
    expected: what the file should be, for the error. Raises TextFileError for text that is no table, and the errors of
    `read_text`.
    """
    lines = read_text(path, expected).splitlines()
    first = next((line for line in lines if line.strip()), "")
    reader = csv.reader(lines, delimiter=max(_DELIMITERS, key=first.count), skipinitialspace=True)
    try:
        rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader]
    except csv.Error as error:
        raise TextFileError(
            f"{path}:{reader.line_num}: expected {expected}, got {error}; save it as CSV again"
        ) from error
    return [(number, row) for number, row in rows if any(row)]
