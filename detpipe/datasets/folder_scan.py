"""The files of a data set's folder: which are images, which are hidden, and which links are followed.

The images may also be in tar and Parquet files: of a folder without image files, the images in those count.

A link is followed as far as it stays inside the folders that the user named. A file or folder that is itself named in
the settings may be a link to any place. With `outside`, all links are followed.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from detpipe.datasets.image_file import IMAGE_SUFFIXES, UNREAD_SUFFIXES
from detpipe.storage.object_storage import is_remote
from detpipe.storage.parquet_file import ParquetIndex
from detpipe.storage.remote_listing import remote_files
from detpipe.storage.stored_file import container_index, is_container, is_file

_HIDDEN = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "@eadir", "$recycle.bin"})
"""Names in lower case of files and folders that operating systems add."""

_SUFFIXES = frozenset(IMAGE_SUFFIXES)
_PICTURES = frozenset((*IMAGE_SUFFIXES, *UNREAD_SUFFIXES))


def is_hidden(name: str) -> bool:
    """Whether a file or folder is hidden, or was added by an operating system or an editor: ._a.jpg, Thumbs.db."""
    return name.startswith(".") or name.lower() in _HIDDEN


def is_image(name: str) -> bool:
    """Whether a file name has the suffix of an image that detpipe reads."""
    return suffix_of(name) in _SUFFIXES


def suffix_of(name: str) -> str:
    """The suffix of a file name in lower case, with its dot; "" if it has none."""
    # By hand: a pathlib object for each of many thousand names takes seconds.
    stem, _, suffix = name.rpartition(".")
    return f".{suffix.lower()}" if stem and suffix and stem[-1] != "/" and "/" not in suffix else ""


def without_suffix(name: str) -> str:
    """A file name or path without the suffix of a picture. Another part behind a dot belongs to the name: scene.1."""
    suffix = suffix_of(name)
    return name[: -len(suffix)] if suffix in _PICTURES else name


def real_folders(folders: Iterable[Path]) -> tuple[str, ...]:
    """The folders with all links resolved, as `is_inside` needs them."""
    return tuple(dict.fromkeys(os.path.realpath(folder) for folder in folders))


def is_inside(path: str | Path, real: Sequence[str]) -> bool:
    """Whether a path, with all links resolved, is one of the real folders or inside of one."""
    target = os.path.realpath(path)
    return any(target == folder or target.startswith(folder.rstrip(os.sep) + os.sep) for folder in real)


@dataclass
class FolderScan:
    """The visible files below a folder, by relative path. Links that leave the folders are counted, not followed.

    files: paths of all files that are not hidden, sorted. left: links that leave the folders. members: the images in
    tars and Parquet files. faults: such files and members that can't be read, each with the reason.
    """

    folder: Path
    files: list[Path] = field(default_factory=list)
    left: list[Path] = field(default_factory=list)
    members: list[Path] = field(default_factory=list)
    faults: list[tuple[Path, str]] = field(default_factory=list)

    @property
    def images(self) -> list[Path]:
        """The files with the suffix of an image that detpipe reads, and those in tars and Parquet files."""
        return [*(path for path in self.files if is_image(path.name)), *self.members]

    def passed_over(self, setting: str = "dataset.outside") -> list[tuple[str, list[Path]]]:
        """Pictures that are not read: (reason, files) for each suffix, and for links that leave the folder.

        setting: what the command calls `outside`.
        """
        found = []
        counts = Counter(suffix_of(path.name) for path in self.files)
        for suffix in sorted(counts.keys() & UNREAD_SUFFIXES.keys()):
            paths = [path for path in self.files if suffix_of(path.name) == suffix]
            found.append((f"{suffix} is not read: {UNREAD_SUFFIXES[suffix]}", paths))
        if self.left:
            found.append((f"a link that leaves the folder; give {setting}=true to follow it", self.left))
        found += [(reason, [path]) for path, reason in self.faults]
        return found

    def passed_over_text(self, setting: str = "dataset.outside") -> str:
        """`passed_over` in one phrase with counts, for a message; "" if nothing was passed over."""
        return "; ".join(
            f"passed over {len(paths)} ({paths[0].name}{', ...' if len(paths) > 1 else ''}): {reason}"
            for reason, paths in self.passed_over(setting)
        )


def scan(folder: Path, *, outside: bool = False, real: Sequence[str] | None = None, deep: bool = True) -> FolderScan:
    """Find the files below a folder, without hidden files and folders. An empty folder gives an empty scan.

    outside: follow links that leave the folders, too. real: the real paths of the user's folders; default, the folder.
    deep: also search subfolders. No folder is searched twice, so a link to a folder above ends.
    Raises the OSError of a folder that can't be read.
    """
    result = FolderScan(folder)
    if is_remote(folder):
        for path in remote_files(folder):
            parts = path.relative_to(folder).parts
            if not any(map(is_hidden, parts)) and (deep or len(parts) == 1):
                result.files.append(path)
        return result
    allowed = real_folders([folder]) if real is None else real
    seen: set[tuple[int, int]] = set()
    waiting = [folder]
    while waiting:
        current = waiting.pop()
        status = current.stat()
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        for entry in _visible(current):
            path = current / entry.name
            if entry.is_symlink() and not outside and not is_inside(path, allowed):
                result.left.append(path)
            elif not _is_folder(entry):
                result.files.append(path)
            elif deep:
                # Links come last, so that a folder is searched under its own name.
                waiting.insert(0 if entry.is_symlink() else len(waiting), path)
    # By code points, not by locale: the same order on every machine.
    result.files.sort()
    result.left.sort()
    return result


def scan_images(place: Path, *, outside: bool = False, real: Sequence[str] | None = None) -> FolderScan:
    """Find the images of a folder, as `scan`, or of a tar or Parquet file; see the module for a folder of these."""
    found = FolderScan(place, files=[place]) if is_container(place) and is_file(place) else None
    if found is None:
        found = scan(place, outside=outside, real=real)
    if not found.images:
        for path in found.files:
            if is_container(path):
                images, faults = image_members(path)
                found.members += images
                found.faults += faults
    return found


def image_members(container: Path) -> tuple[list[Path], list[tuple[Path, str]]]:
    """The images in a tar or Parquet file, in its order, and the path and fault of what can't be read there.

    Hidden members of a tar are passed over. Another file is a fault. Raises the OSErrors of the file system, and
    ModuleNotFoundError without pyarrow.
    """
    try:
        index = container_index(container)
    except ValueError as error:
        return [], [(container, str(error).removeprefix(f"{container}: "))]
    if isinstance(index, ParquetIndex):
        return [container / name for name in index.members], [
            (_shown_in(container, name), fault) for name, fault in index.faults
        ]
    images = [container / name for name in index.members if is_image(name) and not any(map(is_hidden, name.split("/")))]
    faults = [(_shown_in(container, name), fault) for name, fault in index.faults if not name or is_image(name)]
    return images, faults


def _shown_in(container: Path, name: str) -> Path:
    """The path of a member that can't be read: one with an absolute name is shown in its container as well."""
    return container / name.lstrip("/")


def _visible(folder: Path) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        yield from (entry for entry in entries if not is_hidden(entry.name))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link in a circle; the reader of the file names it
        return False


def image_files(folder: Path) -> list[Path]:
    """The visible images in a folder, sorted, without its subfolders."""
    return scan(folder, deep=False, outside=True).images
