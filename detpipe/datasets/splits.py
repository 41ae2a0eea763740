"""The automatic split of a data set without lists: each image goes by a hash of its own name.

So an image stays in its split when others are added or removed, and the order of the images does not matter.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from detpipe.datasets.source import DatasetSource, Split, StoredSplit
from detpipe.storage.dataclass_json import read_dataclass
from detpipe.storage.input_file import check_input


@dataclass(kw_only=True)
class DividedSource(DatasetSource):
    """Base class of the formats with an automatic split into train and test."""

    PATHS: ClassVar[tuple[str, ...]] = ("split_file",)

    split_seed: int = 0
    """Seed of the automatic split, which is used if the data set does not say which images are for testing."""
    test_share: float = 0.2
    """Share of test images in the automatic split, from 0 to below 1; 0: all images are for training."""
    split_file: str | None = None
    """split.json of a run folder: its images keep their split; null: the split depends on names and seed only."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.test_share < 1:
            raise ValueError(f"test_share: expected a share from 0 to below 1, got {self.test_share}")

    @functools.cached_property
    def _stored(self) -> Mapping[str, Split]:
        """The split of each name in `split_file`."""
        if self.split_file is None:
            return {}
        path = Path(self.split_file)
        check_input(path, "split.json of a run folder")
        stored = read_dataclass(path, StoredSplit)
        return {**dict.fromkeys(stored.train, Split.train), **dict.fromkeys(stored.test, Split.test)}

    def divide_by_name(self, names: Sequence[str]) -> tuple[list[int], list[int]]:
        """The numbers of the training and of the test images among `names`, ascending."""
        return hash_split(names, self.split_seed, self.test_share, self._stored)

    @property
    def rule(self) -> str:
        """The automatic split in words."""
        kept = f", after the names in {self.split_file}" if self.split_file is not None else ""
        return f"about {self.test_share:.0%} are test, by the hash of name and split_seed={self.split_seed}{kept}"


def hash_split(
    names: Sequence[str], seed: int, share: float, stored: Mapping[str, Split] | None = None
) -> tuple[list[int], list[int]]:
    """Divide images by a hash of each name: the numbers of the training and of the test images, ascending.

    An image is for testing if its hash, as a number from 0 to 1, is below `share`. So about this share is; of two or
    more images with different names at least one is on each side, unless the share is 0. stored: names whose side is
    known already. No names give two empty lists.
    """
    places = {name: _place(name, seed) for name in names}
    sides = {name: Split.test if place < share else Split.train for name, place in places.items()}
    sides |= {name: side for name, side in (stored or {}).items() if name in sides}
    if share > 0 and len(sides) > 1:
        by_place = sorted(sides, key=lambda name: (places[name], name))
        if Split.test not in sides.values():
            sides[by_place[0]] = Split.test
        if Split.train not in sides.values():
            sides[by_place[-1]] = Split.train
    test = [number for number, name in enumerate(names) if sides[name] is Split.test]
    train = [number for number, name in enumerate(names) if sides[name] is not Split.test]
    return train, test


def _place(name: str, seed: int) -> float:
    text = f"{seed}:{name}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text).digest()[:8], "big") / 2**64
