"""Atomic file writes: to a temporary file, flushed to disk, then renamed."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from detpipe.storage.file_lock import is_at, take

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""The errors of a full disk, a full quota, and a file that may not grow."""


@contextlib.contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """Give a temporary path to write to. It replaces `path` if the block succeeds, and is deleted if the block raises.

    A link at `path` is replaced, and its target stays. The file has the permissions of any new file.
    Raises OSError of the file system, for example on a full disk; the old file at `path` is then unchanged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch, handle = _new_file(path)
    try:
        yield scratch
        with scratch.open("rb+") as file:
            os.fsync(file.fileno())
        scratch.replace(path)
    except BaseException as error:
        scratch.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            raise no_room(path, error) from error
        raise
    finally:
        os.close(handle)


def no_room(path: Path, error: OSError) -> OSError:
    """The error of NO_ROOM for a file that could not be written, with its name and the remedy."""
    number = error.errno or errno.ENOSPC
    text = f"could not write the file: {os.strerror(number)}; free disk space and run the command again"
    return OSError(number, text, str(path))


def _new_file(path: Path) -> tuple[Path, int]:
    """Create and open an empty file next to `path` that no other process or thread writes.

    Its name is the same each time, so that what a killed process left is found and deleted. While another process or
    thread writes to `path`, which shows by the lock of its file, another name is used.

    tempfile's files are for their owner alone. Here the system applies the umask, so the process need not ask for it,
    which is only possible by changing it for all threads.
    """
    scratch = path.with_name(f".{path.name}.part")
    _delete_abandoned(scratch)
    while True:
        with contextlib.suppress(FileExistsError):
            handle = os.open(scratch, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            lock = take(handle)
            if lock is None or (lock and is_at(scratch, handle)):
                return scratch, handle
            os.close(handle)  # another process took it for an abandoned one
        scratch = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")


def _delete_abandoned(scratch: Path) -> None:
    """Delete the file of a process that was killed while it wrote."""
    try:
        handle = os.open(scratch, os.O_RDWR | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0))
    except OSError:  # there is no such file, as is usual
        return
    try:
        if take(handle) and is_at(scratch, handle):
            scratch.unlink(missing_ok=True)
    finally:
        os.close(handle)


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path` atomically."""
    with replaced(path) as scratch:
        scratch.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 to `path` atomically. Bytes of file names that are not UTF-8 are written as \\udcXX."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON to `path` atomically. Raises ValueError for NaN, which JSON does not have."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    # File names that are not UTF-8 contain lone surrogates. Escaped as \\udcXX they are valid JSON and are read back.
    write_bytes(path, text.encode("utf-8", "backslashreplace"))
