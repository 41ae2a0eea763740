"""Prefetching in threads: of batches by index, and of streams."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar

Batch = TypeVar("Batch")
Item = TypeVar("Item")


class Prefetcher(Generic[Batch]):
    """Iterates over make(i) for i in start, ..., stop - 1, in this order, computed at most `depth` ahead.

    Threads are sufficient: decoding and resizing release the interpreter's lock, and making a batch takes much less
    time than using it. With one thread, `make` is called in order. With more, calls overlap, but the results are still
    in order. An exception of `make` is raised when the iteration reaches its batch. `waited`: seconds spent waiting.
    """

    def __init__(
        self, make: Callable[[int], Batch], start: int, stop: int, *, depth: int = 4, threads: int = 1
    ) -> None:
        self.waited = 0.0
        self._make = make
        self._next, self._turn, self._stop = start, start, max(start, stop)
        self._depth = max(depth, threads)
        self._made: dict[int, Batch | BaseException] = {}
        self._closed = False
        self._changed = threading.Condition()
        self._threads = [threading.Thread(target=self._fill, daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def _fill(self) -> None:
        while (index := self._claim()) is not None:
            made: Batch | BaseException
            try:
                made = self._make(index)
            except BaseException as error:
                made = error
            with self._changed:
                self._made[index] = made
                if isinstance(made, BaseException):
                    self._stop = min(self._stop, index + 1)  # later batches will not be used
                self._changed.notify_all()

    def _claim(self) -> int | None:
        """Wait for space, then return the index of the next batch to make; None at the end."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._closed or self._next >= self._stop or self._next < self._turn + self._depth
            )
            if self._closed or self._next >= self._stop:
                return None
            self._next += 1
            return self._next - 1

    def __iter__(self) -> Iterator[Batch]:
        while self._turn < self._stop:
            begun = time.perf_counter()
            with self._changed:
                self._changed.wait_for(lambda: self._turn in self._made)
                item = self._made.pop(self._turn)
                self._turn += 1
                self._changed.notify_all()
            self.waited += time.perf_counter() - begun
            if isinstance(item, BaseException):
                raise item
            yield item

    def close(self) -> None:
        """Stop the threads. May be called more than once."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()


def read_ahead(stream: Iterable[Item], *, depth: int = 3) -> Iterator[Item]:
    """The items of a stream in order, read in a background thread at most `depth` ahead.

    An exception of the stream is raised in place of its item. An empty stream gives no items. The thread ends with the
    iterator.
    """
    items, end = iter(stream), object()
    # The number of items is unknown, so the end has a marker.
    ahead: Prefetcher[Any] = Prefetcher(lambda _: next(items, end), 0, 1 << 62, depth=depth)
    try:
        for item in ahead:
            if item is end:
                return
            yield item
    finally:
        ahead.close()
