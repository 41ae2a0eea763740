"""Reader of tables with a class for each image, as people and Timelapse write them: CSV with a file and a class."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from detpipe.datasets.delimited_text import read_rows
from detpipe.datasets.folder_scan import is_image

_FILE = ("file", "filename", "filepath", "path", "image", "imagefile", "imagename", "imagepath")
_CLASS = ("class", "classname", "species", "label", "category", "commonname")
_FOLDER = "relativepath"
"""Timelapse has the folder of an image in a column of its own."""


class ImageLabelError(ValueError):
    """A table has no usable columns of files and classes."""


@dataclass(frozen=True)
class ImageLabel:
    """One row: the name of an image as written, and its class; "" if the cell is empty."""

    name: str
    label: str


def read_image_labels(path: Path, file_column: str | None = None, class_column: str | None = None) -> list[ImageLabel]:
    """The rows of a table in their order. An image may have several rows.

    The first row is a header if it has a column with one of these names: those given, else "file", "filename",
    "path", "image", ... and of "class", "species", "label", ... without regard to case, spaces and underscores. Without
    a header the table has two columns, and one of them has the names of images. With a column RelativePath (Timelapse
    writes it), names are RelativePath/File.
    Raises ImageLabelError, which names the file, for other columns; and as `read_rows`.
    """
    rows = read_rows(path, "a table with the class of each image")
    if not rows:
        raise ImageLabelError(f"{path}: expected a row for each image with its file and class, got no rows")
    header = [_plain(cell) for cell in rows[0][1]]
    files = [_plain(file_column)] if file_column is not None else _FILE
    classes = [_plain(class_column)] if class_column is not None else _CLASS
    folder = None
    if any(name in header for name in (*files, *classes)):
        file, label = (
            _column(header, names, f"{path}: {what}", rows[0][1], setting)
            for names, what, setting in (
                (files, "a column with the file of each image", "dataset.file_column"),
                (classes, "a column with the class of each image", "dataset.class_column"),
            )
        )
        folder = header.index(_FOLDER) if _FOLDER in header and file_column is None else None
        rows = rows[1:]
    else:
        if file_column is not None or class_column is not None:
            raise ImageLabelError(
                f"{path}: expected a column {file_column or class_column!r}, got {', '.join(rows[0][1])[:200]!r}"
            )
        file = _file_of_two(path, rows[0][1])
        label = 1 - file
    found = []
    for number, row in rows:
        if len(row) <= max(file, label):
            raise ImageLabelError(f"{path}:{number}: expected {max(file, label) + 1} or more columns, got {len(row)}")
        parts = [row[folder]] if folder is not None and len(row) > folder and row[folder] else []
        if not row[file]:
            raise ImageLabelError(f"{path}:{number}: expected the name of an image, got an empty cell")
        found.append(ImageLabel("/".join([*parts, row[file]]), row[label]))
    return found


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name).casefold()


def _column(header: Sequence[str], names: Sequence[str], expected: str, written: Sequence[str], setting: str) -> int:
    for name in names:
        if name in header:
            return header.index(name)
    where, _, what = expected.partition(": ")
    raise ImageLabelError(
        f"{where}: expected {what}, got columns {', '.join(written)[:200]!r}; name it by {setting}=NAME"
    )


def _file_of_two(path: Path, row: Sequence[str]) -> int:
    """Which of the two columns of a table without a header has names of images."""
    named = [index for index, cell in enumerate(row) if is_image(cell)]
    if len(row) != 2 or len(named) != 1:
        raise ImageLabelError(
            f"{path}: expected a header with the columns file and class, or two columns, one with the names of the "
            f"images, got the first row {', '.join(row)[:200]!r}"
        )
    return named[0]
