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
    for longer. Where the system or the file system has no locks, nobody is kept out.
    """
    try:
        import fcntl
    except ImportError:  # not on this system: then nobody is warned
        yield
        return
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        until = time.monotonic() + wait
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                    logger.debug("%s: this file system has no locks: %s", path, error)
                    break
            if time.monotonic() >= until:
                owner = os.pread(handle, 200, 0).decode(errors="replace").strip() or "another process"
                raise LockedError(f"{path}: {owner} {doing}; wait for it, or stop it")
            time.sleep(0.1)
        os.ftruncate(handle, 0)
        with contextlib.suppress(OSError):  # a full disk: the next file that is written names it
            os.pwrite(handle, f"process {os.getpid()} of {socket.gethostname()}".encode(), 0)
        yield
    finally:
        os.close(handle)
