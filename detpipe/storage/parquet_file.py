"""The images in a Parquet file: the ids and objects of its rows, and the bytes of the images of one row group.

pyarrow was not made for hostile files, so it reads in the process with limits of `reader_process`. Two layouts are
read:

- `bytes` and `id`, with objects in `boxes` (lists of [x1, y1, x2, y2] in pixels) and `labels` (text or numbers).
- Those of Hugging Face's data sets: `image` with `bytes` and `path`, `image_id`, and `objects` with `bbox`
  ([x, y, width, height]) and `category` or another of CLASS_KEYS. Names of categories are in the schema.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import posixpath
import threading
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from detpipe.storage.input_file import InputFileError
from detpipe.storage.object_storage import is_remote
from detpipe.storage.reader_process import Arrays, Reader, read_in_process
from detpipe.storage.remote_file import local_copy
from detpipe.storage.tar_file import safe_name

if TYPE_CHECKING:
    import pyarrow

EXPECTED = "a Parquet file of images"
CLASS_KEYS = ("category", "categories", "category_id", "label", "labels", "class", "classes")
"""Keys of Hugging Face's `objects` with the classes, of which the first that is there counts."""
LARGEST_GROUP = 1 << 30
"""Limit on the bytes of the images of one row group, which are in memory together."""
_MOST_KEPT = 1 << 28
"""Bytes of the images of the kept row groups. Of a larger one, one group is kept."""
MOST_ROWS = 5_000_000
"""Limit on the rows of one file: their ids are kept in memory."""
_IDS = ("id", "image_id", "key", "file_name")
_IMAGES = ("bytes", "image")


@dataclass(frozen=True)
class RowObjects:
    """The objects of a row. boxes: (N, 4) float64 as the file has them. names: N classes. is_xywh: x y width height."""

    boxes: npt.NDArray[np.float64]
    names: Sequence[str]
    is_xywh: bool


@dataclass(frozen=True)
class ParquetIndex:
    """The rows of a Parquet file.

    members: from id to the number of the row, in the order of the file. faults: (id, reason) of rows that can't be
    used. groups: (G + 1,) the first row of each row group, and the number of rows. objects: of each row; None for a
    file without objects. sizes: (rows,) the bytes of each image, -1 until its row group was read.
    """

    path: Path
    members: Mapping[str, int]
    faults: tuple[tuple[str, str], ...]
    groups: npt.NDArray[np.int64]
    objects: Sequence[RowObjects] | None
    sizes: npt.NDArray[np.int64]


def read_parquet_index(path: Path) -> ParquetIndex:
    """The ids and objects of all rows. No rows give an empty index.

    Raises InputFileError, which names the file, for another file and other columns; ModuleNotFoundError without
    pyarrow.
    """
    if importlib.util.find_spec("pyarrow") is None:
        raise ModuleNotFoundError(
            f"{path}: expected the package pyarrow for Parquet files, got none; pip install 'detpipe[parquet]'"
        )
    value, arrays = _read(read_rows, path)
    members: dict[str, int] = {}
    faults: list[tuple[str, str]] = []
    for row, text in enumerate(value["ids"]):
        name, fault = safe_name(text)
        if fault is None and name in members:
            fault = f"row {row} has the id of row {members[name]}; give each image its own id"
        if fault is None:
            members[name] = row
        else:
            faults.append((name, fault))
    objects = None
    if value["names"] is not None:
        ends = np.cumsum(arrays["counts"])
        starts = ends - arrays["counts"]
        boxes, names = arrays["boxes"], value["names"]
        objects = [RowObjects(boxes[a:b], names[a:b], value["xywh"]) for a, b in zip(starts, ends, strict=True)]
    sizes = np.full(len(value["ids"]), -1, np.int64)
    return ParquetIndex(path, members, tuple(faults), arrays["groups"], objects, sizes)


def row_bytes(index: ParquetIndex, row: int) -> bytes:
    """The encoded image of a row; b"" for a row without one. Its row group is kept for the next rows.

    Raises InputFileError as `read_parquet_index`.
    """
    group = int(np.searchsorted(index.groups, row, side="right")) - 1
    key = (id(index), group)
    with _lock:
        kept = _kept.get(key)
        if kept is not None:
            _kept.move_to_end(key)
    if kept is None:
        _, arrays = _read(read_group, index.path, group)
        kept = _Group(index, arrays["data"], np.concatenate([[0], np.cumsum(arrays["sizes"])]))
        first, last = index.groups[group : group + 2]
        if len(arrays["sizes"]) != last - first:
            raise InputFileError(f"{index.path}: expected {EXPECTED}, got one that changed; run the command again")
        index.sizes[first:last] = arrays["sizes"]
        with _lock:
            _kept[key] = kept
            while len(_kept) > 1 and sum(len(one.data) for one in _kept.values()) > _MOST_KEPT:
                _kept.popitem(last=False)
    place = row - int(index.groups[group])
    return kept.data[kept.ends[place] : kept.ends[place + 1]].tobytes()


def row_size(index: ParquetIndex, row: int) -> int:
    """The bytes of the image of a row."""
    if index.sizes[row] < 0:
        row_bytes(index, row)
    return int(index.sizes[row])


def _read(function: Reader, path: Path, *arguments: int) -> tuple[Any, Arrays]:
    """Read in the process with limits. Of a file in object storage, it reads a copy on this machine."""
    local = local_copy(path) if is_remote(path) else path
    try:
        return read_in_process(function, local, EXPECTED, errors=(InputFileError,), expansion=2, arguments=arguments)
    except InputFileError as error:
        if local == path:
            raise
        raise InputFileError(str(error).replace(str(local), str(path))) from error


@dataclass(frozen=True)
class _Group:
    """The images of a row group, one behind the other. index: keeps its id from being used again. ends: (R + 1,)."""

    index: ParquetIndex
    data: npt.NDArray[np.uint8]
    ends: npt.NDArray[np.int64]


_kept: OrderedDict[tuple[int, int], _Group] = OrderedDict()
_lock = threading.Lock()


# In the process.


def read_rows(path: Path) -> tuple[Any, Arrays]:
    """Ids, objects and row groups. Raises InputFileError."""
    file = _opened(path)
    schema, metadata = file.schema_arrow, file.metadata
    if metadata.num_rows > MOST_ROWS:
        raise InputFileError(f"{path}: expected at most {MOST_ROWS:,} rows, got {metadata.num_rows:,}; divide the file")
    groups = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
    image = _image_column(path, schema)
    id_column = next((name for name in _IDS if name in schema.names), None)
    if id_column is not None:
        ids = [_text(one) for one in file.read([id_column], use_threads=False)[id_column].to_pylist()]
    elif "." in image and "path" in [field.name for field in schema.field("image").type]:
        paths = file.read(["image.path"], use_threads=False)["image"].to_pylist()
        ids = _names_of_paths([_text((one or {}).get("path")) for one in paths])
        ids = [one or str(row) for row, one in enumerate(ids)]
    else:
        ids = [str(row) for row in range(metadata.num_rows)]
    value: dict[str, Any] = {"ids": ids, "names": None, "xywh": False}
    arrays: dict[str, npt.NDArray[Any]] = {"groups": np.concatenate([[0], np.cumsum(groups)]).astype(np.int64)}
    if {"boxes", "labels"} <= {*schema.names}:
        table = file.read(["boxes", "labels"], use_threads=False)
        rows = [(a or [], b or []) for a, b in zip(*(table[n].to_pylist() for n in ("boxes", "labels")), strict=True)]
        names: Sequence[str] = ()
    elif "objects" in schema.names:
        rows = [_of_objects(one) for one in file.read(["objects"], use_threads=False)["objects"].to_pylist()]
        names, value["xywh"] = _category_names(schema), True
    else:
        return value, arrays
    boxes: list[list[float]] = []
    value["names"] = found = []
    for row, (own, labels) in enumerate(rows):
        if len(own) != len(labels) or any(len(one or ()) != 4 for one in own):
            raise InputFileError(
                f"{path}: expected boxes of four numbers with a label each, got {len(own)} boxes and {len(labels)} "
                f"labels in row {row}; correct the file"
            )
        boxes += own
        found += [_class_name(one, names) for one in labels]
    arrays["boxes"] = np.array(boxes, dtype=np.float64).reshape(-1, 4)
    arrays["counts"] = np.array([len(own) for own, _ in rows], dtype=np.int64)
    return value, arrays


def read_group(path: Path, group: int) -> tuple[Any, Arrays]:
    """The encoded images of a row group. Raises InputFileError."""
    file = _opened(path)
    column = _image_column(path, file.schema_arrow)
    described = file.metadata.row_group(group)
    sizes = [described.column(number) for number in range(described.num_columns)]
    if sum(one.total_uncompressed_size for one in sizes if one.path_in_schema == column) > LARGEST_GROUP:
        raise InputFileError(
            f"{path}: expected row groups of at most {LARGEST_GROUP >> 20} MB of images, got a larger one; write the "
            "file with row groups of 100 images"
        )
    images = file.read_row_group(group, columns=[column], use_threads=False).column(0).combine_chunks()
    if "." in column:
        images = images.field("bytes")
    values = [b"" if one is None else one for one in images.to_pylist()]
    return None, {
        "data": np.frombuffer(b"".join(values), np.uint8),
        "sizes": np.array([len(one) for one in values], dtype=np.int64),
    }


def _opened(path: Path) -> Any:
    import pyarrow
    import pyarrow.parquet

    # Others reserve gigabytes of address space, which is limited here.
    pyarrow.set_memory_pool(pyarrow.system_memory_pool())
    pyarrow.set_cpu_count(1)
    try:
        return pyarrow.parquet.ParquetFile(path)
    except pyarrow.ArrowInvalid as error:
        raise InputFileError(f"{path}: expected {EXPECTED}, got another or a damaged file; make it again") from error


def _image_column(path: Path, schema: pyarrow.Schema) -> str:
    """The column of the encoded images. Raises InputFileError."""
    import pyarrow.types as types

    def is_binary(kind: pyarrow.DataType) -> bool:
        return bool(types.is_binary(kind) or types.is_large_binary(kind))

    for name in _IMAGES:
        if name in schema.names:
            kind = schema.field(name).type
            if is_binary(kind):
                return name
            if types.is_struct(kind) and any(one.name == "bytes" and is_binary(one.type) for one in kind):
                return f"{name}.bytes"
    raise InputFileError(
        f"{path}: expected a column `bytes` with encoded images, got {', '.join(schema.names)[:200]}; name it so"
    )


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else "" if value is None else str(value)


def _names_of_paths(paths: Sequence[str]) -> list[str]:
    """Different names of images: `datasets` keeps only the last part of a path, or the whole one of this machine.

    Absolute paths lose their common folder, and a name that was there before gets a number.
    """
    folders = [posixpath.dirname(one) for one in paths if one.startswith("/")]
    top = posixpath.commonpath(folders) if folders else ""
    shortened = [posixpath.relpath(one, top) if one.startswith("/") else one for one in paths]
    taken, counts, names = set(shortened), Counter[str](), []
    for name in shortened:
        counts[name] += 1
        if name and counts[name] > 1:
            name = next(one for number in itertools.count(counts[name]) if (one := f"{name}#{number}") not in taken)
            taken.add(name)
        names.append(name)
    return names


def _of_objects(objects: Any) -> tuple[list[Any], list[Any]]:
    """Boxes and classes of a struct of lists, or of a list of structs."""
    if isinstance(objects, list):
        return [one.get("bbox") for one in objects], [class_value(one) for one in objects]
    return ((objects or {}).get("bbox") or []), (class_value(objects or {}) or [])


def class_value(objects: Mapping[str, Any]) -> Any:
    """What the first of CLASS_KEYS that is there has; None without one."""
    return next((objects[key] for key in CLASS_KEYS if key in objects), None)


def _class_name(label: object, names: Sequence[str]) -> str:
    if isinstance(label, int) and 0 <= label < len(names):
        return names[label]
    return _text(label)


def _category_names(schema: pyarrow.Schema) -> Sequence[str]:
    """The names of the classes in the metadata of Hugging Face's data sets. Empty without such metadata."""
    try:
        found = json.loads(schema.metadata[b"huggingface"])["info"]["features"]["objects"]
        found = found[0] if isinstance(found, list) else found.get("feature", found)
        classes = class_value(found)
        names = classes.get("feature", classes)["names"]
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):
        return ()
    return [str(one) for one in names] if isinstance(names, list) else ()
