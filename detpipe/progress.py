"""How far a long work is: a bar on a terminal, elsewhere (a log file, CI) a line every tenth of the way."""

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
"""Seconds between two lines at least: work that is over sooner needs none."""


def progress(items: Iterable[Item], name: str, *, total: int, unit: str) -> Iterator[Item]:
    """Yield the items and show how many of `total` are done, how fast, and when all will be. No items show nothing."""
    if sys.stderr.isatty():
        yield from tqdm(items, desc=name, total=total, unit=unit)
        return
    begun = said = time.perf_counter()
    tenth = max(total // 10, 1)
    for done, item in enumerate(items, start=1):
        yield item
        if done % tenth == 0 and done < total and time.perf_counter() - said >= PAUSE:
            said = time.perf_counter()
            rate = done / max(said - begun, 1e-9)
            left = (total - done) / rate
            logger.info("%s: %d of %d, %.1f %ss a second, %.0f s left", name, done, total, rate, unit, left)
