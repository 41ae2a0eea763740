"""Progress of long operations: a bar on a terminal and in a notebook.

In a log (file, CI) it is a line for every tenth, and every 30 s.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from detpipe.console import PROGRESS, is_quiet, shows_bars

if TYPE_CHECKING:
    from tqdm import tqdm

logger = logging.getLogger(PROGRESS)

Item = TypeVar("Item")

PAUSE = 1.0
"""Minimum seconds between two lines; shorter operations show none."""
SILENCE = 30.0
"""Maximum seconds without a line."""
_listeners: list[Callable[[str, int], None]] = []


_counted: dict[str, float] | None = None
"""Operation -> seconds of its items; None outside of `counted_seconds`."""


_command_begun: float | None = None
"""When the command line began the command that runs, by time.perf_counter; None once it is taken, and in Python."""


@contextlib.contextmanager
def timed_command() -> Iterator[None]:
    """A block in which the command line runs a command: it begins now, before it imports what it needs."""
    global _command_begun
    _command_begun = time.perf_counter()
    try:
        yield
    finally:
        _command_begun = None


def begin_of_command() -> float:
    """When the command began, by time.perf_counter: with its imports on the command line; now in Python.

    The next job of a sweep begins when it asks.
    """
    global _command_begun
    begun, _command_begun = _command_begun, None
    return time.perf_counter() if begun is None else begun


@contextlib.contextmanager
def counted_seconds() -> Iterator[dict[str, float]]:
    """A block whose operations with progress note their seconds in the mapping, by name."""
    global _counted
    before, _counted = _counted, {}
    try:
        yield _counted
    finally:
        _counted = before


class Counter:
    """Counts the finished items of an operation, and shows the count, the rate and the remaining time.

    name: of the operation. total: number of items. unit: the plural of an item's name.
    """

    def __init__(self, name: str, *, total: int, unit: str) -> None:
        self.name, self.total, self.unit = name, total, unit
        self.done = 0
        self._begun = self._shown = time.perf_counter()
        self._shown_tenths = 0
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._bar = None if is_quiet() or not shows_bars() else _new_bar(name, total, unit)
        # A thread, because one item can take minutes.
        self._clock = threading.Thread(target=self._show_regularly, daemon=True)

    def advance(self, count: int = 1) -> None:
        """Count finished items."""
        for tell in _listeners:
            tell(self.name, count)
        with self._lock:
            if self._bar is not None:
                self._bar.update(count)
            self.done += count
            tenths = 10 * self.done // max(self.total, 1)
            is_due = tenths > self._shown_tenths and self.done < self.total
            if is_due and time.perf_counter() - self._shown >= PAUSE:
                self._shown_tenths = tenths
                self._show()

    def start(self) -> None:
        """Begin to show progress."""
        self._clock.start()

    def stop(self) -> None:
        """End the bar and the lines."""
        self._ended.set()
        self._clock.join()
        if _counted is not None:
            _counted[self.name] = _counted.get(self.name, 0.0) + time.perf_counter() - self._begun
        if self._bar is not None:
            self._bar.close()

    def _show_regularly(self) -> None:
        while not self._ended.wait(max(SILENCE - (time.perf_counter() - self._shown), 0.01)):
            with self._lock:
                if time.perf_counter() - self._shown >= SILENCE and not self._ended.is_set():
                    self._show()

    def _show(self) -> None:
        self._shown = time.perf_counter()
        logger.info("%s: %s", self.name, pace(self.done, self.total, self._shown - self._begun, self.unit))


def _new_bar(name: str, total: int, unit: str) -> tqdm[Any]:
    from tqdm import tqdm  # takes a twentieth of a command's start, and a log has no bars

    return tqdm(desc=name, total=total, unit=f" {unit}", file=sys.stderr)


def pace(done: int, total: int, seconds: float, unit: str, *, earlier: int = 0) -> str:
    """Count, rate and time left as text: "3 of 7 images, 12 s per image, 48 s left". unit: plural.

    seconds: the time of the items after the first `earlier` ones, which an interrupted process has done.
    """
    rate = max(done - earlier, 0) / max(seconds, 1e-9)
    if not rate:
        return f"{done:,} of {total:,} {unit}"
    speed = f"{rate:.1f} {unit} per second" if rate >= 1 else f"{as_time(1 / rate)} per {unit.removesuffix('s')}"
    return f"{done:,} of {total:,} {unit}, {speed}, {as_time((total - done) / rate)} left"


def as_time(seconds: float) -> str:
    """A duration as text: 0.42 s, 42 s, 3 min 20 s, 2 h 5 min."""
    if seconds < 10:
        return f"{seconds:.2g} s" if seconds < 1 else f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def roughly(seconds: float) -> str:
    """An estimated duration as text, rounded: 40 s (to ten seconds), 4 min, 2 h 5 min."""
    if seconds < 55:
        return f"{max(10 * round(seconds / 10), 10)} s"
    minutes = max(round(seconds / 60), 1)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


@contextlib.contextmanager
def counted(name: str, *, total: int, unit: str) -> Iterator[Counter]:
    """A block whose finished items are counted by `Counter.advance`. With a total of 0 it shows nothing."""
    counter = Counter(name, total=total, unit=unit)
    counter.start()
    try:
        yield counter
    finally:
        counter.stop()


@contextlib.contextmanager
def counts_told(tell: Callable[[str, int], None]) -> Iterator[None]:
    """A block in which `tell` gets the name of an operation and the number of items for each `Counter.advance`."""
    _listeners.append(tell)
    try:
        yield
    finally:
        _listeners.remove(tell)


def progress(items: Iterable[Item], name: str, *, total: int, unit: str) -> Iterator[Item]:
    """Yield the items and show the number done of `total`, the rate and the remaining time. No items show nothing.

    unit: the plural of an item's name.
    """
    if not total:
        yield from items
        return
    with counted(name, total=total, unit=unit) as counter:
        for item in items:
            yield item
            counter.advance()
