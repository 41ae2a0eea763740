"""Base class of the formats that are parts: files or folders, each of which may be a split.

A format reads its parts. The rules for ids and for missing splits are here, once for all of these formats:

- Without test images, the validation images are the test split.
- Without both, the images are divided by a hash of their names (see `splits`).
"""

from __future__ import annotations

import abc
import functools
import logging
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from detpipe.datasets.entry import Entry
from detpipe.datasets.exif_boxes import ExifBoxes, are_raw_boxes
from detpipe.datasets.findings import Finding, finding
from detpipe.datasets.image_file import BrokenImageError, read_header
from detpipe.datasets.image_finder import ImageFinder, ImageNotFoundError, hash_name
from detpipe.datasets.image_list import shortest_ids
from detpipe.datasets.source import Split, StoredSplit, passed_over_findings
from detpipe.datasets.splits import DividedSource
from detpipe.datasets.voc_folder import SPLIT_FOLDERS
from detpipe.structures import ReadOptions

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Part:
    """The images of one file or folder. split: None if a rule decides.

    entries: their `image_id` is the path or name of the image, which two images must not share.
    """

    split: Split | None
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class _Division:
    """names: of the images, for the hash, in an automatic split. rule: in words. automatic: whether a hash of the names
    divides the images.
    """

    entries: Mapping[Split, tuple[Entry, ...]]
    names: Mapping[Split, tuple[str, ...]]
    rule: str
    automatic: bool


@dataclass(kw_only=True)
class PartedSource(DividedSource):
    """Base class. An image's id is its name without suffix; if two images share it, ids are paths (`shortest_ids`)."""

    @abc.abstractmethod
    def read_parts(self) -> Sequence[Part]:
        """The parts, as their files have them. Called once."""

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """The name of the data set in messages and reports."""

    def declared_classes(self) -> Sequence[str]:
        """The names of classes in the order that a file gives; classes beyond these follow, sorted."""
        return ()

    def shortened(self, paths: Sequence[str]) -> list[str]:
        """The ids of the images with these different paths or names, in order."""
        return shortest_ids([Path(path) for path in paths])

    def has(self, split: Split) -> bool:
        return split in self._division.entries

    def title(self, split: Split) -> str:
        return f"{self.name} {split.value}"

    def entries(self, split: Split) -> Sequence[Entry]:
        return self._division.entries[split]

    def known_classes(self) -> list[str]:
        used = {one.name for entries in self._division.entries.values() for entry in entries for one in entry.objects}
        return list(dict.fromkeys((*self.declared_classes(), *sorted(used))))

    def automatic_split(self) -> StoredSplit | None:
        division = self._division
        if not division.automatic:
            return None
        names = {split: tuple(sorted(some)) for split, some in division.names.items()}
        return StoredSplit(division.rule, names[Split.train], names[Split.test])

    @functools.cached_property
    def _division(self) -> _Division:
        found: dict[Split, list[Entry]] = {}
        for part in self.read_parts():
            found.setdefault(part.split or Split.train, []).extend(part.entries)
        rule = [f"{split.value} is as the files have it" for split in Split if split in found]
        automatic = False
        names: dict[Split, tuple[str, ...]] = {}
        if Split.test not in found and Split.val in found:
            found[Split.test] = found.pop(Split.val)
            rule[-1] = "test is the split of validation images, because there are no test images"
        elif Split.test not in found and Split.train in found and self.test_share:
            entries = found[Split.train]
            train, test = self.divide_by_name(own := _hash_names(entries))
            for split, numbers in ((Split.train, train), (Split.test, test)):
                found[split] = [entries[number] for number in numbers]
                names[split] = tuple(own[number] for number in numbers)
            rule, automatic = [f"no test images are named: {self.rule}"], True
        logger.info("%s: %s", self.name, "; ".join(rule))
        paths = list(dict.fromkeys(str(one.image_id) for some in found.values() for one in some))
        ids = dict(zip(paths, self.shortened(paths), strict=True))
        return _Division(
            {split: tuple(_with_ids(some, ids)) for split, some in found.items()},
            names,
            "; ".join(rule),
            automatic,
        )


def _hash_names(entries: Sequence[Entry]) -> list[str]:
    """The names by which images are divided: file names, and paths where two images share one.

    So an image stays in its split wherever its file is, and also if the file is missing.
    """
    paths = [hash_name(str(entry.image_id)) for entry in entries]
    names = [path.rpartition("/")[2] for path in paths]
    counts = Counter(names)
    return [name if counts[name] == 1 else path for name, path in zip(names, paths, strict=True)]


def _with_ids(entries: Iterable[Entry], ids: Mapping[str, str]) -> Iterator[Entry]:
    """The entries of a split with their ids. A second entry of an image has a number behind its id."""
    seen: set[str] = set()
    for entry in entries:
        own = image_id = ids[str(entry.image_id)]
        number = 1
        while image_id in seen:
            number += 1
            image_id = f"{own}#{number}"
        seen.add(image_id)
        yield replace(entry, image_id=image_id)


def split_in_name(name: str) -> Split | None:
    """The split that the name of a file has as a word: "train_labels.csv" -> train; None without one."""
    return next((SPLIT_FOLDERS[word] for word in re.split(r"[^a-z]+", name.lower()) if word in SPLIT_FOLDERS), None)


def found_image(images: ImageFinder, name: str, origin: Path) -> tuple[str, Path | None, Finding | None]:
    """The image with a name from the file `origin`: its name, its path, and the reason if no file was found."""
    try:
        path = images.find(name)
    except ImageNotFoundError as error:
        return hash_name(name), None, finding(error.KIND, origin, f"names an image: {error}")
    return name_below(path, images.folder), path, None


def name_below(path: Path, folder: Path) -> str:
    """The path of an image below a folder, with slashes; the whole path of one outside."""
    return (path.relative_to(folder) if path.is_relative_to(folder) else path).as_posix()


def size_of_shares(
    image: Path | None, stated: tuple[int, int] | None, options: ReadOptions, exif_boxes: ExifBoxes
) -> tuple[int, int] | None:
    """(height, width) of the pixels of which boxes are shares: of the image file, else the stated size, else None.

    For an image that EXIF rotates and whose boxes were drawn before this, it is the size before rotation.
    """
    if image is None:
        return stated
    try:
        header = read_header(image, options)
    except (BrokenImageError, OSError):
        return stated
    is_raw = are_raw_boxes(Entry("", image, image, stated_size=stated), header, exif_boxes)
    return header.raw_size if is_raw else header.image_size


def left_out_pictures(images: Iterable[ImageFinder]) -> list[Finding]:
    """The findings on pictures in folders of images that are not read."""
    return [one for finder in images for one in passed_over_findings(finder.scan)]
