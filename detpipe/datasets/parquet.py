"""Reader of Parquet files with an image in each row: its encoded bytes, its id, and maybe its objects.

`storage/parquet_file.py` has the columns: `bytes`, `id`, `boxes` and `labels`, or as in Hugging Face's data sets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from detpipe.datasets.entry import FARTHEST, RawObject
from detpipe.datasets.findings import Finding, finding
from detpipe.datasets.member_source import MemberSource, Objects
from detpipe.datasets.sample_json import SampleObjects
from detpipe.storage.parquet_file import ParquetIndex, RowObjects
from detpipe.storage.stored_file import PARQUET, container_index


@dataclass(kw_only=True)
class ParquetSource(MemberSource):
    """Parquet files with an image in each row: bytes, id, boxes and labels, or the columns of Hugging Face's data sets.

    A file with train, val or test in its name, or in a folder of this name, is this split. Without any objects, all
    images are the test split.
    """

    SUFFIX: ClassVar[str] = PARQUET
    FORMAT: ClassVar[str] = "Parquet files"

    root: str
    """A Parquet file, or a folder with Parquet files, also in subfolders."""

    def read_objects(self, container: Path, images: Sequence[Path]) -> Objects:
        if not images:
            return {}
        index = container_index(container)
        assert isinstance(index, ParquetIndex)
        if index.objects is None:
            return {}
        rows = [index.objects[index.members[path.relative_to(container).as_posix()]] for path in images]
        return {path: (path, _objects(row, path)) for path, row in zip(images, rows, strict=True)}


def _objects(row: RowObjects, path: Path) -> SampleObjects | Finding:
    """The objects of a row, or what is wrong with them."""
    if not (np.abs(row.boxes) <= FARTHEST).all():  # also false for NaN
        return finding("broken_annotation", path, "expected finite boxes in pixels, got others")
    if not all(name.strip() for name in row.names):
        return finding("broken_annotation", path, "expected a label of each box, got an empty one")
    objects = []
    for (a, b, c, d), name in zip(row.boxes.tolist(), row.names, strict=True):
        if row.is_xywh:
            objects.append(RawObject(name.strip(), (a, b, a + c, b + d), written=(a, b, c, d)))
        else:
            objects.append(RawObject(name.strip(), (a, b, c, d)))
    return SampleObjects(tuple(objects), None, ())
