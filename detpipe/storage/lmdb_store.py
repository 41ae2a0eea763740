"""Reader and writer of key-value records in an LMDB: batched transactions into a growing map, lazy opening for reading.

As in Caffe's db_lmdb.cpp, 1000 puts form a batch, which is kept in memory so that it can be written again after the map
was full; a full map doubles its size.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import lmdb

MAX_KEY = 511
"""Limit on the bytes of a key, compiled into LMDB."""


class DatabaseError(ValueError):
    """A database is missing, incomplete, or not an LMDB."""


def _open(path: Path, **options: Any) -> Any:
    """Open the LMDB environment in a folder. Raises DatabaseError if it is not an LMDB or data.mdb is truncated."""
    try:
        env = lmdb.open(str(path), subdir=True, **options)
    except lmdb.Error as error:
        raise DatabaseError(
            f"{path}: expected an LMDB, got: {error}; close it if this process has it open, else make it again"
        ) from error
    # LMDB trusts the size in the file: a read beyond the end of an incomplete copy would kill the process (SIGBUS).
    expected = (env.info()["last_pgno"] + 1) * env.stat()["psize"]
    size = (path / "data.mdb").stat().st_size
    if size < expected:
        env.close()
        raise DatabaseError(
            f"{path}: expected {expected} bytes in data.mdb, got a truncated file of {size}; copy or make it again"
        )
    return env


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
        path.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._transaction, self._transaction_bytes = transaction, transaction_bytes
        self._batch: dict[bytes, bytes] = {}
        self._batch_bytes = 0
        self._env = _open(path, map_size=map_size)
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
        """Number of records on disk, without those of the current batch."""
        return int(self._env.stat()["entries"])

    def close(self) -> None:
        """Commit the batch and close the database."""
        try:
            self.commit()
        finally:
            self._env.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None or not issubclass(kind, OSError):
            self.close()
        else:  # The disk is full: a second attempt to write the batch would hide the first error.
            self._env.close()


class LmdbReader:
    """Reads records by key or in key order.

    It can be pickled. Each process opens the database on first use, because an LMDB handle must not be used across a
    fork (pytorch/vision #689).
    """

    def __init__(self, path: Path) -> None:
        if not (path / "data.mdb").is_file():
            raise DatabaseError(f"{path}: expected an LMDB folder with data.mdb, got none; run the stage that makes it")
        self.path = path
        self._env: Any = None
        self._owner = 0

    def _open(self) -> Any:
        if self._env is None or self._owner != os.getpid():
            self.close()  # After a fork the handle is the parent's, and LMDB can't open a second one in this process.
            self._env = _open(self.path, readonly=True, lock=False)
            self._owner = os.getpid()
        return self._env

    def get(self, key: bytes) -> bytes:
        """The value of `key`. Raises KeyError, which names the database, if the key is missing."""
        with self._open().begin() as transaction:
            value = transaction.get(key)
        if value is None:
            raise KeyError(f"{self.path}: no record {key!r}")
        return bytes(value)

    def keys(self) -> Iterator[bytes]:
        """All keys in byte order."""
        with self._open().begin() as transaction, transaction.cursor() as cursor:
            yield from (bytes(key) for key in cursor.iternext(keys=True, values=False))

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """All (key, value) pairs in byte order of the keys. Raises DatabaseError at a damaged page."""
        yield from ((key, bytes(value)) for key, value in self.views())

    def views(self) -> Iterator[tuple[bytes, memoryview]]:
        """As `items`, with values as views of the map, which are not copied. A view is valid until the next record."""
        with self._open().begin(buffers=True) as transaction, transaction.cursor() as cursor:
            try:
                yield from ((bytes(key), memoryview(value)) for key, value in cursor)
            except lmdb.Error as error:
                raise DatabaseError(
                    f"{self.path}: expected {len(self)} records, got: {error}; copy or make it again"
                ) from error

    def __contains__(self, key: bytes) -> bool:
        with self._open().begin() as transaction:
            return transaction.get(key) is not None

    def __len__(self) -> int:
        return int(self._open().stat()["entries"])

    def close(self) -> None:
        """Close the database; a later read opens it again."""
        if self._env is not None:
            self._env.close()
        self._env = None

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_env": None, "_owner": 0}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
