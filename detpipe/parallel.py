"""A parallel map with ordered, streamed results and bounded memory."""

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
    """A worker process was killed, for example because memory ran out or a library crashed."""


def resolve_workers(workers: int) -> int:
    """The number of workers for a setting: -1 is one per core, 0 is the process itself. Raises ValueError below -1."""
    if workers < -1:
        raise ValueError(f"workers: expected -1 (one per core), 0 (none) or a number, got {workers}")
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
    """Yield function(item) for each item, in the order of the items, for any number of workers.

    function, items and results must be picklable. At most four items per worker are in progress.
    workers: as in `resolve_workers`; 0 and 1 run in this process. max_threads: up to this number, workers are threads
    instead of processes. Use it for a function that mostly releases the interpreter's lock, because a process first
    takes seconds to import its modules. An exception of `function` is raised in place of its result. Raises
    WorkerDiedError, with `describe` of the items in progress, if a process was killed. No items yield nothing.
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
        # Items before the first unfinished one are done and only wait to be yielded.
        unfinished = [item for item, future in window if not future.done() or future.exception() is not None]
        in_progress = ", ".join(describe(item) for item in unfinished[:count])
        raise WorkerDiedError(
            f"a worker process was killed, perhaps by one of: {in_progress}; check the memory, or lower workers"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _processes(count: int) -> Executor:
    # A forked process can hang in the thread pools of torch or OpenCV, a spawned one can't.
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(count, mp_context=context, initializer=_start_worker)


def _threads(count: int) -> Executor:
    return ThreadPoolExecutor(count, thread_name_prefix="worker")


def _start_worker() -> None:
    """Let the parent handle Ctrl-C, and end the worker when the parent ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    import cv2

    # There is already one process per core, so more threads in each would only slow them down.
    cv2.setNumThreads(0)


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
