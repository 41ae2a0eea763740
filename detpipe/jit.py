"""Functions compiled by numba on their first call, and kept on disk for the next process.

Code of `compiled` must give the same bits on every machine: integers, or single IEEE operations on floats in a stated
order. So never fastmath, no sums of floats in loops, no exp or log. `compiled_reordered` is for numerical work that
holds to no bits: the compiler may reorder sums, which lets it use vector instructions.

A compiled function calls only functions of its own file: numba notices a change of the file that it compiles, not of
another one. Arrays are copied element by element: the check of shapes that numba adds to `a[:] = b` takes it seconds to
compile.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numba

logger = logging.getLogger(__name__)

Function = TypeVar("Function", bound=Callable[..., Any])

_PATIENCE = 1.5
"""Seconds after which a first call is explained. From the cache it takes less."""


def compiled(function: Function) -> Function:
    """The function as machine code, without Python's lock. It is compiled on its first call with arguments of a type.

    The code is kept beside the file, or in the user's cache folder where that is not writable (NUMBA_CACHE_DIR names
    another one); where neither is, it is compiled in each process.
    """
    return _machine_code(function)


def compiled_reordered(function: Function) -> Function:
    """As `compiled`, but sums of floats may be taken in any order: the last bits differ between kinds of machines."""
    return _machine_code(function, fastmath={"reassoc", "contract"})


def _machine_code(function: Function, **settings: Any) -> Function:
    try:
        fast: Function = numba.njit(function, cache=True, nogil=True, **settings)
    except RuntimeError:  # numba found no folder that it may write to
        fast = numba.njit(function, nogil=True, **settings)
    return fast


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Say in the log that `what` is being compiled, where the work inside is not over in a moment."""
    timer = threading.Timer(
        _PATIENCE, logger.info, (f"{what}: compiling it, once on this machine (about half a minute) …",)
    )
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
