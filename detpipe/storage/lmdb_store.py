"""Reader and writer of key-value records in an LMDB: batched transactions into a growing map, lazy opening for reading.

As in Caffe's db_lmdb.cpp, 1000 puts form a batch, which is kept in memory so that it can be written again after the map
was full; a full map doubles its size.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat
import struct
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import lmdb

from detpipe.storage.atomic import NO_ROOM, no_room
from detpipe.storage.lmdb_pages import DATA, MAX_KEY, DatabaseError, check_header, check_pages, is_begun

logger = logging.getLogger(__name__)

__all__ = ["MAX_KEY", "DatabaseError", "LmdbReader", "LmdbWriter"]

LOCK = "lock.mdb"
_MAX_CHECKED = 20_000
_LEAST_MAP, _GROWTH = 1 << 28, 16
"""Bytes of a reader's map for a small file, and its size as a multiple of the file's. It takes addresses, no memory."""
_LOCK_BYTES = 1 << 13
"""Bytes of LMDB's lock file, for 126 readers."""
_FLOCK = struct.Struct("hhqqi0q")  # struct flock of Linux: type, whence, start, length, process

_File = tuple[int, int]
"""Device and inode of a data.mdb."""


class _Environment:
    """An LMDB that this process has open. LMDB must not be opened twice in one process, so readers share it.

    env: None after close, and in a process forked from the one that opened it. users: readers that have not closed it.
    """

    def __init__(self, env: Any, *, writable: bool) -> None:
        self.env, self.writable, self.users = env, writable, 1

    def close(self) -> None:
        """Close it for all users."""
        env, self.env = self.env, None
        if env is not None:
            env.close()


_lock = threading.Lock()
"""Held while databases are opened and closed."""
_environments: weakref.WeakValueDictionary[_File, _Environment] = weakref.WeakValueDictionary()
_checked: dict[tuple[_File, int, int, int], None] = {}
"""Files with verified pages, as of their size, time of change and transaction."""


def _forget_environments() -> None:
    """In a forked process: close the parent's environments, which LMDB does not allow to use here."""
    global _lock
    _lock = threading.Lock()  # another thread of the parent may have held it
    for environment in list(_environments.values()):
        if environment.writable:
            environment.env = None  # the parent may be writing: its locks are not ours to release
        else:
            environment.close()
    _environments.clear()


os.register_at_fork(after_in_child=_forget_environments)


def _opened(path: Path, *, writable: bool, **options: Any) -> _Environment:
    """Open the LMDB in a folder and verify its pages. Needs _lock. Raises DatabaseError, and OSError on a full disk.

    The pages are verified inside a read transaction: a writer in another process then leaves them as they are.
    """
    file = path / DATA
    is_new = writable and (not file.exists() or (file.is_file() and not is_begun(path)))
    if not is_new:
        check_header(path)
    if writable:
        _allocate_lock(path)
    try:
        with _database_errors(path):
            env = lmdb.open(str(path), subdir=True, **options)
    except OSError:
        if is_new:  # the first pages may be there in part
            file.unlink(missing_ok=True)
        raise
    try:
        if not is_new:
            with _database_errors(path), env.begin() as transaction:
                _check_once(path, transaction.id(), for_writing=writable)
        environment = _Environment(env, writable=writable)
        _environments[_file_of(path)] = environment
    except BaseException:
        env.close()
        raise
    return environment


def _allocate_lock(path: Path) -> None:
    """Give the lock file its space on the disk: LMDB writes it through a memory map, where a full disk is SIGBUS."""
    if not hasattr(os, "posix_fallocate"):  # macOS
        return
    file = path / LOCK
    handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        os.posix_fallocate(handle, 0, _LOCK_BYTES)
    except OSError as error:
        if error.errno in NO_ROOM:
            raise no_room(file, error) from error
        logger.debug("%s: this file system reserves no space: %s", file, error)
    finally:
        os.close(handle)


def _check_once(path: Path, transaction: int, *, for_writing: bool) -> None:
    """Verify the pages of a file, if that has not been done since its last change."""
    status = (path / DATA).stat()
    state = (_file_of(path), status.st_size, status.st_mtime_ns, transaction)
    if for_writing or state not in _checked:
        begun = time.perf_counter()
        check_pages(path, for_writing=for_writing)
        megabytes = status.st_size / 1e6
        logger.debug("%s: verified the pages of %.1f MB in %.3f s", path, megabytes, time.perf_counter() - begun)
        if len(_checked) >= _MAX_CHECKED:
            _checked.clear()
        _checked[state] = None


def _file_of(path: Path) -> _File:
    status = (path / DATA).stat()
    return status.st_dev, status.st_ino


def _open_for_reading(path: Path) -> _Environment:
    """The environment of a file, shared by all readers of this process. Needs _lock."""
    if not (path / DATA).exists():
        raise _missing(path)
    found = _environments.get(_file_of(path))
    if found is None or found.env is None:
        # A map larger than the file, because another process may make the file larger meanwhile.
        size = (path / DATA).stat().st_size
        options = {"readonly": True, "lock": _is_being_written(path), "map_size": max(_LEAST_MAP, _GROWTH * size)}
        return _opened(path, writable=False, **options)
    if found.writable:
        raise DatabaseError(
            f"{path}: expected a database to read, got one that this process is writing; close it first"
        )
    found.users += 1
    return found


def _open_for_writing(path: Path, map_size: int) -> _Environment:
    """The environment of a new or existing file. Needs _lock."""
    if (path / DATA).exists():
        found = _environments.get(_file_of(path))
        if found is not None and found.env is not None:
            raise DatabaseError(
                f"{path}: expected a database to write, got one that this process has open; close it first"
            )
    environment = _opened(path, writable=True, map_size=map_size)
    environment.env.reader_check()  # pages that a killed reader needed may be used again
    return environment


def _is_being_written(path: Path) -> bool:
    """Whether another process has a database open for writing.

    A reader then takes LMDB's lock file, so that the writer leaves its pages as they are. Else it does not: the folder
    may be read-only, or on a network file system, where LMDB's locks do not work. A writer that begins later may change
    pages under a reader without the lock. A finished artefact has no such writer: it is made again in a new file.
    """
    file = path / LOCK
    if sys.platform != "linux" or not file.exists() or not stat.S_ISREG(file.lstat().st_mode):
        return False
    import fcntl

    try:
        with file.open("rb") as lock:
            asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 1, 0)
            answer = fcntl.fcntl(lock, fcntl.F_GETLK, asked)
    except OSError:
        return False
    return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK) and os.access(file, os.W_OK)


def _missing(path: Path) -> DatabaseError:
    return DatabaseError(f"{path}: expected an LMDB folder with data.mdb, got none; run the stage that makes it")


@contextlib.contextmanager
def _database_errors(path: Path) -> Iterator[None]:
    """Turn LMDB's own errors into DatabaseErrors that name the path, and errors of a full disk into OSErrors."""
    try:
        yield
    except lmdb.DiskError as error:
        raise no_room(path / DATA, OSError(errno.ENOSPC, "")) from error
    except lmdb.Error as error:
        raise _database_error(path, error) from error


def _database_error(path: Path, error: Exception) -> DatabaseError:
    if isinstance(error, lmdb.MapResizedError):
        return DatabaseError(f"{path}: expected a file as it was opened, got one that has grown; close and reopen it")
    return DatabaseError(f"{path}: expected an intact LMDB, got: {error}; copy or make it again")


class LmdbWriter:
    """Collects puts in a batch and writes each batch in one transaction. Committed records survive a kill.

    path: the folder of data.mdb. It is created if missing; an existing database is continued.
    map_size: initial size in bytes; it doubles whenever the map is full, so it need not be estimated.
    transaction, transaction_bytes: the batch is committed after this many puts or bytes. The limit on bytes is for raw
    photographs, of which a thousand could fill the memory.
    """

    def __init__(
        self, path: Path, *, map_size: int = 1 << 24, transaction: int = 1000, transaction_bytes: int = 1 << 26
    ) -> None:
        for file in (path / DATA, path / LOCK):
            if file.is_symlink():  # its target may be outside the folder
                raise DatabaseError(f"{file}: expected a file to write, got a link to {file.readlink()}; remove it")
        path.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._transaction, self._transaction_bytes = transaction, transaction_bytes
        self._batch: dict[bytes, bytes] = {}
        self._batch_bytes = 0
        with _lock:
            self._environment = _open_for_writing(path, map_size)
        self._env = self._environment.env
        # LMDB opens an existing database with its own size; if that is almost full, it grows on the first commit.
        self._map_size = max(int(self._env.info()["map_size"]), map_size)

    def put(self, key: bytes, value: bytes) -> None:
        """Add one record; it is on disk after the next commit. Raises ValueError for an empty or too long key."""
        if not 0 < len(key) <= MAX_KEY:
            raise ValueError(f"{self.path}: expected a key of 1 to {MAX_KEY} bytes, got {len(key)}: {key[:80]!r}…")
        self._batch[key] = value
        self._batch_bytes += len(value)
        if len(self._batch) >= self._transaction or self._batch_bytes >= self._transaction_bytes:
            self.commit()

    def commit(self) -> None:
        """Write the batch to disk. If the map is full, double it and write again. A full disk raises OSError.

        After an OSError the database contains all earlier commits, and the same command can be resumed.
        """
        if not self._batch:
            return
        if self._environment.env is None:
            raise DatabaseError(
                f"{self.path}: expected an open database, got one that was closed, or opened before a fork; open it in "
                "this process"
            )
        while True:
            try:
                with self._env.begin(write=True) as transaction:
                    for key, value in self._batch.items():
                        transaction.put(key, value)
                break
            except lmdb.MapFullError:
                self._map_size *= 2
                self._env.set_mapsize(self._map_size)
            except lmdb.Error as error:
                raise OSError(
                    f"{self.path}: could not write {len(self._batch)} records: {error}; "
                    "the disk may be full. Earlier records are safe: free some space and run the same command again"
                ) from error
        self._batch.clear()
        self._batch_bytes = 0

    def __contains__(self, key: bytes) -> bool:
        if key in self._batch:
            return True
        with self._env.begin() as transaction:
            return transaction.get(key) is not None

    def __len__(self) -> int:
        """Number of records on disk, without the current batch."""
        return int(self._env.stat()["entries"])

    def close(self) -> None:
        """Commit the batch and close the database."""
        try:
            self.commit()
        finally:
            self._close()

    def _close(self) -> None:
        with _lock:
            self._environment.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None or not issubclass(kind, OSError):
            self.close()
        else:  # The disk is full: a second attempt to write the batch would hide the first error.
            self._close()


class LmdbReader:
    """Reads records by key or in key order.

    It can be pickled. Each process opens the database on first use, and verifies its pages once; all readers of a file
    share one environment, which threads may use at the same time. After a fork the child opens its own.
    """

    def __init__(self, path: Path) -> None:
        if not (path / DATA).exists():
            raise _missing(path)
        self.path = path
        self._environment: _Environment | None = None

    def _open(self) -> Any:
        environment = self._environment
        env = None if environment is None else environment.env
        if env is None:  # not used yet, or used before a fork
            with _lock:
                if self._environment is None or self._environment.env is None:
                    self._environment = _open_for_reading(self.path)
                env = self._environment.env
        return env

    def get(self, key: bytes) -> bytes:
        """The value of `key`. Raises KeyError, which names the database, if the key is missing."""
        value = self._read(key)
        if value is None:
            raise KeyError(f"{self.path}: no record {key!r}")
        return bytes(value)

    def _read(self, key: bytes) -> Any:
        try:
            with self._open().begin() as transaction:
                return transaction.get(key)
        except lmdb.BadValsizeError:  # no record has an empty or too long key
            return None
        except lmdb.Error as error:
            raise _database_error(self.path, error) from error

    def keys(self) -> Iterator[bytes]:
        """All keys in byte order."""
        with (
            _database_errors(self.path),
            self._open().begin() as transaction,
            transaction.cursor() as cursor,
        ):
            yield from (bytes(key) for key in cursor.iternext(keys=True, values=False))

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """All (key, value) pairs in byte order of the keys. Raises DatabaseError at a damaged page."""
        yield from ((key, bytes(value)) for key, value in self.views())

    def views(self) -> Iterator[tuple[bytes, memoryview]]:
        """As `items`, with values as views of the map, which are not copied. A view is valid until the next record."""
        with (
            _database_errors(self.path),
            self._open().begin(buffers=True) as transaction,
            transaction.cursor() as cursor,
        ):
            yield from ((bytes(key), memoryview(value)) for key, value in cursor)

    def stored(self) -> Iterator[tuple[int, bytes, memoryview]]:
        """(place in key order, key, value) of all records, in the order that is fastest to read: here in key order.

        A view is valid until the next record.
        """
        yield from ((place, key, value) for place, (key, value) in enumerate(self.views()))

    def __contains__(self, key: bytes) -> bool:
        return self._read(key) is not None

    def __len__(self) -> int:
        with _database_errors(self.path):
            return int(self._open().stat()["entries"])

    def close(self) -> None:
        """Close the database, unless another reader uses it; a later read opens it again."""
        with _lock:
            environment, self._environment = self._environment, None
            if environment is not None:
                environment.users -= 1
                if not environment.users:
                    environment.close()

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_environment": None}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
