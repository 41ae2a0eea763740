"""Memory of the C libraries: keeps freed memory, for faster large tensors; frees the buffers of MKL before a fork."""

from __future__ import annotations

import ctypes
import functools
import sys
from collections.abc import Callable
from pathlib import Path

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # malloc.h of glibc


def keep_freed_memory() -> bool:
    """Tell glibc to keep freed memory in this process. Returns True on success, False on other systems.

    By default glibc requests each block of more than 32 MiB from the system, which must zero its pages. With batches
    of crops on a CPU this takes a third to a half of the time (benchmarks/inference.py). The cost: the process keeps
    the memory of its largest step.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # another C library, musl for example
        return False
    settings = ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1), (M_TOP_PAD, 64 << 20))
    return all(mallopt(option, value) for option, value in settings)


def free_mkl_buffers() -> None:
    """Free the buffers that MKL keeps for each thread, if PyTorch has MKL. To be called before a fork.

    When one of its threads has ended, MKL holds a lock while it tidies its buffers. If the process is forked at this
    moment, the child has the lock but not the thread, and its next matrix product waits forever. This call waits until
    the lock is free.
    """
    _mkl_free_buffers()()


@functools.cache
def _mkl_free_buffers() -> Callable[[], object]:
    """The function `mkl_serv_free_buffers` of PyTorch's library; without MKL, a function that does nothing."""
    import torch  # here, because commands without torch keep freed memory as well

    library = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    try:
        found: Callable[[], object] = ctypes.CDLL(str(library)).mkl_serv_free_buffers
    except (OSError, AttributeError):  # another system, or a build without MKL
        return lambda: None
    return found
