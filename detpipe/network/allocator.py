"""Memory that a process keeps for its next large tensor instead of giving it back to the system."""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # malloc.h of glibc


def keep_freed_memory() -> bool:
    """Tell glibc to keep freed memory for this process; returns whether it did (False on other systems).

    By default glibc maps each block of more than 32 MiB anew, and the system clears its pages one by one: with batches
    of crops on a CPU that is a third to a half of the time (benchmarks/inference.py). The price: the memory of the
    largest step stays with the process.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # another C library, musl for example
        return False
    settings = ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1), (M_TOP_PAD, 64 << 20))
    return all(mallopt(option, value) for option, value in settings)
