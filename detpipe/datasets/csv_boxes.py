"""Reader of CSV files with a box in each row: filename, xmin, ymin, xmax, ymax, class, in pixels.

Columns may be in any order, as their names say; without a header the order is as in RetinaNet's files: path, x1, y1,
x2, y2, class, and maybe the width and height of the image. A row without numbers is an image without objects.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from detpipe.datasets.delimited_text import Rows, first_cells, read_table
from detpipe.datasets.entry import FARTHEST, Entry, RawObject, read_number
from detpipe.datasets.findings import finding
from detpipe.datasets.folder_scan import is_image
from detpipe.datasets.foreign_formats import foreign_hint
from detpipe.datasets.image_finder import ImageFinder
from detpipe.datasets.object_edits import Box, decimal
from detpipe.datasets.parted_source import found_image
from detpipe.datasets.source import Split
from detpipe.datasets.table_source import BOX, CsvTable, TableSource
from detpipe.datasets.text_file import decoded, known_encoding, marked_encoding

logger = logging.getLogger(__name__)

_NAMES: Mapping[str, Sequence[str]] = {
    "file": (
        "filename",
        "file",
        "path",
        "filepath",
        "imagepath",
        "imagename",
        "image",
        "imageid",
        "img",
        "imgpath",
        "fname",
    ),
    "x1": ("xmin", "x1", "left", "xtl", "bboxx1", "xleft"),
    "y1": ("ymin", "y1", "top", "ytl", "bboxy1", "ytop"),
    "x2": ("xmax", "x2", "right", "xbr", "bboxx2", "xright"),
    "y2": ("ymax", "y2", "bottom", "ybr", "bboxy2", "ybottom"),
    "class": ("class", "label", "classname", "labelname", "category", "categoryname", "species", "name"),
    "width": ("width", "imagewidth", "imgwidth"),
    "height": ("height", "imageheight", "imgheight"),
}
"""The names of columns, in lower case without spaces and underscores, of which the first that is there counts."""
_NEEDED = ("file", *BOX, "class")


class CsvFileError(ValueError):
    """A CSV file is not one of boxes."""


@dataclass(kw_only=True)
class CsvSource(TableSource):
    """CSV files with a box in each row, in pixels: filename, xmin, ymin, xmax, ymax, class, in any order."""

    SUFFIXES: ClassVar[tuple[str, ...]] = (".csv", ".tsv", ".txt")
    FORMAT: ClassVar[str] = "CSV of boxes"

    encoding: str | None = None
    """Encoding of files that are not in UTF-8: gb18030, cp932, cp1252, ..."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.encoding is not None and known_encoding(self.encoding) is None:
            raise ValueError(
                f"dataset.encoding: expected the name of an encoding as gb18030 or cp932, got {self.encoding!r}"
            )

    @classmethod
    def is_format(cls, start: bytes) -> bool:
        cells = first_cells(decoded(start, marked_encoding(start) or "latin-1") or "")
        columns = _header(cells, _NAMES)
        return (columns.keys() >= {*_NEEDED} and not _is_open_images(cells)) or _is_plain_row(cells)

    def read_file(self, path: Path, images: ImageFinder) -> Iterator[tuple[Split | None, Entry]]:
        table = self.table(path)
        for name, rows in table.by_image().items():
            yield None, _entry(name, rows, table, path, images)

    @property
    def file_encoding(self) -> str | None:
        return self.encoding

    def table(self, path: Path) -> CsvTable:
        return read_csv_table(path, _NAMES, _NEEDED, self.encoding)

    def object_cells(self, image: Path, name: str | None, box: Box | None) -> dict[str, str]:  # noqa: ARG002
        cells = {} if name is None else {"class": name}
        return cells if box is None else cells | dict(zip(BOX, (_number(side) for side in box), strict=True))


def read_csv_table(
    path: Path, names: Mapping[str, Sequence[str]], needed: Sequence[str], encoding: str | None = None
) -> CsvTable:
    """The rows of a CSV file with the columns `needed`; empty lines are passed over.

    names: the possible names of each column. Without a header, the columns are file, x1, y1, x2, y2, class, and maybe
    width and height of the image.
    Raises CsvFileError, which names the file, TextFileError, InputFileError and OSErrors.
    """
    rows, separator = read_table(path, "a CSV file", encoding)
    cells = rows[0][1] if rows else []
    columns = _header(cells, names)
    if columns.keys() >= set(needed):
        return CsvTable(columns, rows[1:], separator, True)
    if set(needed) == set(_NEEDED) and _is_plain_row(cells):
        columns = {name: place for place, name in enumerate((*_NEEDED, "width", "height")[: len(cells)])}
        return CsvTable(columns, rows, separator, False)
    wanted = ", ".join(names[one][0] for one in needed)
    raise CsvFileError(
        f"{path}: expected columns {wanted} in the first line, got {', '.join(cells)[:200]!r}; name the columns so"
        f"{foreign_hint(path)}"
    )


def _header(cells: Sequence[str], names: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """The index of each column that is there."""
    plain = [re.sub(r"[\s_\-.\"'\ufeff]+", "", cell).lower() for cell in cells]
    found = {key: next((plain.index(one) for one in some if one in plain), None) for key, some in names.items()}
    return {key: place for key, place in found.items() if place is not None}


def _is_open_images(cells: Sequence[str]) -> bool:
    return {"ImageID", "LabelName", "XMin"} <= set(cells)


def _is_plain_row(cells: Sequence[str]) -> bool:
    """Whether a row without a header is path, x1, y1, x2, y2, class: four numbers, or five empty cells.

    Two whole numbers may follow, the width and the height of the image, as in SKU-110K.
    """
    has_size = len(cells) == 8 and is_image(cells[0]) and all(map(str.isdecimal, cells[6:]))
    if not (len(cells) == 6 or has_size) or not cells[0]:
        return False
    numbers = cells[1:5]
    if not any(numbers):
        return not cells[5]
    # makesense.ai writes class, x, y, width, height, path.
    return (
        bool(cells[5])
        and not is_image(cells[5])
        and all(re.fullmatch(r"[-+]?[\d.,]+(?:[eE][-+]?\d+)?", one) for one in numbers)
    )


def _entry(name: str, rows: Rows, table: CsvTable, path: Path, images: ImageFinder) -> Entry:
    if not name:
        fault = finding("missing_image", path, f"line {rows[0][0]}: expected the name of an image, got none")
        return Entry(f"line {rows[0][0]}", None, path, fault=fault)
    own, image, missing = found_image(images, name, path)
    objects = []
    for number, row in rows:
        if table.is_object(row):
            try:
                objects.append(_object(table, row))
            except ValueError as error:
                wrong = finding("broken_annotation", path, f"line {number}: {error}")
                return Entry(own, image, path, fault=missing or wrong)
    return Entry(own, image, path, tuple(objects), _stated_size(table, rows[0][1]), missing)


def _object(table: CsvTable, row: Sequence[str]) -> RawObject:
    name = table.cell(row, "class")
    if not name:
        raise ValueError("expected a class, got none")
    x1, y1, x2, y2 = (_coordinate(table, row, side) for side in BOX)
    return RawObject(name, (x1, y1, x2, y2))


def _coordinate(table: CsvTable, row: Sequence[str], side: str) -> float:
    text = table.cell(row, side)
    if len(text) > 100:
        raise ValueError(f"{side}: expected a number, got {len(text):,} characters")
    number = read_number(text.replace(",", ".") if table.separator != "," else text, side)
    if abs(number) > FARTHEST:
        raise ValueError(f"{side}: expected pixels, got {number:g}")
    return number


def _number(value: float) -> str:
    """The shortest text of a number in float32; a whole one without decimals."""
    short = decimal(value)
    return str(int(short)) if short.is_integer() else str(short)


def _stated_size(table: CsvTable, row: Sequence[str]) -> tuple[int, int] | None:
    """(height, width) of the image from the columns of TensorFlow's tutorials; None without them."""
    try:
        height, width = (round(read_number(table.cell(row, one), one)) for one in ("height", "width"))
    except ValueError:
        return None
    return (height, width) if 0 < height < 1 << 31 and 0 < width < 1 << 31 else None
