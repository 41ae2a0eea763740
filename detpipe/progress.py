"""Progress of long operations: a bar on a terminal, otherwise (log file, CI) a line for every tenth."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

logger = logging.getLogger(__name__)

Item = TypeVar("Item")

PAUSE = 1.0
"""Minimum seconds between two lines; shorter operations show none."""


def progress(items: Iterable[Item], name: str, *, total: int, unit: str) -> Iterator[Item]:
    """Yield the items and show the number done of `total`, the rate and the remaining time. No items show nothing.

    unit: the plural of an item's name.
    """
    if sys.stderr.isatty():
        yield from tqdm(items, desc=name, total=total, unit=f" {unit}")
        return
    begun = shown = time.perf_counter()
    tenth = max(total // 10, 1)
    for done, item in enumerate(items, start=1):
        yield item
        if done % tenth == 0 and done < total and time.perf_counter() - shown >= PAUSE:
            shown = time.perf_counter()
            rate = done / max(shown - begun, 1e-9)
            left = (total - done) / rate
            logger.info("%s: %d of %d, %.1f %s per second, %.0f s left", name, done, total, rate, unit, left)
