"""The one place where detpipe opens a file that somebody else made: images, annotations, weights, databases, lists.

Only regular files are opened: reading a named pipe, a socket or a device may never end. Three kinds of content that
people often have in place of a file are named: nothing, a Git LFS pointer, and an HTML page. A path that begins with
s3: or another scheme is a file in object storage (see `remote_file`).
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

from detpipe.storage.object_storage import is_remote
from detpipe.storage.remote_file import open_remote

_LFS_START = b"version https://git-lfs.github.com/spec/"
_HTML_STARTS = (b"<!doctype html", b"<html")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_REGULAR = "give the path of a regular file"
_START = 1024
"""Bytes at the start of a file that are searched for a known wrong content."""


class InputFileError(ValueError):
    """A file is not a regular file, is empty, or is a Git LFS pointer or an HTML page in place of the expected file."""


def open_input(path: Path, expected: str) -> BinaryIO:
    """Open a regular file for reading, at its start. The caller closes it.

    expected: what the file should be, for the error: "an image file".
    Raises InputFileError, FileNotFoundError, and other OSErrors of the file system.
    """
    if is_remote(path):
        return _opened_remote(path, expected)
    try:
        # Without O_NONBLOCK, opening a named pipe waits for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        raise InputFileError(f"{path}: expected {expected}, got a socket; {_REGULAR}") from error
    try:
        kind = _kind(os.fstat(descriptor).st_mode)
        if kind is not None:
            raise InputFileError(f"{path}: expected {expected}, got {kind}; {_REGULAR}")
        fault = _wrong_content(os.pread(descriptor, _START, 0))
        if fault is not None:
            raise InputFileError(f"{path}: expected {expected}, got {fault}")
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def _opened_remote(path: Path, expected: str) -> BinaryIO:
    """`open_input` of a file in object storage, which has no descriptor."""
    file = open_remote(path)
    fault = _wrong_content(file.read(_START))
    if fault is not None:
        raise InputFileError(f"{path}: expected {expected}, got {fault}")
    file.seek(0)
    return file


def check_input(path: Path, expected: str) -> None:
    """Check a file that a library opens by its path. Raises as `open_input`."""
    open_input(path, expected).close()


def read_input(path: Path, expected: str, largest: int | None = None) -> bytes:
    """The bytes of a file, at least one and at most `largest`. Raises as `open_input`, also for a larger file."""
    with open_input(path, expected) as file:
        # read(largest + 1) would reserve so much memory, also for a small file.
        if largest is not None and file.seek(0, os.SEEK_END) > largest:
            raise InputFileError(
                f"{path}: expected {expected} of at most {largest >> 20} MB, got a larger file; check that it is the "
                "right one, or divide it"
            )
        file.seek(0)
        return file.read()


def _kind(mode: int) -> str | None:
    """What a file is if it is not a regular file."""
    if stat.S_ISREG(mode):
        return None
    if stat.S_ISDIR(mode):
        return "a folder"
    return "a named pipe" if stat.S_ISFIFO(mode) else "a device"


def _wrong_content(start: bytes) -> str | None:
    """What the first bytes show if they show a known wrong content, and what to do."""
    if not start:
        return "an empty file; copy or download it again"
    if start.startswith(_LFS_START):
        return "a Git LFS pointer, which only names the file; run `git lfs pull` in its repository"
    if start.removeprefix(_BYTE_ORDER_MARK).lstrip().lower().startswith(_HTML_STARTS):
        return "an HTML page, probably the error or login page of a website; download the file itself"
    return None
