"""Object storage (s3://, gs:// and others) through fsspec: addresses, the file system of each, and its errors.

A remote file has a `Path` that begins with its scheme: "s3:/bucket/shards/000.tar". `Path` writes one slash; both are
read.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from detpipe.storage.atomic import NO_ROOM

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]+:")


class StorageError(RuntimeError):
    """The storage does not answer, or refuses: the connection is lost, or the credentials are wrong.

    It is not an OSError: an OSError of a file means that the file is damaged, and reading goes on with the other files.
    """


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Whether a path is the address of a file in object storage. A letter with a colon is a drive of Windows."""
    first, slash, rest = os.fspath(path).partition("/")
    return bool(slash) and bool(rest.strip("/")) and _SCHEME.fullmatch(first) is not None


def address(path: Path) -> str:
    """The address of a remote path, with two slashes."""
    scheme, _, rest = path.as_posix().partition("/")
    return f"{scheme}//{rest.lstrip('/')}"


def version_of(info: Mapping[str, Any]) -> str:
    """What changes with the content of a file, from fsspec's description of it."""
    keys = ("ETag", "etag", "md5Hash", "mtime", "LastModified", "created")
    return next((str(info[key]) for key in keys if key in info), "")


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
    """Errors of the storage's package as FileNotFoundError or StorageError, with the address. A full disk stays one."""
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{url}: expected a file or a prefix, got none; check the address") from error
    except ImportError:
        raise
    except Exception as error:  # each package has its own
        if isinstance(error, OSError) and error.errno in NO_ROOM:  # of this machine, where a copy is written
            raise
        text = " ".join(str(error).split())[:300]
        raise StorageError(
            f"{url}: expected an answer of the storage, got {type(error).__name__}: {text}; check the address and the "
            "credentials"
        ) from error
