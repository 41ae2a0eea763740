"""Splits of VOC folders: the lists in ImageSets/Main, in ImageSets or beside it, or a rule if lists are missing."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from detpipe.datasets.folder_scan import is_hidden, suffix_of, without_suffix
from detpipe.datasets.image_finder import PathIndex
from detpipe.datasets.source import Split
from detpipe.datasets.text_file import read_text
from detpipe.storage.stored_file import children, is_existing_folder

DEFAULT_TRAIN, DEFAULT_TEST = "trainval", "test"
"""The names of VOC's standard lists. Only these may be replaced by another list or a rule if they are missing."""
_OTHER_NAMES = {"train": ("training",), "val": ("valid", "validation"), "test": ("testing",)}
_FORMS = ("{}", "{}_list", "list_{}", "{}list", "{}_ids", "{}_images")


@dataclass(frozen=True)
class Division:
    """ids: the unique ids of each split, in order. rule: how they were chosen, as a phrase for the log.

    automatic: whether a hash of the names decides for some images.
    """

    ids: Mapping[Split, Sequence[str]]
    rule: str
    automatic: bool = False


class ImageLists:
    """The lists of one VOC folder. A missing list is None."""

    def __init__(
        self,
        root: Path,
        known: Mapping[str, str],
        *,
        encoding: str | None = None,
        id_of: Callable[[str], str] = str,
    ) -> None:
        """known: from the path of each annotation and image, without suffix, to its name, for entries of any form.

        encoding: of lists that are not in UTF-8. id_of: from a name in this folder to the id in the data set.
        """
        self.root, self._encoding, self._id_of = root, encoding, id_of
        self._known = {**known, **{name: name for name in known.values()}}
        self._index = PathIndex(known.items())
        main, above = root / "ImageSets" / "Main", root / "ImageSets"
        self._main = [*_texts(main), *_texts(above)]
        self._files = [*self._main, *_texts(root)]
        self.folder = main if is_existing_folder(main) or not self._main else above

    def read(self, name: str) -> list[str] | None:
        """The unique ids in `name`.txt, in order; else of all per-class lists *_`name`.txt, sorted.

        A per-class list has -1, 0 or 1 after each name; all of its images belong to the split.
        """
        lines = self.lines(name)
        return None if lines is None else list(dict.fromkeys(lines))

    def lines(self, name: str) -> list[str] | None:
        """As `read`, but with the repeated names of a plain list."""
        file = self.file(name)
        if file is not None:
            return self._ids(file)
        per_class = [file for file in self._main if file.stem.endswith(f"_{name}")]
        if per_class:
            return sorted({one for file in per_class for one in self._ids(file)})
        return None

    def file(self, name: str) -> Path | None:
        """The plain list with this name: NAME.txt, else NAME_list.txt and the like; None if no list has this name.

        A list outside ImageSets counts only if it names an image of the folder.
        """
        names = [form.format(one) for form in _FORMS for one in (name, *_OTHER_NAMES.get(name, ()))]
        for one in names:
            for file in self._files:
                if file.stem.lower() == one.lower() and (file in self._main or self._names_images(file)):
                    return file
        return None

    def has(self, name: str) -> bool:
        """Whether the list exists, as a plain list or per class."""
        return self.file(name) is not None or any(file.stem.endswith(f"_{name}") for file in self._main)

    @property
    def names(self) -> list[str]:
        """The names of all lists in ImageSets, and of the files beside it that name images."""
        return [file.stem for file in self._files if file in self._main or self._names_images(file)]

    def _names_images(self, file: Path) -> bool:
        try:
            return not set(self._names(file)).isdisjoint(self._known.values())
        except (OSError, ValueError):  # not a list
            return False

    def _ids(self, file: Path) -> list[str]:
        return [self._id_of(name) for name in self._names(file)]

    def _names(self, file: Path) -> list[str]:
        text = read_text(file, "a list of image names", self._encoding)
        return [self._name(line.strip(), file) for line in text.splitlines() if line.strip()]

    def _name(self, line: str, file: Path) -> str:
        if line in self._known:
            return self._known[line]
        *first, last = line.rsplit(None, 1)
        # Behind the name there may be the flag of a per-class list, or the path of the annotation.
        if first and (last in ("-1", "0", "1") or suffix_of(last) == ".xml"):
            line = first[0]
        return self._resolved(line, file)

    def _resolved(self, entry: str, file: Path) -> str:
        """The name in the folder that an entry means: a name, or a path of any machine, with or without suffix."""
        if entry in self._known:
            return self._known[entry]
        path = entry.replace("\\", "/").removesuffix(".xml").removesuffix(".XML")
        parts = [part for part in PurePosixPath(path).parts if part not in ("/", "..")]
        found = sorted(set(self._index.find(parts))) if parts else []
        if len(found) > 1:
            raise ValueError(
                f"{file}: {entry!r} may be any of {len(found)} images: {', '.join(found[:3])}; write the path of one"
            )
        return found[0] if found else without_suffix(parts[-1]) if parts else entry


def _texts(folder: Path) -> list[Path]:
    if not is_existing_folder(folder):
        return []
    return [path for path in children(folder) if suffix_of(path.name) == ".txt" and not is_hidden(path.name)]


class UnitedLists:
    """The lists of several VOC folders: a list has the images of all folders that have it."""

    def __init__(self, lists: Sequence[ImageLists]) -> None:
        self._lists = lists

    def read(self, name: str) -> list[str] | None:
        """The unique ids of the list in all folders; None if no folder has it.

        A folder without trainval beside others that have it adds its list train.
        """
        some_have = any(one.has(name) for one in self._lists)
        names = ["train" if name == DEFAULT_TRAIN and some_have and not one.has(name) else name for one in self._lists]
        read = (one.read(own) for one, own in zip(self._lists, names, strict=True))
        found = [ids for ids in read if ids is not None]
        return list(dict.fromkeys(one for ids in found for one in ids)) if found else None

    def read_required(self, name: str) -> list[str]:
        """As `read`, but raises FileNotFoundError, which names the existing lists, if the list is missing."""
        ids = self.read(name)
        if ids is None:
            folders = ", ".join(str(one.folder) for one in self._lists)
            raise FileNotFoundError(f"{folders}: expected the list {name}.txt, got these lists: {self.text}")
        return ids

    @property
    def text(self) -> str:
        """The names of all lists, for a message."""
        return ", ".join(sorted({name for one in self._lists for name in one.names})) or "none"


Divide = Callable[[Sequence[str]], tuple[Sequence[str], Sequence[str]]]
"""From the ids of images to those for training and those for testing, by the hash of their names."""


def divide(
    lists: UnitedLists,
    annotated: Sequence[str],
    *,
    train: str,
    val: str | None,
    test: str,
    by_name: Divide,
    by_name_rule: str,
) -> Division:
    """Find the ids of each split.

    Existing lists are used as they are. If VOC's standard lists are missing, these rules apply:
    - train.txt replaces trainval.txt.
    - Lists train and val without a list test: val becomes test.
    - Only one of train and test exists: the other split is all other annotated images.
    - No list, or no other annotated images: a split by the hash of each name (`by_name`).
    Splits that a rule makes never share an image. Raises FileNotFoundError for a missing list with another name.
    """
    val_ids = lists.read_required(val) if val is not None else None
    train_ids = lists.read(train) if train == DEFAULT_TRAIN else lists.read_required(train)
    test_ids = lists.read(test) if test == DEFAULT_TEST else lists.read_required(test)
    rule = [f"train is the list {train}", f"test is the list {test}"]
    automatic = False
    if test_ids is None and val_ids is None:
        train, train_ids, test_ids = _val_as_test(lists, train, train_ids)
        rule = [f"train is the list {train}", "test is the list val, as there is no list test"]
    if train_ids is None:
        train_ids = lists.read("train")
        rule[0] = f"train is the list train, as there is no list {train}"
    val_set = set(val_ids or ())
    if train_ids is None and test_ids is None:
        train_ids, test_ids = map(list, by_name(_without(annotated, val_set)))
        unused = "" if lists.text == "none" else f" (not used: {lists.text})"
        rule, automatic = [f"no lists{unused}: of the annotated images {by_name_rule}"], True
    elif test_ids is None:
        assert train_ids is not None  # the case of both None is above
        test_ids = _without(annotated, val_set | set(train_ids))
        rule[1] = "test is all other annotated images"
        if not test_ids:
            train_ids, test_ids = map(list, by_name(train_ids))
            rule[1], automatic = f"of that list {by_name_rule}", True
    elif train_ids is None:
        train_ids = _without(annotated, val_set | set(test_ids))
        rule[0] = "train is all other annotated images"
    ids = {Split.train: train_ids, Split.test: test_ids}
    if val_ids is not None:
        ids[Split.val] = val_ids
    unlisted = _without(annotated, {one for side in ids.values() for one in side})
    if unlisted:
        rule.append(f"{len(unlisted)} annotated images are in no list and not used")
    return Division(ids, "; ".join(rule), automatic)


def _val_as_test(
    lists: UnitedLists, train: str, train_ids: list[str] | None
) -> tuple[str, list[str] | None, list[str] | None]:
    """Use the list val as test if it shares no image with the list `train`, or with train.txt instead of trainval.

    Returns the name of the training list, its ids, and the test ids. If neither list fits, returns `train` and
    `train_ids` unchanged and None.
    """
    val_ids = lists.read("val")
    candidates = [(train, train_ids)]
    if train == DEFAULT_TRAIN:
        candidates.append(("train", lists.read("train")))
    for name, ids in candidates:
        if val_ids is not None and ids is not None and not set(ids) & set(val_ids):
            return name, ids, val_ids
    return train, train_ids, None


def _without(ids: Iterable[str], others: Collection[str]) -> list[str]:
    return [one for one in ids if one not in others]
