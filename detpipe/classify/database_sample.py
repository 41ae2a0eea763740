"""A sample of the records of a database, drawn evenly by class."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import numpy as np

from detpipe.storage.lmdb_store import LmdbReader
from detpipe.structures import Int64Array


def evenly_by_class(labels: Int64Array, count: int, seed: int) -> Int64Array:
    """Random indices of at most `count` of N records: one of each class, then a second of each, and so on.

    labels: (N,). If there are more classes than `count`, the classes are drawn at random. Returns (M,) int64 in the
    order of the labels, M = min(N, count). No labels give none.
    """
    generator = np.random.default_rng(seed)
    shuffled = generator.permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    classes, begins, sizes = np.unique(labels[by_class], return_index=True, return_counts=True)
    rank = np.arange(len(labels)) - np.repeat(begins, sizes)
    class_rank = np.repeat(generator.permutation(len(classes)), sizes)
    chosen = by_class[np.lexsort((class_rank, rank))[:count]]
    return chosen[np.lexsort((chosen, labels[chosen]))].astype(np.int64)


def read_at(shards: Iterable[Path], indices: Collection[int]) -> Iterator[tuple[int, bytes, bytes]]:
    """(index, key, value) of the records with these indices, which count in key order, shard after shard.

    shards: LMDB folders. Indices beyond the end are left out. Other values are not read.
    Raises DatabaseError at a damaged page.
    """
    wanted, index = set(indices), 0
    for shard in shards:
        with LmdbReader(shard) as store:
            for key, value in store.views():
                if not wanted:
                    return
                if index in wanted:
                    wanted.remove(index)
                    yield index, key, bytes(value)
                index += 1
