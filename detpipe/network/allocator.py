"""A malloc setting that keeps freed memory in the process, so that large tensors are allocated faster."""

from __future__ import annotations

import ctypes
import sys

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
