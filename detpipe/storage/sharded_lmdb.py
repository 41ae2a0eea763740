"""Reader of an LMDB in shards: the records and the key order of the one LMDB that they would be merged into."""

from __future__ import annotations

import contextlib
import os
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from detpipe.storage.lmdb_pages import MAX_KEY, DatabaseError
from detpipe.storage.lmdb_store import LmdbReader
from detpipe.storage.manifest import ArtefactError, find_manifest
from detpipe.storage.shard_index import is_in_shards, read_index

MOST_OPEN = 48
"""Limit on the shards that a reader keeps open, unless more threads read at the same time."""


class DamagedShardError(DatabaseError):
    """A shard is missing or damaged."""


_lock = threading.Lock()
"""Held while a reader changes what it has open."""


def _new_lock() -> None:
    """In a forked process: another thread of the parent may have held the lock."""
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_new_lock)


def open_lmdb(path: Path) -> LmdbReader | ShardedLmdb:
    """A reader of an LMDB in one file or in shards. Raises DatabaseError if there is neither, or a damaged index."""
    return ShardedLmdb(path) if is_in_shards(path) else LmdbReader(path)


def shuffled_keys(names: Sequence[bytes], seed: int) -> list[bytes]:
    """Keys "<index>_<name>" of N records: the indices are a random permutation of 0..N-1. N = 0 gives []."""
    indices = np.random.default_rng(seed).permutation(len(names))
    return [numbered_key(int(index), name) for index, name in zip(indices, names, strict=True)]


def numbered_key(index: int, name: bytes) -> bytes:
    """The key "<index>_<name>", as in Caffe. A name that is too long is cut."""
    return (f"{index:08d}_".encode() + name)[:MAX_KEY]


def name_in(key: bytes) -> bytes:
    """The name in a key "<index>_<name>"."""
    return key.partition(b"_")[2]


@dataclass(frozen=True, eq=False)
class _Order:
    """keys: of N records, in order. places: (N,), each record's place among all shards' records, shard after shard.

    begins: of each shard, the place of its first record.
    """

    keys: list[bytes]
    places: npt.NDArray[np.int64]
    begins: list[int]


class ShardedLmdb:
    """Reads records by key or in key order, as `LmdbReader` does, from the shards of a folder with an index.

    The first read lists the keys of all shards, and compares their manifests and numbers of records with the index.
    At most MOST_OPEN shards are open at a time. Threads may read at the same time. It can be pickled. Each method
    raises DatabaseError, which names the folder, for a missing or damaged shard.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._index = read_index(path)
        self._open: dict[int, LmdbReader] = {}  # the last used is the last
        self._users = [0] * len(self._index.shards)
        self._known: _Order | None = None

    @property
    def _order(self) -> _Order:
        if self._known is None:
            keys: list[bytes] = []
            for number, shard in enumerate(self._index.shards):
                with self._opened(number) as reader:
                    self._compare(number)
                    own = list(reader.keys())
                if len(own) != shard.records:
                    raise self._damaged(number, f"{len(own)} records, not {shard.records}")
                keys += own
            if self._index.seed is not None:
                keys = shuffled_keys([name_in(key) for key in keys], self._index.seed)
            places = np.array(sorted(range(len(keys)), key=keys.__getitem__), dtype=np.int64)
            begins = [0, *accumulate(shard.records for shard in self._index.shards)][:-1]
            self._known = _Order([keys[place] for place in places.tolist()], places, begins)
        return self._known

    def _compare(self, number: int) -> None:
        """Raise DatabaseError unless a shard's manifest agrees with the index."""
        try:
            found = find_manifest(self.path / self._index.shards[number].folder)
        except ArtefactError as error:
            raise self._damaged(number, error) from error
        if found is None or found.digest != self._index.shards[number].digest:
            raise self._damaged(number, "no manifest" if found is None else "a shard of other settings or data")

    @contextlib.contextmanager
    def _opened(self, number: int) -> Iterator[LmdbReader]:
        """The reader of a shard, which is not closed in the block. Others are closed if too many are open."""
        try:
            with _lock:
                reader = self._open.pop(number, None) or LmdbReader(self.path / self._index.shards[number].folder)
                self._open[number] = reader
                self._users[number] += 1
                for other in [one for one in self._open if not self._users[one]][: max(0, len(self._open) - MOST_OPEN)]:
                    self._open.pop(other).close()
            try:
                yield reader
            finally:
                with _lock:
                    self._users[number] -= 1
        except DamagedShardError:
            raise
        except DatabaseError as error:
            raise self._damaged(number, error) from error

    def _damaged(self, number: int, found: object) -> DamagedShardError:
        folder = self.path / self._index.shards[number].folder
        return DamagedShardError(
            f"{folder}: expected an intact shard, got: {found if folder.is_dir() else 'none'}; delete this folder and "
            f"run `detpipe {self._index.stage}` again with tasks={len(self._index.shards)} merge=false, which makes it "
            "again"
        )

    def get(self, key: bytes) -> bytes:
        """The value of `key`. Raises KeyError, which names the database, if the key is missing."""
        at = self._find(key)
        if at is None:
            raise KeyError(f"{self.path}: no record {key!r}")
        return self._value(at)

    def _find(self, key: bytes) -> int | None:
        at = bisect_left(self._order.keys, key)
        return at if at < len(self._order.keys) and self._order.keys[at] == key else None

    def _value(self, at: int) -> bytes:
        order = self._order
        key, place = order.keys[at], int(order.places[at])
        number = bisect_right(order.begins, place) - 1
        if self._index.seed is not None:
            key = numbered_key(place - order.begins[number], name_in(key))
        with self._opened(number) as reader:
            try:
                return reader.get(key)
            except KeyError as error:
                raise self._damaged(number, f"no record {key!r}") from error

    def keys(self) -> Iterator[bytes]:
        """All keys in byte order."""
        return iter(self._order.keys)

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """All (key, value) pairs in byte order of the keys. `stored` is faster if the keys are shuffled."""
        for at, key in enumerate(self._order.keys):
            yield key, self._value(at)

    def views(self) -> Iterator[tuple[bytes, memoryview]]:
        """As `items`, with values as views."""
        yield from ((key, memoryview(value)) for key, value in self.items())

    def stored(self) -> Iterator[tuple[int, bytes, memoryview]]:
        """(place in key order, key, value) of all records, shard after shard. A view is valid until the next record."""
        order = self._order
        ranks = np.empty_like(order.places)
        ranks[order.places] = np.arange(len(ranks))
        for number, begin in enumerate(order.begins):
            with self._opened(number) as reader:
                for place, (_, value) in enumerate(reader.views(), start=begin):
                    rank = int(ranks[place])
                    yield rank, order.keys[rank], value

    def __contains__(self, key: bytes) -> bool:
        return self._find(key) is not None

    def __len__(self) -> int:
        return len(self._order.keys)

    def close(self) -> None:
        """Close all shards; a later read opens them again."""
        with _lock:
            for reader in self._open.values():
                reader.close()
            self._open.clear()

    def __reduce__(self) -> tuple[type[Self], tuple[Path]]:
        return type(self), (self.path,)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
