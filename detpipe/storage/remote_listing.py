"""Which files object storage has: one listing of a folder answers all questions about the files below it.

Without a listing, each question about a path is a request. A folder is listed when its files are searched.
"""

from __future__ import annotations

import functools
import logging
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from detpipe.storage.object_storage import address, answering, filesystem, version_of

logger = logging.getLogger(__name__)

_SECONDS = 60.0
"""An answer of the storage is asked for again after so long."""
_PAUSE = 20
"""A listing that took long is kept for so many times as long."""
_MOST_LISTINGS = 16
_NO_PATH = frozenset({"", ".", ".."})
"""Parts of a name that a path does not keep."""


@dataclass(frozen=True)
class RemoteInfo:
    """size: in bytes. version: changes when the file does. is_file: false for a prefix with files below it."""

    size: int
    version: str
    is_file: bool


@dataclass(frozen=True)
class Listing:
    """The files below a folder. Keys are paths as text, as `Path` writes them.

    folders: from each folder to its folders and to its files, by name, unsorted. until: when it is made again, by
    `time.monotonic`. fetched: folders and suffixes of which all small files were fetched; see `remote_file`.
    """

    until: float
    files: dict[str, RemoteInfo] = field(default_factory=dict)
    folders: dict[str, tuple[list[str], list[str]]] = field(default_factory=dict)
    fetched: set[tuple[str, str]] = field(default_factory=set)

    def info(self, path: str) -> RemoteInfo | None:
        """Size and version of a file, or what stands for a folder; None if there is neither."""
        return self.files.get(path) or (RemoteInfo(0, "", is_file=False) if path in self.folders else None)


_listings: dict[str, Listing] = {}
_lock = threading.RLock()


def remote_info(path: Path) -> RemoteInfo:
    """Size and version of a file. Raises FileNotFoundError, and StorageError if the storage does not answer."""
    listing = listing_with(path)
    if listing is None:
        return _info(address(path), os.getpid(), int(time.monotonic() / _SECONDS))
    info = listing.info(os.fspath(path))
    if info is None:
        raise FileNotFoundError(f"{address(path)}: expected a file or a prefix, got none; check the address")
    return info


def remote_exists(path: Path) -> bool:
    """Whether there is a file, or files below a prefix. Raises StorageError."""
    try:
        remote_info(path)
    except FileNotFoundError:
        return False
    return True


def is_listed(path: Path) -> bool:
    """Whether a listing has this file. Nothing is asked of the storage, unless the listing is old."""
    listing = listing_with(path)
    return listing is not None and os.fspath(path) in listing.files


def remote_files(folder: Path) -> list[Path]:
    """The files below a prefix with their addresses as paths, sorted. Raises StorageError."""
    listing = _listed(folder)
    if os.fspath(folder) in listing.files:
        return [folder]
    return sorted(place / name for place, _, names in _walked(folder, listing) for name in names)


def remote_walk(folder: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """As `os.walk`, from the top down. Raises StorageError."""
    yield from _walked(folder, _listed(folder))


def remote_children(folder: Path) -> list[Path]:
    """The files and folders in a folder, sorted. Folders below it are not listed. Raises as `remote_info`."""
    listing = listing_with(folder)
    if listing is None:
        names: tuple[str, ...] = _children(address(folder), os.getpid(), int(time.monotonic() / _SECONDS))
    elif (found := listing.folders.get(os.fspath(folder))) is not None:
        names = (*found[0], *found[1])
    else:
        raise FileNotFoundError(f"{address(folder)}: expected a prefix with files, got none; check the address")
    return sorted(folder / name for name in names)


def list_once(folder: Path) -> None:
    """List a folder, so that no question about the files below it is a request. Raises StorageError."""
    _listed(folder)


def listing_with(path: Path) -> Listing | None:
    """The listing of a folder above a path, or of the path itself; None if none was listed. Raises StorageError."""
    text = os.fspath(path)
    for folder, listing in list(_listings.items()):
        if text == folder or text.startswith(f"{folder}/"):
            return listing if time.monotonic() < listing.until else _list(folder)
    return None


def _listed(folder: Path) -> Listing:
    return listing_with(folder) or _list(os.fspath(folder))


def _list(folder: str) -> Listing:
    """List a folder. A listing without files is not kept: files may be there soon."""
    url = address(Path(folder))
    with _lock:
        kept, begun = _listings.get(folder), time.monotonic()
        if kept is not None and begun < kept.until:  # listed by another thread
            return kept
        with answering(url):
            storage = filesystem(url)
            storage.invalidate_cache(url)
            found: dict[str, dict[str, Any]] = storage.find(url, detail=True)
        listing = Listing(time.monotonic() + max(_SECONDS, _PAUSE * (time.monotonic() - begun)))
        scheme, left_out = url.partition(":")[0], []
        for name, info in found.items():
            path = f"{scheme}:/{name.lstrip('/')}"
            if info.get("type") != "file" or name.endswith("/"):  # a folder, which some programs write as an empty file
                continue
            if _NO_PATH & {*path.split("/")} or not f"{path}/".startswith(f"{folder}/"):
                left_out.append(name)
                continue
            listing.files[path] = RemoteInfo(int(info.get("size") or 0), version_of(info), is_file=True)
            _put_into_folder(listing.folders, path, folder)
        if left_out:
            logger.warning(
                "%s: left out %d files whose names are not paths, first %r; rename them",
                url,
                len(left_out),
                left_out[0],
            )
        for one in [one for one in _listings if one == folder or one.startswith(f"{folder}/")]:
            del _listings[one]
        if listing.files:
            _listings[folder] = listing
        while len(_listings) > _MOST_LISTINGS:
            del _listings[next(iter(_listings))]
        return listing


def _put_into_folder(folders: dict[str, tuple[list[str], list[str]]], path: str, top: str) -> None:
    """Note a file in its folder, and new folders in theirs, up to the listed one."""
    is_file = True
    while path != top:
        path, _, name = path.rpartition("/")
        is_new = path not in folders
        inner, files = folders.setdefault(path, ([], []))
        (files if is_file else inner).append(name)
        is_file = False
        if not is_new:
            return


def _walked(folder: Path, listing: Listing) -> Iterator[tuple[Path, list[str], list[str]]]:
    found, files = listing.folders.get(os.fspath(folder), ([], []))
    inner = sorted(found)  # of which the caller may remove some
    if found or files:
        yield folder, inner, sorted(files)
    for name in inner:
        yield from _walked(folder / name, listing)


@functools.lru_cache(maxsize=10_000)
def _info(url: str, pid: int, minute: int) -> RemoteInfo:  # noqa: ARG001
    with answering(url):
        storage = filesystem(url)
        storage.invalidate_cache(url)
        found: dict[str, Any] = storage.info(url)
        is_file = found["type"] == "file"
        return RemoteInfo(int(found.get("size") or 0) if is_file else 0, version_of(found), is_file)


@functools.lru_cache(maxsize=100)
def _children(url: str, pid: int, minute: int) -> tuple[str, ...]:  # noqa: ARG001
    with answering(url):
        storage = filesystem(url)
        storage.invalidate_cache(url)
        own = storage._strip_protocol(url).strip("/")
        names = (str(one["name"]).strip("/") for one in storage.ls(url, detail=True))
        return tuple(dict.fromkeys(name.rpartition("/")[2] for name in names if name != own))
