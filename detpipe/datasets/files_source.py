"""Base class of the formats with all annotations of a split in one file, beside a folder of images."""

from __future__ import annotations

import abc
import functools
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from detpipe.datasets.entry import Entry
from detpipe.datasets.findings import Finding
from detpipe.datasets.folder_scan import is_hidden, suffix_of
from detpipe.datasets.image_finder import ImageFinder
from detpipe.datasets.parted_source import Part, PartedSource, left_out_pictures, split_in_name
from detpipe.datasets.source import Recognised, Split
from detpipe.datasets.voc_folder import SPLIT_FOLDERS, unwrapped
from detpipe.storage.input_file import open_input
from detpipe.storage.stored_file import children, exists, is_existing_folder, is_file, is_folder

logger = logging.getLogger(__name__)

_START, _MOST_READ = 1 << 13, 100


@dataclass(kw_only=True)
class FilesSource(PartedSource):
    """Base class. A file with train, val or test in its name, or in a folder of this name, is this split."""

    PATHS: ClassVar[tuple[str, ...]] = ("root", "val_file", "test_file", "images_root", *PartedSource.PATHS)
    SUFFIXES: ClassVar[tuple[str, ...]]
    """Of the files, in lower case."""
    FORMAT: ClassVar[str]
    """What a file is, for messages: "a CSV file of boxes"."""

    root: str
    """The file of the annotations, or a folder with such files."""
    val_file: str | None = None
    """The file of the validation images, if `root` is a file; null: none."""
    test_file: str | None = None
    """The file of the test images, if `root` is a file; null: the validation images, else a share of all images."""
    images_root: str | None = None
    """The folder of the images; null: the folder of the annotations."""

    @classmethod
    @abc.abstractmethod
    def is_format(cls, start: bytes) -> bool:
        """Whether a file that starts so is in this format."""

    @abc.abstractmethod
    def read_file(self, path: Path, images: ImageFinder) -> Iterable[tuple[Split | None, Entry]]:
        """The images of a file, and the split of each that the file names."""

    @classmethod
    def recognise(cls, root: Path) -> Recognised | None:
        """See `DatasetSource`. Files of the folder, and of folders named after splits, are looked at: 100 at most."""
        files = [root] if is_file(root) else _files_in(root, cls.SUFFIXES) if is_existing_folder(root) else []
        own = [path for path in _first_of_each_suffix(files) if _has_format(cls, path)]
        if not own:
            return None
        names = ", ".join(path.name for path in own[:3]) + (", ..." if len(own) > 3 else "")
        return Recognised({"root": str(root)}, f"{cls.FORMAT}: {names}")

    @property
    def name(self) -> str:
        path = Path(self.root)
        return path.stem if is_file(path) else path.name or self.root

    def named_folders(self) -> list[Path]:
        return list(dict.fromkeys(finder.folder for _, _, finder in self.files))

    def strays(self) -> list[Finding]:
        return left_out_pictures({finder.folder: finder for _, _, finder in self.files}.values())

    def read_parts(self) -> list[Part]:
        found: dict[Split | None, list[Entry]] = {}
        for split, path, finder in self.files:
            logger.info("%s: images in %s", path, finder.folder)
            entries = found.setdefault(split, [])
            count = has_image = 0
            for own, entry in self.read_file(path, finder):
                (entries if own is None else found.setdefault(own, [])).append(entry)
                count, has_image = count + 1, has_image + (entry.image is not None)
            if count and not has_image:
                logger.warning(
                    "%s: none of its %d images is in %s; set dataset.images_root", path, count, finder.folder
                )
        if not any(found.values()):
            raise ValueError(
                f"{self.root}: expected {self.FORMAT} with annotated images, got none that can be used; check the file "
                "and dataset.images_root"
            )
        return [Part(split, tuple(entries)) for split, entries in found.items() if entries]

    @functools.cached_property
    def files(self) -> list[tuple[Split | None, Path, ImageFinder]]:
        """Each file with its split and the finder of its images. Raises FileNotFoundError for a missing file."""
        root = Path(self.root)
        known: dict[tuple[Path, Path], ImageFinder] = {}

        def with_finder(split: Split | None, path: Path) -> tuple[Split | None, Path, ImageFinder]:
            beside = unwrapped(root) if is_existing_folder(root) else path.parent
            folder = Path(self.images_root) if self.images_root is not None else beside
            if not is_folder(folder):
                raise FileNotFoundError(
                    f"{folder}: expected the folder of the images, got no such folder; set dataset.images_root"
                )
            if (folder, path.parent) not in known:
                known[folder, path.parent] = ImageFinder(
                    folder, beside=path.parent, also=[path.parent], outside=self.outside
                )
            return split, path, known[folder, path.parent]

        if is_existing_folder(root):
            if self.val_file is not None or self.test_file is not None:
                raise ValueError(
                    "dataset.root: expected a file beside dataset.val_file and dataset.test_file, got a folder; give "
                    "the file of the training images"
                )
            own = [path for path in _files_in(root, self.SUFFIXES) if _has_format(type(self), path)]
            if not own:
                raise FileNotFoundError(
                    f"{root}: expected {self.FORMAT} ({', '.join(self.SUFFIXES)}) in the folder, got none; set "
                    "dataset.root to the file"
                )
            return [with_finder(_split_of(path, root), path) for path in own]
        named = {None: self.root, Split.val: self.val_file, Split.test: self.test_file}
        given = {split: Path(path) for split, path in named.items() if path is not None}
        for path in given.values():
            if not exists(path):
                raise FileNotFoundError(f"{path}: expected {self.FORMAT}, got no such path; check the path")
        return [with_finder(split, path) for split, path in given.items()]


def _files_in(root: Path, suffixes: Sequence[str]) -> list[Path]:
    """The visible files of a folder with these suffixes, and those in its folders named after splits."""
    root = unwrapped(root)
    inner = [one for one in children(root) if one.name.lower() in SPLIT_FOLDERS and is_existing_folder(one)]
    return [
        path
        for folder in (root, *inner)
        for path in children(folder)
        if suffix_of(path.name) in suffixes and not is_hidden(path.name) and is_file(path)
    ]


def _first_of_each_suffix(files: Iterable[Path]) -> Iterator[Path]:
    """Not all: other formats have a file for each image."""
    counts: Counter[str] = Counter()
    for path in files:
        counts[suffix_of(path.name)] += 1
        if counts[suffix_of(path.name)] <= _MOST_READ:
            yield path


def _split_of(path: Path, root: Path) -> Split | None:
    of_folder = SPLIT_FOLDERS.get(path.parent.name.lower()) if path.parent != root else None
    return of_folder or split_in_name(path.stem)


def _has_format(kind: type[FilesSource], path: Path) -> bool:
    """Whether the start of a file is in the format. A file that can't be read is not."""
    try:
        with open_input(path, kind.FORMAT) as file:
            return suffix_of(path.name) in kind.SUFFIXES and kind.is_format(file.read(_START))
    except (OSError, ValueError):
        return False
