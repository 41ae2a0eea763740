"""shards.json: the index of an LMDB in shards. Its folder has the shards, each an LMDB with a manifest of its own."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from detpipe.storage.dataclass_json import DataclassJsonError, read_dataclass
from detpipe.storage.lmdb_pages import DATA, DatabaseError

INDEX = "shards.json"
SHARD_NAME = re.compile(r"(\d{4})-of-(\d{4})")
"""The name of a shard's folder: its task, and the number of tasks."""


@dataclass(frozen=True, kw_only=True)
class IndexedShard:
    """A shard: its folder's name, its number of records, and the digest of its manifest's key."""

    folder: str
    records: int
    digest: str


@dataclass(frozen=True, kw_only=True)
class ShardIndex:
    """stage: the command that made the shards. shards: in the order of the data set.

    seed: the keys of the whole are those that `shuffled_keys` gives with it; None: they are the keys of the shards.
    """

    stage: str
    shards: list[IndexedShard]
    seed: int | None = None


def is_in_shards(path: Path) -> bool:
    """Whether the LMDB in a folder is read from its shards: it has an index, and no file of its own."""
    return (path / INDEX).exists() and not (path / DATA).exists()


def is_lmdb(path: Path) -> bool:
    """Whether a folder has an LMDB, in one file or in shards."""
    return (path / DATA).exists() or (path / INDEX).exists()


def data_files(path: Path) -> list[Path]:
    """The files of an LMDB: its own, or its shards' files. Raises DatabaseError as `read_index`."""
    return [path / one.folder / DATA for one in read_index(path).shards] if is_in_shards(path) else [path / DATA]


def read_index(path: Path) -> ShardIndex:
    """The index in a folder. Raises DatabaseError, which names the file, for a missing or damaged one."""
    file = path / INDEX
    try:
        index = read_dataclass(file, ShardIndex)
    except (DataclassJsonError, OSError) as error:
        raise _damaged(file, str(error).removeprefix(f"{file}: ")) from error
    for one in index.shards:
        if not SHARD_NAME.fullmatch(one.folder):  # a path could lead out of the folder
            raise _damaged(file, f"{one.folder!r} in place of a folder such as 0001-of-0016")
    if not index.shards:
        raise _damaged(file, "no shards")
    if any(one.records < 0 for one in index.shards) or (index.seed is not None and index.seed < 0):
        raise _damaged(file, "a number below 0")
    return index


def _damaged(file: Path, found: str) -> DatabaseError:
    return DatabaseError(
        f"{file}: expected an index of shards, got: {found}; run the command that made it again with the same tasks "
        "and merge=false, which writes it again"
    )
