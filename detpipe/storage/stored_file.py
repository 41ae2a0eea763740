"""Files inside of other files: an image in a tar has a path as if the tar were a folder, `shards/000.tar/0001.jpg`.
So has an image in a row of a Parquet file, `photos.parquet/ID`.

Such a path is an ordinary `Path`. It has a name, a suffix and parents, it is below the folder of its container, it can
be pickled, and messages print it. `open_stored` and `stored_size` read it; for other functions on paths it does not
exist. The index of a container is read once in each process and kept for as long as the file does not change.
"""

from __future__ import annotations

import io
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

from detpipe.storage.input_file import InputFileError, open_input
from detpipe.storage.object_storage import is_remote
from detpipe.storage.parquet_file import ParquetIndex, read_parquet_index, row_bytes, row_size
from detpipe.storage.remote_listing import remote_children, remote_exists, remote_files, remote_info, remote_walk
from detpipe.storage.tar_file import TarIndex, read_tar_index

Place = TypeVar("Place")
TAR, PARQUET = ".tar", ".parquet"
CONTAINER_SUFFIXES = (TAR, PARQUET)
"""Suffixes, in lower case, of files that hold other files."""
_MOST_KEPT = 500_000
"""Members of all kept indexes, of about 250 bytes each. The index that was used longest ago is dropped first."""


def is_container(path: str | os.PathLike[str]) -> bool:
    """Whether a file with this suffix holds other files. The path may still be a folder."""
    return os.fspath(path).lower().endswith(CONTAINER_SUFFIXES)


def is_folder(path: Path) -> bool:
    """Whether a path is a folder, or a file that takes the place of one."""
    return is_existing_folder(path) or (is_container(path) and is_file(path))


def is_file(path: Path) -> bool:
    """Whether a path is a file, here or in object storage."""
    if is_remote(path):
        return remote_exists(path) and remote_info(path).is_file
    return path.is_file()


def is_existing_folder(path: Path) -> bool:
    """Whether a path is a folder, or a prefix with files in object storage."""
    if is_remote(path):
        return remote_exists(path) and not remote_info(path).is_file
    return path.is_dir()


def exists(path: Path) -> bool:
    """Whether there is a file or folder, here or in object storage."""
    return remote_exists(path) if is_remote(path) else path.exists()


def children(folder: Path) -> list[Path]:
    """The files and folders in a folder, also hidden ones, sorted. Raises the OSErrors of the file system."""
    return remote_children(folder) if is_remote(folder) else sorted(folder.iterdir())


def walk(folder: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """As `os.walk`: each folder, the names of its folders, which may be removed, and the names of its files."""
    if is_remote(folder):
        yield from remote_walk(folder)
        return
    for place, folders, files in os.walk(folder):
        yield Path(place), folders, files


def list_once(folder: Path) -> None:
    """Of a folder in object storage, list all files, so that no question about one of them is a request."""
    if is_remote(folder):
        remote_files(folder)


def container_of(path: Path) -> tuple[Path, str] | None:
    """The file that a path leads into, and the name of the member there; None for any other path."""
    for parent in reversed(path.parents):
        if is_container(parent.name) and is_file(parent):
            return parent, path.relative_to(parent).as_posix()
    return None


def open_stored(path: Path, expected: str) -> BinaryIO:
    """Open a regular file, or a member of a container, for reading. The caller closes it. A member has no `fileno`.

    Raises as `open_input`: FileNotFoundError for a member that is not there, and InputFileError for a container that
    can't be read.
    """
    try:
        place = container_of(path) if is_remote(path) else None
        if place is None:
            return open_input(path, expected)
    except NotADirectoryError:
        place = container_of(path)
        if place is None:
            raise
    container, name = place
    index = container_index(container)
    if isinstance(index, ParquetIndex):
        return io.BytesIO(row_bytes(index, _found(index.members.get(name), path)))
    file = open_input(container, "a tar file")
    try:
        offset, size = _found(index.members.get(name), path)
        return cast(BinaryIO, io.BufferedReader(_Member(file, offset, size)))
    except BaseException:
        file.close()
        raise


def read_stored(path: Path, expected: str, largest: int) -> bytes:
    """The bytes of a file or a member. Raises as `open_stored`, and InputFileError for more than `largest` bytes."""
    with open_stored(path, expected) as file:
        size = file.seek(0, os.SEEK_END)
        if size > largest:
            raise InputFileError(
                f"{path}: expected {expected} of at most {largest >> 20} MB, got {size:,} bytes; check that it is the "
                "right one"
            )
        file.seek(0)
        return file.read()


def stored_size(path: Path) -> int:
    """The bytes of a file, or of a member of a container. Raises OSErrors, and InputFileError as `open_stored`."""
    try:
        place = container_of(path) if is_remote(path) else None
        if place is None:
            return remote_info(path).size if is_remote(path) else path.stat().st_size
    except NotADirectoryError:
        place = container_of(path)
        if place is None:
            raise
    index = container_index(place[0])
    if isinstance(index, ParquetIndex):
        return row_size(index, _found(index.members.get(place[1]), path))
    return _found(index.members.get(place[1]), path)[1]


def container_index(path: Path) -> TarIndex | ParquetIndex:
    """The members of a container. Raises as `read_tar_index` or `read_parquet_index`, and OSErrors."""
    state = _state(path)
    with _lock:
        if state in _indexes:
            _indexes.move_to_end(state)
            return _indexes[state]
    index: TarIndex | ParquetIndex
    if path.suffix.lower() == PARQUET:
        index = read_parquet_index(path)
    else:
        with open_input(path, "a tar file") as file:
            index = read_tar_index(file, path)
    with _lock:
        _indexes[state] = index
        while len(_indexes) > 1 and sum(len(one.members) for one in _indexes.values()) > _MOST_KEPT:
            _indexes.popitem(last=False)
    return index


def _state(path: Path) -> tuple[str, str, int]:
    """What changes when a file does."""
    if is_remote(path):
        info = remote_info(path)
        return os.fspath(path), info.version, info.size
    status = path.stat()
    return os.fspath(path.absolute()), str(status.st_mtime_ns), status.st_size


_indexes: OrderedDict[tuple[str, str, int], TarIndex | ParquetIndex] = OrderedDict()
_lock = threading.Lock()


def _found(place: Place | None, path: Path) -> Place:
    """The place of a member. Raises FileNotFoundError if the container has no such member."""
    if place is None:
        raise FileNotFoundError(f"{path}: expected a member of {path.parent}, got no such member; check the name")
    return place


class _Member(io.RawIOBase):
    """A part of an open file, which it closes."""

    def __init__(self, file: BinaryIO, offset: int, size: int) -> None:
        self._file, self._offset, self._size, self._place = file, offset, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence]
        if start + offset < 0:
            raise ValueError(f"expected a place from 0, got {start + offset}")
        self._place = start + offset
        return self._place

    def readinto(self, buffer: Any) -> int:
        count = max(min(len(buffer), self._size - self._place), 0)
        self._file.seek(self._offset + self._place)
        data = self._file.read(count)
        if len(data) < count:
            raise InputFileError(
                f"{self._file.name}: expected a whole file, got one that became shorter; read it again"
            )
        buffer[:count] = data
        self._place += count
        return count

    def close(self) -> None:
        self._file.close()
        super().close()
