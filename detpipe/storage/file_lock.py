"""Locks between processes, on one machine or a shared file system."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

logger = logging.getLogger(__name__)


class LockedError(ValueError):
    """Another process holds a lock."""


@contextlib.contextmanager
def locked(path: Path, doing: str, *, wait: float) -> Iterator[None]:
    """Hold the lock of a file. The system releases it when the process ends, however it ends.

    doing: what the block does, for the message. wait: in seconds. Raises LockedError if another process holds the lock
    for longer. Where the system or the file system has no locks, nobody is kept out. The holder may delete the file and
    its folder; who waits for it then makes them again.
    """
    until = time.monotonic() + wait
    while not is_at(path, (handle := _taken(path, doing, until))):
        os.close(handle)
    try:
        os.ftruncate(handle, 0)
        with contextlib.suppress(OSError):  # a full disk: the next file that is written names it
            os.pwrite(handle, f"process {os.getpid()} of {socket.gethostname()}".encode(), 0)
        yield
    finally:
        os.close(handle)


def _taken(path: Path, doing: str, until: float) -> int:
    """The open file of a lock that this process has taken. Raises as `locked`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        while take(handle) is False:
            if time.monotonic() >= until:
                owner = os.pread(handle, 200, 0).decode(errors="replace").strip() or "another process"
                raise LockedError(f"{path}: {owner} {doing}; wait for it, or stop it")
            time.sleep(0.1)
    except BaseException:
        os.close(handle)
        raise
    return handle


def take(handle: int) -> bool | None:
    """Take the lock of an open file. False: another process, or open file, has it. None: there are no locks here."""
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:
        return None
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        logger.debug("this file system has no locks: %s", error)
        return None
    return True


def is_at(path: Path, handle: int) -> bool:
    """Whether an open file is the one at a path. If it was deleted or renamed, its lock keeps nobody out."""
    try:
        return os.path.samestat(os.fstat(handle), path.lstat())
    except FileNotFoundError:
        return False
