"""Finds the image file that an annotation or a list names. VOC, COCO and the lists of make-db share this rule.

Annotations name images as they were called on the machine that wrote them: with a folder that does not exist here,
with backslashes, as a URL, in another case, with another suffix or without. A name is searched in steps, and the first
step with a result decides:

1. The path as it is written, in the image folder, then in the folder of the annotation.
2. The same with backslashes as slashes, without a drive letter, percent signs decoded, of a URL only its path.
3. With leading folders removed that do not exist here, and without the digits that Label Studio adds.
4. Without regard to Unicode's normal form, to upper and lower case, and to the suffix; a name without any folder, and
   one with its folder, also in subfolders.

If a step finds several files, this is an error, not a guess. A file outside the user's folders is an error, too, unless
`outside` is set: names in files of other people must not choose which files of this machine are read.
"""

from __future__ import annotations

import functools
import os
import re
import stat
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Generic, TypeVar
from urllib.parse import unquote

from detpipe.datasets.folder_scan import (
    FolderScan,
    is_image,
    is_inside,
    real_folders,
    scan_images,
    suffix_of,
    without_suffix,
)
from detpipe.datasets.image_file import UNREAD_SUFFIXES
from detpipe.storage.object_storage import is_remote
from detpipe.storage.remote_listing import is_listed
from detpipe.storage.stored_file import container_of

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/\\?#]*|file:", re.IGNORECASE)
_DRIVE = re.compile(r"[A-Za-z]:(?=[/\\])")
UPLOADED = re.compile(r"(.*/|)[0-9a-f]{8}(?:-|__)([^/]+)")
"""Label Studio puts eight digits before the name of an uploaded file ("-") and of one that it exports ("__")."""
_LONGEST = 4096
"""Linux's limit of a path in bytes; a longer name is not a file."""

_LEAVES = "is a link that leaves the folder"

Value = TypeVar("Value")


class ImageNotFoundError(ValueError):
    """No image file has this name. KIND is the kind of finding for it."""

    KIND = "missing_image"


class AmbiguousImageError(ImageNotFoundError):
    """Several image files have this name."""

    KIND = "ambiguous_image"


class OutsideImageError(ImageNotFoundError):
    """The name leads to a file outside the user's folders."""

    KIND = "outside_image"


def normalised(name: str) -> str:
    """A name without the differences that file systems make: Unicode's normal form, and the case of letters."""
    return unicodedata.normalize("NFC", name).casefold()


def hash_name(name: str) -> str:
    """The name of an image for a split by hash: slashes, no picture's suffix, Unicode's normal form C."""
    text = next(_spellings(name), name)
    return unicodedata.normalize("NFC", without_suffix(text.replace("\\", "/").removeprefix("./")))


class PathIndex(Generic[Value]):
    """Values by relative paths, found by paths that differ in leading folders, case, normal form or suffix."""

    def __init__(self, items: Iterable[tuple[str, Value]]) -> None:
        """items: relative paths with slashes, and their values."""
        self._items: dict[str, list[tuple[tuple[str, ...], Value]]] = {}
        self._folders: set[str] = set()
        for path, value in items:
            parts = tuple(path.split("/"))
            self._items.setdefault(normalised(without_suffix(parts[-1])), []).append((parts, value))
            self._folders.update(map(normalised, parts[:-1]))

    def find(self, parts: Sequence[str]) -> list[Value]:
        """The values of the best matching paths: none, one, or several that match equally well.

        More equal folders are better than fewer, and an equal spelling is better than another case or suffix. Leading
        folders of `parts` are dropped only if no folder here has their name. A single name also matches in subfolders,
        and so does a path with the folder around it: "day 1/a.jpg" is "images/day 1/a.jpg".
        """
        *folders, name = parts
        for stem in dict.fromkeys((normalised(without_suffix(name)), normalised(name))):
            candidates = self._items.get(stem, [])
            for start in range(len(parts) if candidates else 0):
                if start and normalised(folders[start - 1]) in self._folders:
                    break
                tail = parts[start:]
                matching = [one for one in candidates if _same_folders(one[0], tail)]
                if not matching and len(tail) > 1:
                    matching = [one for one in candidates if _same_folders(one[0][-len(tail) :], tail)]
                if not matching and len(parts) == 1:
                    matching = candidates
                if matching:
                    return _nearest(matching, tail)
        return []


def _same_folders(path: Sequence[str], tail: Sequence[str]) -> bool:
    return len(path) == len(tail) and all(map(_equal, path[:-1], tail[:-1]))


def _equal(one: str, other: str) -> bool:
    return one == other or normalised(one) == normalised(other)


def _nearest(matching: Sequence[tuple[tuple[str, ...], Value]], tail: Sequence[str]) -> list[Value]:
    """The values whose paths are spelt most like `tail`."""
    written = tail[-1]
    composed = unicodedata.normalize("NFC", written)

    def distance(path: Sequence[str]) -> int:
        name = path[-1]
        if name == written:
            return 0 if list(path[-len(tail) : -1]) == list(tail[:-1]) else 1
        if unicodedata.normalize("NFC", name) == composed:
            return 2
        if normalised(name) == normalised(written):
            return 3
        same_case = unicodedata.normalize("NFC", without_suffix(name)) == without_suffix(composed)
        return 4 if same_case else 5

    distances = [distance(path) for path, _ in matching]
    return [value for (_, value), one in zip(matching, distances, strict=True) if one == min(distances)]


class ImageFinder:
    """Finds the files of one image folder."""

    def __init__(
        self,
        folder: Path,
        *,
        beside: Path | None = None,
        also: Sequence[Path] = (),
        outside: bool = False,
        setting: str = "dataset.outside",
    ) -> None:
        """folder: the image folder. beside: the folder of the annotation or list, for names that are relative to it.

        also: more folders that the user named; a link may lead into them. outside: find files outside of these, too.
        setting: what the command calls `outside`.
        """
        self.folder, self._beside, self._outside, self._setting = folder, beside, outside, setting
        self._real = real_folders([folder, *also])

    @functools.cached_property
    def scan(self) -> FolderScan:
        """All files of the folder, and the images in tars there if they count, searched on first use."""
        return scan_images(self.folder, outside=self._outside, real=self._real)

    @functools.cached_property
    def _index(self) -> PathIndex[Path]:
        return self._indexed(self.scan.images)

    def find(self, name: str) -> Path:
        """The image file with a name from an annotation or list.

        Raises ImageNotFoundError, AmbiguousImageError if several files match equally well, and OutsideImageError if the
        name leads out of the folders.
        """
        beside: OutsideImageError | None = None
        if len(name) <= _LONGEST:
            spellings = list(dict.fromkeys(_spellings(name)))
            for spelling in spellings:
                found = self._exact(self.folder, spelling)
                if found is None and self._beside is not None:
                    try:
                        found = self._exact(self._beside, spelling)
                    except OutsideImageError as error:
                        if ".." in spelling:
                            raise
                        beside = error
                if found is not None:
                    return found
            for spelling in spellings:
                found = self._similar(spelling, name)
                if found is not None:
                    return found
        raise beside or self.not_found(name)

    def not_found(self, name: str) -> ImageNotFoundError:
        """The error for a name without an image. It says if a link that leaves or an unread picture has it."""
        text = f"no image file {_short(name)} in {self.folder}"
        parts = _parts(next(_spellings(name), "")) if len(name) <= _LONGEST else []
        if not parts:
            return ImageNotFoundError(text)
        for path in self._left.find(parts):
            return OutsideImageError(f"{path.name} {_LEAVES} {self.folder}; {self._remedy}")
        for path in self._unread.find(parts):
            text += f"; {path.name} is not read: {UNREAD_SUFFIXES[suffix_of(path.name)]}"
        return ImageNotFoundError(text)

    # Cached, because all names of a data set may be wrong.
    @functools.cached_property
    def _left(self) -> PathIndex[Path]:
        return self._indexed(self.scan.left)

    @functools.cached_property
    def _unread(self) -> PathIndex[Path]:
        return self._indexed(path for path in self.scan.files if suffix_of(path.name) in UNREAD_SUFFIXES)

    def _indexed(self, paths: Iterable[Path]) -> PathIndex[Path]:
        return PathIndex((name, path) for path in paths for name in self._names(path))

    def _names(self, path: Path) -> Iterator[str]:
        """The relative path of an image; for a member also its path there, because annotations don't name tars."""
        name = path.relative_to(self.folder).as_posix()
        yield name
        place = container_of(path) if path in self._members else None
        if place is not None and place[1] != name:
            yield place[1]

    @functools.cached_property
    def _members(self) -> frozenset[Path]:
        return frozenset(self.scan.members)

    @property
    def _remedy(self) -> str:
        return f"to read it anyway, give {self._setting}=true"

    def candidates(self, name: str) -> list[Path]:
        """The images with this name, in any case and with any suffix, which match equally well; maybe none."""
        parts = _parts(name)
        return list(dict.fromkeys(self._index.find(parts))) if parts else []

    def _exact(self, base: Path, name: str) -> Path | None:
        """The file with this very path. Raises OutsideImageError if it is outside and may not be read."""
        # Caffe, too, joins a path that begins with a slash to its root.
        if is_remote(base):
            _ = self.scan  # which lists the folder
        paths = [os.path.normpath(f"{base}/{name}"), *([os.path.normpath(name)] if name.startswith("/") else [])]
        for path in paths:
            if not _is_file(path):
                continue
            if not self._is_allowed(path):
                is_link = is_inside(Path(path).parent, self._real) and Path(path).is_symlink()
                what = _LEAVES if is_link else "is outside of the folder"
                raise OutsideImageError(f"{_short(name)} {what} {self.folder}; {self._remedy}")
            return Path(path)
        return None

    def _similar(self, name: str, written: str) -> Path | None:
        found = self.candidates(name)
        if len(found) > 1:
            names = ", ".join(path.relative_to(self.folder).as_posix() for path in found[:3])
            raise AmbiguousImageError(
                f"{_short(written)} may be any of {len(found)} images: {names}; write the path of one of them"
            )
        return found[0] if found else None

    def _is_allowed(self, path: str) -> bool:
        if self._outside:
            return True
        base = os.fspath(self.folder)
        relative = path.removeprefix(base.rstrip("/") + "/")
        # Without a link on the way, a path below the folder is inside: the usual case, at the cost of one call.
        if relative != path and "/" not in relative and not Path(path).is_symlink():
            return True
        return is_inside(path, self._real)


def _short(name: str) -> str:
    return repr(name if len(name) <= 200 else f"{name[:200]}...")


def _is_file(path: str) -> bool:
    """Whether something other than a folder has this path. A pipe counts: the reader of the image names it."""
    if is_remote(path):
        return is_listed(Path(path))
    try:
        return not stat.S_ISDIR(Path(path).stat().st_mode)
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return False


def _parts(name: str) -> list[str]:
    """The folders and the file of a path, behind the last ".."."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    backward = max((number for number, part in enumerate(parts) if part == ".."), default=-1)
    return parts[backward + 1 :]


def _spellings(name: str) -> Iterator[str]:
    """The paths that a name may mean, the most literal first."""
    text = name.strip()
    address = _SCHEME.match(text)
    if address is None:
        yield from _with_slashes(text)
    else:
        text = text[address.end() :]
    path, _, query = text.partition("?")
    if address is not None:
        path = path.partition("#")[0]
        yield from _with_slashes(path)
    yield from _with_slashes(unquote(path))
    # Label Studio: /data/local-files/?d=folder/a.jpg
    for pair in query.split("&") if query else ():
        value = unquote(pair.partition("=")[2])
        if is_image(value):
            yield from _with_slashes(value)
    if uploaded := UPLOADED.fullmatch(text.replace("\\", "/")):
        yield f"{uploaded[1]}{uploaded[2]}"


def _with_slashes(text: str) -> Iterator[str]:
    if text:
        yield text
    slashed = text.replace("\\", "/")
    bare = _DRIVE.sub("", slashed.lstrip("/") if _DRIVE.match(slashed.lstrip("/")) else slashed, count=1)
    if bare and bare != text:
        yield bare
