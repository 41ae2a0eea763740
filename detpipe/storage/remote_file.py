"""Files in object storage (s3://, gs:// and others that fsspec knows), read in blocks that are kept on this machine.

A remote file has a `Path` that begins with its scheme: "s3:/bucket/shards/000.tar". `Path` writes one slash; both are
read. Blocks are kept in the folder of the environment variable DETPIPE_CACHE, by address, version and number. When they
take more than DETPIPE_CACHE_GB, the ones that were read longest ago are deleted. A file for a library that opens a path
is copied whole, and kept and deleted as a block.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import os
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from detpipe.storage.atomic import replaced, write_bytes

FOLDER, GIGABYTES = "DETPIPE_CACHE", "DETPIPE_CACHE_GB"
"""Environment variables: the folder of the blocks, and the limit on their size."""
DEFAULT_GIGABYTES = 10.0
BLOCK = 1 << 22
"""Bytes of a block: one request."""
_CHECKED_EVERY = 32
"""Blocks that a process writes before it compares their size with the limit."""
_INFO_SECONDS = 60
"""Size and version of a file are asked for again after so long."""
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]+:")


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Whether a path is the address of a file in object storage. A letter with a colon is a drive of Windows."""
    first, slash, rest = os.fspath(path).partition("/")
    return bool(slash) and bool(rest.strip("/")) and _SCHEME.fullmatch(first) is not None


def address(path: Path) -> str:
    """The address of a remote path, with two slashes."""
    scheme, _, rest = path.as_posix().partition("/")
    return f"{scheme}//{rest.lstrip('/')}"


@dataclass(frozen=True)
class RemoteInfo:
    """size: in bytes. version: changes when the file does. is_file: false for a prefix with files below it."""

    size: int
    version: str
    is_file: bool


def remote_info(path: Path) -> RemoteInfo:
    """Size and version of a file. Raises FileNotFoundError, and OSError if the storage does not answer."""
    return _info(address(path), os.getpid(), int(time.monotonic() / _INFO_SECONDS))


@functools.lru_cache(maxsize=10_000)
def _info(url: str, pid: int, minute: int) -> RemoteInfo:  # noqa: ARG001
    with answering(url):
        found: dict[str, Any] = filesystem(url).info(url)
        is_file = found["type"] == "file"
        return RemoteInfo(int(found.get("size") or 0) if is_file else 0, version_of(found), is_file)


def version_of(info: Mapping[str, Any]) -> str:
    """What changes with the content of a file, from fsspec's description of it."""
    keys = ("ETag", "etag", "md5Hash", "mtime", "LastModified", "created")
    return next((str(info[key]) for key in keys if key in info), "")


def remote_exists(path: Path) -> bool:
    """Whether there is a file, or files below a prefix. Raises OSError if the storage does not answer."""
    try:
        remote_info(path)
    except FileNotFoundError:
        return False
    return True


def remote_files(folder: Path) -> list[Path]:
    """The files below a prefix with their addresses as paths, sorted. Raises as `remote_info`."""
    url = address(folder)
    scheme = url.partition("://")[0]
    with answering(url):
        return sorted(Path(f"{scheme}:/{name}") for name in filesystem(url).find(url))


def open_remote(path: Path) -> BinaryIO:
    """Open a remote file for reading. Only the blocks that are read are fetched. Raises as `remote_info`."""
    info = remote_info(path)
    if not info.is_file:
        raise IsADirectoryError(f"{address(path)}: expected a file, got a prefix with files below it")
    return cast(BinaryIO, io.BufferedReader(_RemoteFile(address(path), info)))


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
    digest = hashlib.blake2b(f"{url}\0{info.version}\0{info.size}\0{number}".encode(), digest_size=20).hexdigest()
    path = cache_folder() / digest[:2] / digest
    start, end = number * BLOCK, min((number + 1) * BLOCK, info.size)
    with contextlib.suppress(OSError):
        kept = path.read_bytes()
        if len(kept) == end - start:
            os.utime(path)  # for the order of deletion
            return kept
    data = _fetched(url, info, start, end)
    _keep(path, data)
    return data


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
    """The bytes of a file from `start` to `end`. Raises OSError for fewer."""
    with answering(url):
        data: bytes = filesystem(url).cat_file(url, start=start, end=end)
    if len(data) != end - start:
        raise OSError(f"{url}: expected {info.size:,} bytes, got fewer; it changed while it was read: try again")
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
    _written += 1
    if _written % _CHECKED_EVERY == 1:
        shrink(cache_folder(), limit - _CHECKED_EVERY * BLOCK)


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


def filesystem(url: str) -> Any:
    """fsspec's file system for an address. Raises ImportError if its package is not installed."""
    try:
        import fsspec
    except ImportError as error:
        raise ImportError(
            f"{url}: expected the package fsspec for object storage, got none; pip install 'detpipe[remote]'"
        ) from error
    scheme = url.partition("://")[0]
    try:
        return fsspec.filesystem(scheme)  # cached there, by process
    except (ImportError, ValueError) as error:
        raise ImportError(
            f"{url}: expected a package of fsspec for {scheme}://, got none ({error}); pip install "
            "'detpipe[remote]', or "
            "the package that is named"
        ) from error


@contextlib.contextmanager
def answering(url: str) -> Iterator[None]:
    """Errors of the storage's package as OSErrors that name the address."""
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{url}: expected a file or a prefix, got none; check the address") from error
    except ImportError:
        raise
    except Exception as error:  # each package has its own
        text = " ".join(str(error).split())[:300]
        raise OSError(
            f"{url}: expected an answer of the storage, got {type(error).__name__}: {text}; check the address and the "
            "credentials"
        ) from error
