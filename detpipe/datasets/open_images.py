"""Reader of the CSV files of Open Images: ImageID, LabelName, XMin, XMax, YMin, YMax in shares, and IsGroupOf."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import ClassVar

from detpipe.datasets.csv_boxes import read_csv_table
from detpipe.datasets.delimited_text import Rows, first_cells, read_rows
from detpipe.datasets.entry import Entry, RawObject, read_number
from detpipe.datasets.findings import finding
from detpipe.datasets.image_finder import ImageFinder, ImageNotFoundError
from detpipe.datasets.object_edits import Box, NewImage
from detpipe.datasets.parted_source import found_image, size_of_shares
from detpipe.datasets.source import Split
from detpipe.datasets.table_source import BOX, CsvTable, TableSource
from detpipe.datasets.text_file import decoded, marked_encoding
from detpipe.storage.stored_file import children

logger = logging.getLogger(__name__)

_COLUMNS: Mapping[str, Sequence[str]] = {
    "file": ("imageid",),
    "class": ("labelname",),
    "x1": ("xmin",),
    "x2": ("xmax",),
    "y1": ("ymin",),
    "y2": ("ymax",),
    "group": ("isgroupof",),
}
_NEEDED = ("file", "class", "x1", "x2", "y1", "y2")
_BEYOND = 0.01


@dataclass(kw_only=True)
class OpenImagesSource(TableSource):
    """CSV files of boxes of Open Images, as train-annotations-bbox.csv. Boxes of groups are crowds.

    The files list far more images than most people have: images without a file are counted and left out.
    """

    PATHS: ClassVar[tuple[str, ...]] = (*TableSource.PATHS, "names_file")
    SUFFIXES: ClassVar[tuple[str, ...]] = (".csv",)
    FORMAT: ClassVar[str] = "Open Images' CSV of boxes"
    EMPTY_IMAGES: ClassVar[bool] = False

    names_file: str | None = None
    """class-descriptions-boxable.csv, with the name of each class (/m/01g317,Person); null: a file of this name beside
    the annotations, else the classes are called as in LabelName."""

    @classmethod
    def is_format(cls, start: bytes) -> bool:
        cells = first_cells(decoded(start, marked_encoding(start) or "latin-1") or "")
        return {"ImageID", "LabelName", "XMin", "XMax", "YMin", "YMax"} <= set(cells)

    def read_file(self, path: Path, images: ImageFinder) -> Iterator[tuple[Split | None, Entry]]:
        table = self.table(path)
        groups = table.by_image()
        missing = []
        for name, rows in groups.items():
            try:
                images.find(name)
            except ImageNotFoundError as error:
                if error.KIND == ImageNotFoundError.KIND:
                    missing.append(name)
                    continue
            yield None, self._entry(name, rows, table, path, images)
        if missing:
            logger.warning(
                "%s: %d of %d images have no file in %s and are left out, as %s",
                *(path, len(missing), len(groups), images.folder, missing[0][:100]),
            )

    @functools.cached_property
    def _class_names(self) -> Mapping[str, str]:
        """The name of each class by its code."""
        path = self.descriptions
        if path is None:
            return {}
        rows = read_rows(path, "class-descriptions-boxable.csv of Open Images")
        return {row[0]: row[1] for _, row in rows if len(row) >= 2 and row[1]}

    @property
    def descriptions(self) -> Path | None:
        """The file with the names of classes; None without one."""
        if self.names_file is not None:
            return Path(self.names_file)
        folders = dict.fromkeys(path.parent for _, path, _ in self.files)
        paths = (path for folder in folders for path in children(folder))
        return next((path for path in paths if fnmatchcase(path.name, "*class-descriptions*.csv")), None)

    def table(self, path: Path) -> CsvTable:
        return read_csv_table(path, _COLUMNS, _NEEDED)

    def file_cell(self, image: NewImage) -> str:
        return image.name

    def object_cells(self, image: Path, name: str | None, box: Box | None) -> dict[str, str]:
        codes = {own: code for code, own in self._class_names.items()}
        cells = {} if name is None else {"class": codes.get(name, name)}
        if box is None:
            return cells
        size = size_of_shares(image, None, self.read_options, self.exif_boxes)
        assert size is not None  # a correction is of an image that was read
        height, width = size
        shares = (value / side for value, side in zip(box, (width, height) * 2, strict=True))
        return cells | dict(zip(BOX, map(str, shares), strict=True))

    def _entry(self, name: str, rows: Rows, table: CsvTable, path: Path, images: ImageFinder) -> Entry:
        own, image, fault = found_image(images, name, path)
        entry = Entry(own, image, path, fault=fault)
        size = size_of_shares(image, None, self.read_options, self.exif_boxes)
        if size is None:  # an image that can't be used
            return entry
        try:
            objects = tuple(self._object(number, row, table, size) for number, row in rows)
        except ValueError as error:
            return replace(entry, fault=finding("broken_annotation", path, str(error)))
        return replace(entry, objects=objects)

    def _object(self, number: int, row: Sequence[str], table: CsvTable, size: tuple[int, int]) -> RawObject:
        code = table.cell(row, "class")
        if not code:
            raise ValueError(f"line {number}: expected LabelName, got none")
        corners = []
        for side, pixels in (("x1", size[1]), ("y1", size[0]), ("x2", size[1]), ("y2", size[0])):
            share = read_number(table.cell(row, side), f"line {number}: {_COLUMNS[side][0]}")
            if not -_BEYOND <= share <= 1 + _BEYOND:
                raise ValueError(f"line {number}: expected shares of the image from 0 to 1, got {share:g}")
            corners.append(share * pixels)
        x1, y1, x2, y2 = corners
        return RawObject(self._class_names.get(code, code), (x1, y1, x2, y2), crowd=table.cell(row, "group") == "1")
