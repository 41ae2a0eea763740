"""Reader of the CSV files of Open Images: ImageID, LabelName, XMin, XMax, YMin, YMax in shares, and IsGroupOf."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from detpipe.datasets.csv_boxes import CsvTable, read_csv_table, rows_by_image
from detpipe.datasets.delimited_text import Rows, first_cells, read_rows
from detpipe.datasets.files_source import FilesSource
from detpipe.datasets.findings import finding
from detpipe.datasets.image_finder import ImageFinder, ImageNotFoundError
from detpipe.datasets.parted_source import found_image, size_of_shares
from detpipe.datasets.source import Entry, RawObject, Split, read_number
from detpipe.datasets.text_file import decoded, marked_encoding

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
class OpenImagesSource(FilesSource):
    """CSV files of boxes of Open Images, as train-annotations-bbox.csv. Boxes of groups are crowds.

    The files list far more images than most people have: images without a file are counted and left out.
    """

    PATHS: ClassVar[tuple[str, ...]] = (*FilesSource.PATHS, "names_file")
    SUFFIXES: ClassVar[tuple[str, ...]] = (".csv",)
    FORMAT: ClassVar[str] = "Open Images' CSV of boxes"

    names_file: str | None = None
    """class-descriptions-boxable.csv, with the name of each class (/m/01g317,Person); null: a file of this name beside
    the annotations, else the classes are called as in LabelName."""

    @classmethod
    def is_format(cls, start: bytes) -> bool:
        cells = first_cells(decoded(start, marked_encoding(start) or "latin-1") or "")
        return {"ImageID", "LabelName", "XMin", "XMax", "YMin", "YMax"} <= set(cells)

    def read_file(self, path: Path, images: ImageFinder) -> Iterator[tuple[Split | None, Entry]]:
        table = read_csv_table(path, _COLUMNS, _NEEDED)
        groups = rows_by_image(table)
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
        path = Path(self.names_file) if self.names_file is not None else self._descriptions()
        if path is None:
            return {}
        rows = read_rows(path, "class-descriptions-boxable.csv of Open Images")
        return {row[0]: row[1] for _, row in rows if len(row) >= 2 and row[1]}

    def _descriptions(self) -> Path | None:
        folders = dict.fromkeys(path.parent for _, path, _ in self.files)
        return next((path for folder in folders for path in sorted(folder.glob("class-descriptions*.csv"))), None)

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
