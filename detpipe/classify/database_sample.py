"""A sample of the records of a database, drawn evenly by class and image."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import numpy as np

from detpipe.storage.sharded_lmdb import name_in, open_lmdb
from detpipe.structures import Int64Array


def evenly_by_class(labels: Int64Array, count: int, seed: int, images: Int64Array | None = None) -> Int64Array:
    """Random indices of at most `count` of N records: one of each class, then a second of each, and so on.

    labels: (N,). images: (N,), a number for the image of each record; of a class, a record of the image with the fewest
    chosen records so far is taken. None: each record is an image of its own. If there are more classes than `count`,
    the classes are drawn at random. Returns (M,) int64 in the order of the labels, M = min(N, count). No labels give
    none.
    """
    # Not the generator of the seed alone: it has shuffled the records of the database, and would undo that.
    generator = np.random.default_rng([seed, 1])
    shuffled = generator.permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    classes, begins = np.unique(labels[by_class], return_index=True)
    waiting = np.split(by_class, begins[1:]) if len(classes) else []
    order = generator.permutation(len(classes)).tolist()
    image_of = np.arange(len(labels)) if images is None else images
    chosen_of = np.zeros(int(image_of.max(initial=-1)) + 1, dtype=np.int64)
    chosen: list[int] = []
    while len(chosen) < min(count, len(labels)):
        for one in order:
            records = waiting[one]
            if not len(records) or len(chosen) == count:
                continue
            first = 0 if images is None else int(chosen_of[image_of[records]].argmin())
            chosen.append(int(records[first]))
            chosen_of[image_of[records[first]]] += 1
            waiting[one] = records[1:] if first == 0 else np.delete(records, first)
    found = np.array(chosen, dtype=np.int64)
    return found[np.lexsort((found, labels[found]))]


def image_numbers(shards: Iterable[Path]) -> Int64Array:
    """A number for the image of each record of a database of crops, (N,) int64: keys are "index_image id"."""
    numbers: dict[bytes, int] = {}
    found: list[int] = []
    for shard in shards:
        with open_lmdb(shard) as store:
            names = map(name_in, store.keys())
            found.extend(numbers.setdefault(name, len(numbers)) for name in names)
    return np.array(found, dtype=np.int64)


def read_at(shards: Iterable[Path], indices: Collection[int]) -> Iterator[tuple[int, bytes, bytes]]:
    """(index, key, value) of the records with these indices, which count in key order, shard after shard.

    shards: LMDB folders for `open_lmdb`. Indices beyond the end are left out. Other values are not read.
    Raises DatabaseError at a damaged page.
    """
    wanted, begin = set(indices), 0
    for shard in shards:
        if not wanted:
            return
        with open_lmdb(shard) as store:
            for index, key in enumerate(store.keys(), start=begin):
                if index in wanted:
                    wanted.remove(index)
                    yield index, key, store.get(key)
            begin += len(store)
