"""Which images of a VOC folder belong to which split: the lists of ImageSets/Main, or a rule where they lack."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from detpipe.datasets.image_file import IMAGE_SUFFIXES
from detpipe.datasets.source import Split

DEFAULT_TRAIN, DEFAULT_TEST = "trainval", "test"
"""The names of VOC's own lists. Only for these another list, or a rule, may stand in."""


@dataclass(frozen=True)
class Division:
    """The names in each split, in order, each once, and the rule that made it, as a phrase for the log."""

    names: Mapping[Split, Sequence[str]]
    rule: str


class ImageLists:
    """The lists in one folder. A list that is not there is None."""

    def __init__(self, folder: Path, known: Collection[str]) -> None:
        """known: the names of all images and annotations; they tell a name with blanks from a name and a flag."""
        self.folder = folder
        self._known = known
        self._files = sorted(folder.glob("*.txt")) if folder.is_dir() else []

    def read(self, name: str) -> list[str] | None:
        """The names in `name`.txt in their order, each once; or those of all per-class lists *_`name`.txt, sorted.

        A per-class list says -1, 0 or 1 after each name; all of its images belong to the split.
        """
        lines = self.lines(name)
        return None if lines is None else list(dict.fromkeys(lines))

    def lines(self, name: str) -> list[str] | None:
        """As `read`, but a name that stands twice in a plain list comes twice."""
        plain = [file for file in self._files if file.stem == name]
        if plain:
            return self._names(plain[0])
        per_class = [file for file in self._files if file.stem.endswith(f"_{name}")]
        if per_class:
            return sorted({one for file in per_class for one in self._names(file)})
        return None

    def wanted(self, name: str) -> list[str]:
        """As `read`, for a list that must be there. Raises FileNotFoundError that says which lists there are."""
        names = self.read(name)
        if names is None:
            there = ", ".join(file.stem for file in self._files) or "none"
            raise FileNotFoundError(f"{self.folder}: expected the list {name}.txt, there are: {there}")
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
        """The stem of a name that was written with a folder or a suffix; a name with a dot of its own stays."""
        if name in self._known:
            return name
        path = PurePosixPath(name.replace("\\", "/"))
        return path.stem if path.suffix.lower() in (*IMAGE_SUFFIXES, ".xml") else path.name


def divide(
    lists: ImageLists, annotated: Sequence[str], *, train: str, val: str | None, test: str, seed: int, share: float
) -> Division:
    """Find the names of each split.

    The named lists where they are there. Else, for VOC's own names only: train.txt stands in for trainval.txt; train
    and val lists without a test list give train and test; of one list alone the other side is what is annotated but not
    in it; where nothing is left of that, or without any list, a split by seed and name (`seeded_split`). Sides that a
    rule makes never share an image. Raises FileNotFoundError for a list named otherwise that is not there.
    """
    val_names = lists.wanted(val) if val is not None else None
    train_names = lists.read(train) if train == DEFAULT_TRAIN else lists.wanted(train)
    test_names = lists.read(test) if test == DEFAULT_TEST else lists.wanted(test)
    rule = [f"train is the list {train}", f"test is the list {test}"]
    if test_names is None and val_names is None:
        train, train_names, test_names = _val_as_test(lists, train, train_names)
        rule = [f"train is the list {train}", "test is the list val, as there is no list test"]
    if train_names is None:
        train_names = lists.read("train")
        rule[0] = f"train is the list train, as there is no list {train}"
    held = set(val_names or ())
    if train_names is None and test_names is None:
        train_names, test_names = seeded_split(_without(annotated, held), seed, share)
        rule = [f"no lists: of the annotated images {share:.0%} are test, by seed {seed} and name"]
    elif test_names is None:
        assert train_names is not None  # both None is the case above
        test_names = _without(annotated, held | set(train_names))
        rule[1] = "test is what is annotated and not in that list"
        if not test_names:
            train_names, test_names = seeded_split(train_names, seed, share)
            rule[1] = f"of that list {share:.0%} are test, by seed {seed} and name"
    elif train_names is None:
        train_names = _without(annotated, held | set(test_names))
        rule[0] = "train is what is annotated and not in the list of test"
    names = {Split.train: train_names, Split.test: test_names}
    if val_names is not None:
        names[Split.val] = val_names
    return Division(names, "; ".join(rule))


def _val_as_test(
    lists: ImageLists, train: str, train_names: list[str] | None
) -> tuple[str, list[str] | None, list[str] | None]:
    """The list val as test, with the list `train`, or else train.txt for VOC's own trainval, if they share no image.

    Returns the name of the list to train on, its names, and those to test on; unchanged and None where it can't be.
    """
    rest = lists.read("val")
    candidates = [(train, train_names)]
    if train == DEFAULT_TRAIN:
        candidates.append(("train", lists.read("train")))
    for name, names in candidates:
        if rest is not None and names is not None and not set(names) & set(rest):
            return name, names, rest
    return train, train_names, None


def seeded_split(names: Sequence[str], seed: int, share: float) -> tuple[list[str], list[str]]:
    """Two sides of `names`, each in its order: the second has `share` of them, rounded, and neither is empty.

    Which names are in it depends on the seed and the set of names only, not on their order. One name or none: the
    second side is empty.
    """
    shuffled = sorted(
        names, key=lambda name: hashlib.blake2b(f"{seed}:{name}".encode("utf-8", "surrogateescape")).digest()
    )
    count = min(max(1, round(share * len(names))), max(0, len(names) - 1))
    second = set(shuffled[:count])
    return [name for name in names if name not in second], [name for name in names if name in second]


def _without(names: Iterable[str], others: Collection[str]) -> list[str]:
    return [name for name in names if name not in others]
