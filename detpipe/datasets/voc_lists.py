"""Splits of a VOC folder: the lists in ImageSets/Main, or a rule if lists are missing."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from detpipe.datasets.image_file import IMAGE_SUFFIXES
from detpipe.datasets.source import Split

DEFAULT_TRAIN, DEFAULT_TEST = "trainval", "test"
"""The names of VOC's standard lists. Only these may be replaced by another list or a rule if they are missing."""


@dataclass(frozen=True)
class Division:
    """names: the unique names of each split, in order. rule: how they were chosen, as a phrase for the log."""

    names: Mapping[Split, Sequence[str]]
    rule: str


class ImageLists:
    """The lists in one folder. A missing list is None."""

    def __init__(self, folder: Path, known: Collection[str]) -> None:
        """known: the names of all images and annotations, to tell a name with spaces from a name with a flag."""
        self.folder = folder
        self._known = known
        self._files = sorted(folder.glob("*.txt")) if folder.is_dir() else []

    def read(self, name: str) -> list[str] | None:
        """The unique names in `name`.txt, in order; else those of all per-class lists *_`name`.txt, sorted.

        A per-class list has -1, 0 or 1 after each name; all of its images belong to the split.
        """
        lines = self.lines(name)
        return None if lines is None else list(dict.fromkeys(lines))

    def lines(self, name: str) -> list[str] | None:
        """As `read`, but with the repeated names of a plain list."""
        plain = [file for file in self._files if file.stem == name]
        if plain:
            return self._names(plain[0])
        per_class = [file for file in self._files if file.stem.endswith(f"_{name}")]
        if per_class:
            return sorted({one for file in per_class for one in self._names(file)})
        return None

    def read_required(self, name: str) -> list[str]:
        """As `read`, but raises FileNotFoundError, which names the existing lists, if the list is missing."""
        names = self.read(name)
        if names is None:
            there = ", ".join(file.stem for file in self._files) or "none"
            raise FileNotFoundError(f"{self.folder}: expected the list {name}.txt, got these lists: {there}")
        return names

    def _names(self, file: Path) -> list[str]:
        try:
            lines = file.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise ValueError(f"{file}: expected a list of image names in UTF-8, got other bytes ({error})") from error
        return [self._name(line.strip()) for line in lines if line.strip()]

    def _name(self, line: str) -> str:
        if line in self._known:
            return line
        *name, flag = line.rsplit(None, 1)
        if name and flag in ("-1", "0", "1"):
            return self._without_suffix(name[0])
        return self._without_suffix(line)

    def _without_suffix(self, name: str) -> str:
        """The name without folder and image suffix; other dots in the name are kept."""
        if name in self._known:
            return name
        path = PurePosixPath(name.replace("\\", "/"))
        return path.stem if path.suffix.lower() in (*IMAGE_SUFFIXES, ".xml") else path.name


def divide(
    lists: ImageLists, annotated: Sequence[str], *, train: str, val: str | None, test: str, seed: int, share: float
) -> Division:
    """Find the names of each split.

    Existing lists are used as they are. If VOC's standard lists are missing, these rules apply:
    - train.txt replaces trainval.txt.
    - Lists train and val without a list test: val becomes test.
    - Only one of train and test exists: the other split is all other annotated images.
    - No list, or no other annotated images: a random split by seed and name (`seeded_split`).
    Splits that a rule makes never share an image. Raises FileNotFoundError for a missing list with another name.
    """
    val_names = lists.read_required(val) if val is not None else None
    train_names = lists.read(train) if train == DEFAULT_TRAIN else lists.read_required(train)
    test_names = lists.read(test) if test == DEFAULT_TEST else lists.read_required(test)
    rule = [f"train is the list {train}", f"test is the list {test}"]
    if test_names is None and val_names is None:
        train, train_names, test_names = _val_as_test(lists, train, train_names)
        rule = [f"train is the list {train}", "test is the list val, as there is no list test"]
    if train_names is None:
        train_names = lists.read("train")
        rule[0] = f"train is the list train, as there is no list {train}"
    val_set = set(val_names or ())
    if train_names is None and test_names is None:
        train_names, test_names = seeded_split(_without(annotated, val_set), seed, share)
        rule = [f"no lists: {share:.0%} of the annotated images are test, by seed {seed} and name"]
    elif test_names is None:
        assert train_names is not None  # the case of both None is above
        test_names = _without(annotated, val_set | set(train_names))
        rule[1] = "test is all other annotated images"
        if not test_names:
            train_names, test_names = seeded_split(train_names, seed, share)
            rule[1] = f"{share:.0%} of that list are test, by seed {seed} and name"
    elif train_names is None:
        train_names = _without(annotated, val_set | set(test_names))
        rule[0] = "train is all other annotated images"
    names = {Split.train: train_names, Split.test: test_names}
    if val_names is not None:
        names[Split.val] = val_names
    return Division(names, "; ".join(rule))


def _val_as_test(
    lists: ImageLists, train: str, train_names: list[str] | None
) -> tuple[str, list[str] | None, list[str] | None]:
    """Use the list val as test if it shares no image with the list `train`, or with train.txt instead of trainval.

    Returns the name of the training list, its names, and the test names. If neither list fits, returns `train` and
    `train_names` unchanged and None.
    """
    val_names = lists.read("val")
    candidates = [(train, train_names)]
    if train == DEFAULT_TRAIN:
        candidates.append(("train", lists.read("train")))
    for name, names in candidates:
        if val_names is not None and names is not None and not set(names) & set(val_names):
            return name, names, val_names
    return train, train_names, None


def seeded_split(names: Sequence[str], seed: int, share: float) -> tuple[list[str], list[str]]:
    """Split `names` at random into two lists, each in the order of `names`; the second has `share` of them, rounded.

    The split depends only on the seed and the set of names, not on their order. With two or more names neither list is
    empty; with one name or none the second list is empty.
    """
    shuffled = sorted(
        names, key=lambda name: hashlib.blake2b(f"{seed}:{name}".encode("utf-8", "surrogateescape")).digest()
    )
    count = min(max(1, round(share * len(names))), max(0, len(names) - 1))
    second = set(shuffled[:count])
    return [name for name in names if name not in second], [name for name in names if name in second]


def _without(names: Iterable[str], others: Collection[str]) -> list[str]:
    return [name for name in names if name not in others]
