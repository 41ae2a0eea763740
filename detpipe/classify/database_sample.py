"""A few records of a database, drawn evenly by class, and read without those between them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import numpy as np

from detpipe.storage.lmdb_store import LmdbReader
from detpipe.structures import Int64Array


def evenly_by_class(labels: Int64Array, count: int, seed: int) -> Int64Array:
    """Places of at most `count` of N records: one of each class, then a second of each, and so on, drawn at random.

    labels: (N,). Where classes are more than `count`, which classes is drawn, too. Returns (M,) int64 in the order of
    the labels, M = min(N, count); no labels give none.
    """
    generator = np.random.default_rng(seed)
    shuffled = generator.permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    classes, begins, sizes = np.unique(labels[by_class], return_index=True, return_counts=True)
    turn = np.arange(len(labels)) - np.repeat(begins, sizes)
    class_turn = np.repeat(generator.permutation(len(classes)), sizes)
    chosen = by_class[np.lexsort((class_turn, turn))[:count]]
    return chosen[np.lexsort((chosen, labels[chosen]))].astype(np.int64)


def read_at(shards: Iterable[Path], places: Collection[int]) -> Iterator[tuple[int, bytes, bytes]]:
    """(place, key, value) of the records at these places in key order, shard after shard.

    shards: LMDB folders. Places that are not there are left out; the values between them are passed over.
    Raises DatabaseError at a damaged page.
    """
    wanted, place = set(places), 0
    for shard in shards:
        with LmdbReader(shard) as store:
            for key, value in store.views():
                if not wanted:
                    return
                if place in wanted:
                    wanted.remove(place)
                    yield place, key, bytes(value)
                place += 1
