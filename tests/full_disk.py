"""A call in another process whose files can't grow beyond 1 MiB, as on a full disk."""

from __future__ import annotations

import multiprocessing
import resource
import signal
from collections.abc import Callable
from typing import Any

LIMIT = 1 << 20


def error_on_full_disk(write: Callable[..., None], *arguments: Any) -> str:
    """The text of the OSError that `write(*arguments)` raises; it is pickled, so it is a function of a module.

    Raises AssertionError if the process is ended by a signal, as some writers in C++ do.
    """
    context = multiprocessing.get_context("spawn")
    found = context.SimpleQueue()
    process = context.Process(target=_write, args=(found, write, *arguments))
    process.start()
    process.join()
    assert process.exitcode == 0, process.exitcode
    text: str = found.get()
    return text


def _write(found: multiprocessing.SimpleQueue[str], write: Callable[..., None], *arguments: Any) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # then a file too large is an error of the write
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, LIMIT))
    try:
        write(*arguments)
        found.put("no error")
    except OSError as error:
        found.put(str(error))
