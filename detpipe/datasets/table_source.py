"""Base class of the CSV formats with a box in each row, and copies of their files with changed rows."""

from __future__ import annotations

import abc
import contextlib
import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from detpipe.datasets.delimited_text import Rows
from detpipe.datasets.files_source import FilesSource
from detpipe.datasets.image_finder import ImageFinder, ImageNotFoundError
from detpipe.datasets.object_edits import Box, NewImage, ObjectEdit
from detpipe.datasets.text_file import LARGEST_TEXT, encoded_alike, text_and_encoding
from detpipe.storage.input_file import read_input

EXPECTED = "a CSV file"
BOX = ("x1", "y1", "x2", "y2")
"""The names of the columns of a box in `CsvTable`."""


@dataclass(frozen=True)
class CsvTable:
    """The rows of a file. columns: the index of each known column. rows: (number of the line, cells).

    separator: between the cells. has_header: whether the first row has names.
    """

    columns: Mapping[str, int]
    rows: Rows
    separator: str
    has_header: bool

    def cell(self, row: Sequence[str], name: str) -> str:
        """The text of a cell; "" if the row or the table lacks it."""
        place = self.columns.get(name)
        return row[place] if place is not None and place < len(row) else ""

    def with_cells(self, row: Sequence[str], cells: Mapping[str, str]) -> list[str]:
        """The row with other cells, of the columns that the table has."""
        changed = [*row, *[""] * (max(self.columns.values()) + 1 - len(row))]
        for name, text in cells.items():
            if name in self.columns:
                changed[self.columns[name]] = text
        return changed

    def by_image(self) -> dict[str, Rows]:
        """The rows of each image, in the order of the file."""
        groups: dict[str, Rows] = {}
        for number, row in self.rows:
            groups.setdefault(self.cell(row, "file"), []).append((number, row))
        return groups

    def is_object(self, row: Sequence[str]) -> bool:
        """Whether a row is of an object, not of an image without objects."""
        return any(self.cell(row, name) for name in (*BOX, "class"))


@dataclass(kw_only=True)
class TableSource(FilesSource):
    """Base class of formats whose files have a box in each row."""

    EMPTY_IMAGES: ClassVar[bool] = True
    """Whether a row without a box is an image without objects."""

    @property
    def file_encoding(self) -> str | None:
        """The encoding of files that are not in UTF-8."""
        return None

    @abc.abstractmethod
    def table(self, path: Path) -> CsvTable:
        """The rows of a file. Raises ValueErrors that name the file, and OSErrors."""

    @abc.abstractmethod
    def object_cells(self, image: Path, name: str | None, box: Box | None) -> dict[str, str]:
        """The cells of an object of an image file, by the names of `CsvTable`. None: without these cells."""

    def file_cell(self, image: NewImage) -> str:
        """The name of a new image in a file."""
        return f"{image.name}{image.path.suffix}"

    def edited_file(
        self,
        path: Path,
        images: ImageFinder,
        edits: Mapping[Path, Sequence[ObjectEdit]],
        new_images: Sequence[NewImage] = (),
    ) -> bytes:
        """The bytes of a file with the edits of each image file; lines without edits stay, to the byte.

        A changed row keeps its other cells, an added one has none. Raises ValueError for two names of one image, for an
        image without objects in a format that has no row for it, and for a class that the file's encoding lacks.
        """
        table, data = self.table(path), read_input(path, EXPECTED, LARGEST_TEXT)
        text, encoding = text_and_encoding(data, path, EXPECTED, self.file_encoding)
        changed: dict[int, list[str] | None] = {}
        behind: dict[int, list[list[str]]] = {}
        groups: dict[Path, list[Rows]] = {}
        for name, rows in table.by_image().items():
            with contextlib.suppress(ImageNotFoundError):
                groups.setdefault(images.find(name), []).append(rows)
        for image in groups.keys() & edits.keys():
            if not edits[image]:
                continue
            rows, *others = groups[image]
            if others:
                raise ValueError(
                    f"{path}: expected one name of {image}, got another one in line {others[0][0][0]}; convert the "
                    "data set with `detpipe convert` first"
                )
            own, added = self._edited_rows(table, rows, image, edits[image], path)
            changed |= own
            behind[rows[-1][0]] = added
        more, columns = [], max((len(row) for _, row in table.rows), default=0)
        for one in new_images:
            height, width = one.image_size
            cells = {"file": self.file_cell(one), "width": str(width), "height": str(height)}
            more += [
                table.with_cells([""] * columns, cells | self.object_cells(one.path, edit.name, edit.box))
                for edit in one.objects
            ]
            if not one.objects:
                if not self.EMPTY_IMAGES:
                    raise ValueError(f"{path}: {without_row(one.path.name)}")
                more.append(table.with_cells([""] * columns, cells))
        return encoded_alike(_with_rows(text, table.separator, changed, behind, more), data, encoding, path)

    def _edited_rows(
        self, table: CsvTable, rows: Rows, image: Path, edits: Sequence[ObjectEdit], path: Path
    ) -> tuple[dict[int, list[str] | None], list[list[str]]]:
        """The changed rows of an image by their number, None for removed ones; and the rows that are added."""
        objects = [(number, row) for number, row in rows if table.is_object(row)]
        changed: dict[int, list[str] | None] = {}
        for edit in edits:
            if edit.index is not None:
                number, row = objects[edit.index]
                cells = self.object_cells(image, edit.name, edit.box)
                changed[number] = None if edit.is_removed else table.with_cells(row, cells)
        first = rows[0][1]
        empty = table.with_cells(
            [""] * len(first), {name: table.cell(first, name) for name in ("file", "width", "height")}
        )
        added = [
            table.with_cells(empty, self.object_cells(image, edit.name, edit.box))
            for edit in edits
            if edit.index is None
        ]
        if added:
            changed |= {number: None for number, row in rows if not table.is_object(row)}
        elif all(number in changed and changed[number] is None for number, _ in rows):
            if not self.EMPTY_IMAGES:
                raise ValueError(f"{path}: {without_row(image.name)}")
            added = [empty]
        return changed, added


def without_row(image: str) -> str:
    """The end of an error: an image has no object, and the format can't say so. image: the name of its file."""
    return (
        f"expected an object in {image}, got none, and the format has no row for an image without objects; convert the "
        "data set with `detpipe convert` first"
    )


def _with_rows(
    text: str,
    separator: str,
    changed: Mapping[int, list[str] | None],
    behind: Mapping[int, Sequence[list[str]]],
    more: Sequence[list[str]],
) -> str:
    """A table with changed rows, by the number of their last line; with rows behind others, and at the end."""
    lines = list(io.StringIO(text, newline=""))
    line_break = next((end for end in ("\r\n", "\n", "\r") if lines and lines[0].endswith(end)), "\n")
    parts: list[str] = []

    def write(cells: Sequence[str]) -> None:
        if parts and not parts[-1].endswith(("\r", "\n")):
            parts.append(line_break)
        row = io.StringIO(newline="")
        csv.writer(row, delimiter=separator, lineterminator=line_break).writerow(cells)
        parts.append(row.getvalue())

    start, reader = 0, csv.reader(iter(lines), delimiter=separator, skipinitialspace=True)
    for _ in reader:
        end = reader.line_num
        cells = changed.get(end)
        if cells is not None:
            write(cells)
        elif end not in changed:
            parts += lines[start:end]
        for added in behind.get(end, ()):
            write(added)
        start = end
    for added in more:
        write(added)
    return "".join(parts)
