"""Files in object storage (s3://, gs:// and others that fsspec knows), read in blocks that are kept on this machine.

Blocks are kept in the folder of the environment variable DETPIPE_CACHE, by address, version and number. When they
take more than DETPIPE_CACHE_GB, the ones that were read longest ago are deleted. A file for a library that opens a path
is copied whole, and kept and deleted as a block.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import logging
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, cast

from detpipe.storage.atomic import replaced, write_bytes
from detpipe.storage.object_storage import StorageError, address, answering, filesystem
from detpipe.storage.remote_listing import RemoteInfo, listing_with, remote_info

logger = logging.getLogger(__name__)

FOLDER, GIGABYTES = "DETPIPE_CACHE", "DETPIPE_CACHE_GB"
"""Environment variables: the folder of the blocks, and the limit on their size."""
DEFAULT_GIGABYTES = 10.0
BLOCK = 1 << 22
"""Bytes of a block: one request."""
_CHECKED_EVERY = 32 * BLOCK
"""Bytes that a process writes before it compares the size of all blocks with the limit."""
_TEXTS = frozenset({".xml", ".txt", ".json"})
"""Suffixes of files of which a data set has one for each image."""
_TRANSFERS = 16
"""Small files that are fetched at the same time."""


def open_remote(path: Path) -> BinaryIO:
    """Open a remote file for reading. Only the blocks that are read are fetched. Raises as `remote_info`.

    With a small text file, all of the same kind in its folder are fetched: a data set has one for each image, and one
    request after the other would take hours.
    """
    info = remote_info(path)
    if not info.is_file:
        raise IsADirectoryError(f"{address(path)}: expected a file, got a prefix with files below it")
    _fetch_beside(path)
    return cast(BinaryIO, io.BufferedReader(_RemoteFile(address(path), info)))


def _fetch_beside(path: Path) -> None:
    """Fetch the small files with the suffix of this file in its folder, if the folder was listed, and only once."""
    folder, suffix, listing = os.fspath(path.parent), path.suffix, listing_with(path)
    if suffix.lower() not in _TEXTS or listing is None or (folder, suffix) in listing.fetched:
        return
    with _fetching:
        if (folder, suffix) in listing.fetched:  # by another thread
            return
        names = listing.folders.get(folder, ([], []))[1]
        own = [path.with_name(name) for name in names if name.endswith(suffix)]
        infos = {one: listing.files[os.fspath(one)] for one in own}
        small = {one: info for one, info in infos.items() if 0 < info.size <= BLOCK}
        missing = [(address(one), info) for one, info in small.items() if not _is_kept(address(one), info)]
        if sum(info.size for info in small.values()) <= cache_limit() and len(missing) > 1:
            logger.info("%s: fetching %d files (%s)", address(path.parent), len(missing), suffix)
            with ThreadPoolExecutor(_TRANSFERS) as pool:
                for _ in pool.map(_fetch_small, missing):
                    pass
        listing.fetched.add((folder, suffix))


def _fetch_small(file: tuple[str, RemoteInfo]) -> None:
    with contextlib.suppress(FileNotFoundError):  # deleted since; whoever reads it says so
        _block(*file, 0)


_fetching = threading.Lock()


class _RemoteFile(io.RawIOBase):
    def __init__(self, url: str, info: RemoteInfo) -> None:
        self.name, self._info, self._place = url, info, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._info.size}[whence]
        self._place = max(start + offset, 0)
        return self._place

    def readinto(self, buffer: Any) -> int:
        number, start = divmod(self._place, BLOCK)
        if self._place >= self._info.size:
            return 0
        data = _block(self.name, self._info, number)[start : start + len(buffer)]
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)


@functools.lru_cache(maxsize=4)
def _block(url: str, info: RemoteInfo, number: int) -> bytes:
    """A block of a file, from the cache or the storage."""
    path = _place(url, info, number)
    start, end = number * BLOCK, min((number + 1) * BLOCK, info.size)
    with contextlib.suppress(OSError):
        kept = path.read_bytes()
        if len(kept) == end - start:
            os.utime(path)  # for the order of deletion
            return kept
    data = _fetched(url, info, start, end)
    _keep(path, data)
    return data


def _place(url: str, info: RemoteInfo, number: int) -> Path:
    """The file of a block in the cache."""
    digest = hashlib.blake2b(f"{url}\0{info.version}\0{info.size}\0{number}".encode(), digest_size=20).hexdigest()
    return cache_folder() / digest[:2] / digest


def _is_kept(url: str, info: RemoteInfo) -> bool:
    """Whether the cache has a file of one block."""
    try:
        return _place(url, info, 0).stat().st_size == info.size
    except OSError:
        return False


def local_copy(path: Path) -> Path:
    """A remote file as a whole on this machine, kept and deleted as the blocks are, for libraries that open a path.

    Raises as `open_remote`; OSError for a file that is larger than the cache, and on a full disk.
    """
    url, info = address(path), remote_info(path)
    if not info.is_file:
        raise IsADirectoryError(f"{url}: expected a file, got a prefix with files below it")
    digest = hashlib.blake2b(f"{url}\0{info.version}\0{info.size}".encode(), digest_size=20).hexdigest()
    copy = cache_folder() / digest[:2] / digest
    with contextlib.suppress(OSError):
        if copy.stat().st_size == info.size:
            os.utime(copy)  # for the order of deletion
            return copy
    limit = cache_limit()
    if info.size > limit:
        raise OSError(
            f"{url}: expected a file of at most {limit / 1e9:g} GB, the limit of the cache, got {info.size:,} bytes; "
            f"set the environment variable {GIGABYTES} to more, or divide the file"
        )
    shrink(cache_folder(), limit - info.size)
    with replaced(copy) as scratch, scratch.open("wb") as file:
        for start in range(0, info.size, BLOCK):
            file.write(_fetched(url, info, start, min(start + BLOCK, info.size)))
    return copy


def _fetched(url: str, info: RemoteInfo, start: int, end: int) -> bytes:
    """The bytes of a file from `start` to `end`. Raises StorageError for fewer."""
    with answering(url):
        data: bytes = filesystem(url).cat_file(url, start=start, end=end)
    if len(data) != end - start:
        raise StorageError(f"{url}: expected {info.size:,} bytes, got fewer; it changed while it was read: try again")
    return data


def cache_folder() -> Path:
    """The folder of the blocks."""
    given = os.environ.get(FOLDER)
    return Path(given) if given else Path.home() / ".cache" / "detpipe"


def cache_limit() -> int:
    """The limit on the blocks in bytes. Raises ValueError for a wrong value of the environment variable."""
    text = os.environ.get(GIGABYTES, str(DEFAULT_GIGABYTES))
    try:
        gigabytes = float(text)
    except ValueError:
        gigabytes = -1.0
    if not 0 <= gigabytes < 1e9:
        raise ValueError(f"{GIGABYTES}: expected a number of gigabytes from 0, got {text!r}; correct or unset it")
    return int(gigabytes * 1e9)


_written = 0


def _keep(path: Path, data: bytes) -> None:
    """Write a block, and delete old ones from time to time. A full disk only costs the block."""
    global _written
    limit = cache_limit()
    if len(data) > limit:
        return
    with contextlib.suppress(OSError):
        write_bytes(path, data)
    if not _written or _written > _CHECKED_EVERY:
        shrink(cache_folder(), limit - _CHECKED_EVERY)
        _written = 0
    _written += len(data)


def shrink(folder: Path, limit: int) -> None:
    """Delete the blocks that were read longest ago until at most `limit` bytes are left."""
    found = []
    for path in folder.glob("??/*"):
        with contextlib.suppress(OSError):  # deleted by another process
            status = path.stat()
            found.append((status.st_mtime_ns, status.st_size, path))
    left = sum(size for _, size, _ in found)
    for _, size, path in sorted(found):
        if left <= max(limit, 0):
            return
        path.unlink(missing_ok=True)
        left -= size
