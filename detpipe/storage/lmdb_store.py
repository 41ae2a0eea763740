"""Bytes by key in an LMDB: written in transactions into a map that grows, read lazily in every process.

The habits are those of Caffe's db_lmdb.cpp: batches of 1000 puts, kept so that they can be put again after the map
was full, and a map that doubles.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import lmdb

MAX_KEY = 511
"""Bytes of a key: LMDB's compiled-in limit."""


class DatabaseError(ValueError):
    """A database that is not there, not whole, or not an LMDB."""


def _open(path: Path, **options: Any) -> Any:
    """The LMDB environment in a folder. Raises DatabaseError where it is none, or data.mdb was cut short."""
    try:
        env = lmdb.open(str(path), subdir=True, **options)
    except lmdb.Error as error:
        raise DatabaseError(
            f"{path}: expected an LMDB, got: {error}; close it where this process has it open, or make it again"
        ) from error
    # LMDB maps the file as it says it is: a read behind the end of an unfinished copy would kill the process (SIGBUS).
    wanted = (env.info()["last_pgno"] + 1) * env.stat()["psize"]
    size = (path / "data.mdb").stat().st_size
    if size < wanted:
        env.close()
        raise DatabaseError(
            f"{path}: expected {wanted} bytes of data.mdb, got {size}: cut short; copy or make it again"
        )
    return env


class LmdbWriter:
    """Puts go into a batch; the batch goes to disk in one transaction. What was committed survives a kill.

    path: the folder of data.mdb, made where it is not there; an existing database is continued.
    map_size: bytes to start with; doubled whenever the map is full, so that it needs no guess.
    transaction, transaction_bytes: a commit is made at so many puts, or where they hold so many bytes: records of raw
    photographs would otherwise fill the memory before the thousandth.
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
        # A database that was left almost full: LMDB opens it with its old size, and grows on the first commit.
        self._map_size = max(int(self._env.info()["map_size"]), map_size)

    def put(self, key: bytes, value: bytes) -> None:
        """Take one record; it is on disk after the next commit. Raises ValueError for a key LMDB can't hold."""
        if not 0 < len(key) <= MAX_KEY:
            raise ValueError(f"{self.path}: expected a key of 1 to {MAX_KEY} bytes, got {len(key)}: {key[:80]!r}…")
        self._batch[key] = value
        self._batch_bytes += len(value)
        if len(self._batch) >= self._transaction or self._batch_bytes >= self._transaction_bytes:
            self.commit()

    def commit(self) -> None:
        """Put the batch on disk. A full map doubles and takes the batch again; a full disk raises OSError.

        After an OSError the database holds all earlier commits, and the same command can go on from there.
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
                    "is the disk full? What was committed before is safe: make room and run the same command again"
                ) from error
        self._batch.clear()
        self._batch_bytes = 0

    def __contains__(self, key: bytes) -> bool:
        if key in self._batch:
            return True
        with self._env.begin() as transaction:
            return transaction.get(key) is not None

    def __len__(self) -> int:
        """Records on disk; those of the running batch don't count."""
        return int(self._env.stat()["entries"])

    def close(self) -> None:
        """Commit and close."""
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
        else:  # The disk is full: another try at the batch would hide the first error behind a second.
            self._env.close()


class LmdbReader:
    """Reads by key or in key order. Picklable: each process opens the database itself on its first use.

    (An LMDB handle must not cross a fork: pytorch/vision #689.)
    """

    def __init__(self, path: Path) -> None:
        if not (path / "data.mdb").is_file():
            raise DatabaseError(
                f"{path}: expected an LMDB folder with data.mdb, found none; run the stage that makes it"
            )
        self.path = path
        self._env: Any = None
        self._owner = 0

    def _open(self) -> Any:
        if self._env is None or self._owner != os.getpid():
            self.close()  # After a fork it is the parent's, and LMDB opens no second one in the same process.
            self._env = _open(self.path, readonly=True, lock=False)
            self._owner = os.getpid()
        return self._env

    def get(self, key: bytes) -> bytes:
        """The value of `key`. Raises KeyError with the database's path where there is none."""
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
        """All records in the byte order of their keys. Raises DatabaseError at a damaged page."""
        yield from ((key, bytes(value)) for key, value in self.views())

    def views(self) -> Iterator[tuple[bytes, memoryview]]:
        """As `items`, each value in place, without a copy: only what is looked at is read. It is gone with the next."""
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
        """Give the map back; a later read opens it again."""
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
