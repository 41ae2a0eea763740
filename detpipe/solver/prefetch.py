"""Batches made ahead in a thread while the solver computes, and the time that the solver waited for them."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

Batch = TypeVar("Batch")


class Prefetcher(Generic[Batch]):
    """Iterates over make(i) for i in start, ..., stop - 1, computed in order in one thread, at most `depth` ahead.

    A thread is enough: decoding and resizing release the interpreter's lock, and a batch is made many times faster
    than it is used. An exception of `make` is raised at its batch's turn. `waited`: seconds spent waiting so far.
    """

    def __init__(self, make: Callable[[int], Batch], start: int, stop: int, *, depth: int = 4) -> None:
        self.waited = 0.0
        self._queue: queue.Queue[Batch | BaseException] = queue.Queue(depth)
        self._closed = threading.Event()
        self._count = max(stop - start, 0)
        self._thread = threading.Thread(target=self._fill, args=(make, start, stop), daemon=True)
        self._thread.start()

    def _fill(self, make: Callable[[int], Batch], start: int, stop: int) -> None:
        try:
            for index in range(start, stop):
                self._put(make(index))
                if self._closed.is_set():
                    return
        except BaseException as error:
            self._put(error)

    def _put(self, item: Batch | BaseException) -> None:
        while not self._closed.is_set():
            with contextlib.suppress(queue.Full):
                self._queue.put(item, timeout=0.1)
                return

    def __iter__(self) -> Iterator[Batch]:
        for _ in range(self._count):
            begun = time.perf_counter()
            item = self._queue.get()
            self.waited += time.perf_counter() - begun
            if isinstance(item, BaseException):
                raise item
            yield item

    def close(self) -> None:
        """Stop the thread; safe to call more than once."""
        self._closed.set()
        self._thread.join()
