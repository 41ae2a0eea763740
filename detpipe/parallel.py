"""A map over workers that keeps the order, streams, and never holds more than a window of items."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class WorkerDiedError(RuntimeError):
    """A worker process was killed: out of memory, or a crash inside a library."""


def resolve_workers(workers: int) -> int:
    """The number of processes for a setting: -1 is one a core, 0 the process itself. Raises ValueError below -1."""
    if workers < -1:
        raise ValueError(f"workers: expected -1 (one a core), 0 (none) or a number, got {workers}")
    if workers >= 0:
        return workers
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def ordered_map(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    workers: int,
    describe: Callable[[Item], str] = str,
    max_threads: int = 1,
) -> Iterator[Result]:
    """Yield function(item) for each item, in the items' order, whatever the number of workers.

    function, items and results cross process borders, so they must pickle. At most four items a worker are under way.
    workers: as `resolve_workers` takes it; 0 and 1 work in this process. max_threads: up to so many workers are threads
    of this process, for a function that seldom holds the interpreter's lock: a process must first import what it
    needs, which takes seconds. An exception of `function` is raised here, at its item's turn. Raises WorkerDiedError,
    with `describe` of the items under way, where a process was killed.
    No items: yields nothing.
    """
    count = resolve_workers(workers)
    if count <= 1:
        yield from map(function, items)
        return
    pool = _threads(count) if count <= max_threads else _processes(count)
    window: deque[tuple[Item, Future[Result]]] = deque()
    try:
        for item in items:
            window.append((item, pool.submit(function, item)))
            if len(window) >= 4 * count:
                yield window[0][1].result()
                window.popleft()
        while window:
            yield window[0][1].result()
            window.popleft()
    except BrokenProcessPool as error:
        # Those before the first unfinished item are done and only wait for their turn.
        unfinished = [item for item, future in window if not future.done() or future.exception() is not None]
        under_way = ", ".join(describe(item) for item in unfinished[:count])
        raise WorkerDiedError(f"a worker process was killed, perhaps at one of: {under_way}; see memory") from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _processes(count: int) -> Executor:
    # spawn: a fork of a process that has run torch or OpenCV can hang in their thread pools.
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(count, mp_context=context, initializer=_start_worker)


def _threads(count: int) -> Executor:
    return ThreadPoolExecutor(count, thread_name_prefix="worker")


def _start_worker() -> None:
    """Make a worker quiet and mortal: Ctrl-C is the parent's affair, and no worker outlives its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    import cv2

    # One process a core already: threads inside each would only get into each other's way.
    cv2.setNumThreads(0)


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
