"""Decorators for functions that numba compiles on the first call and caches on disk.

Code with `compiled` must give the same bits on every machine: integers, or single IEEE float operations in a fixed
order. So it may not use fastmath, sums of floats in loops, exp or log. `compiled_reordered` is for numerical code
without this requirement: the compiler may reorder sums to use vector instructions.

A compiled function may only call functions of its own file, because numba's cache notices changes of that file only.
Arrays are copied element by element, because the shape check that numba adds to `a[:] = b` takes seconds to compile.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

# Otherwise numba colours its messages by colorama, where that is installed. colorama then writes an escape code to the
# terminal or notebook at the end of each command.
os.environ.setdefault("NUMBA_DISABLE_ERROR_MESSAGE_HIGHLIGHTING", "1")

import numba

logger = logging.getLogger(__name__)

Function = TypeVar("Function", bound=Callable[..., Any])

_PATIENCE = 1.5
"""Seconds after which the log explains a slow first call. A cached function is faster."""


def compiled(function: Function) -> Function:
    """Compile the function on the first call for each combination of argument types. It releases Python's lock.

    The machine code is cached next to the file, or in the user's cache folder if that is not writable (NUMBA_CACHE_DIR
    sets another one). If neither is writable, each process compiles again.
    """
    return _machine_code(function)


def compiled_reordered(function: Function) -> Function:
    """As `compiled`, but sums of floats may be reordered, so the last bits differ between kinds of machines."""
    return _machine_code(function, fastmath={"reassoc", "contract"})


def _machine_code(function: Function, **settings: Any) -> Function:
    try:
        fast: Function = numba.njit(function, cache=True, nogil=True, **settings)
    except RuntimeError:  # numba found no writable cache folder
        fast = numba.njit(function, nogil=True, **settings)
    return fast


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Log that `what` is being compiled if the block takes longer than a moment."""
    timer = threading.Timer(
        _PATIENCE, logger.info, (f"{what}: compiling, only once on this machine (about half a minute) …",)
    )
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
