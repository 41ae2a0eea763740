"""A parallel map with ordered, streamed results and bounded memory."""

from __future__ import annotations

import ast
import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from multiprocessing.context import SpawnContext
from multiprocessing.synchronize import Event
from pathlib import Path
from types import FrameType
from typing import TypeVar

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")


GUARD = 'if __name__ == "__main__":'


class WorkerDiedError(RuntimeError):
    """A worker process ended early: memory ran out, a library crashed, or the user's script could not be imported."""


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
    takes seconds to import its modules. Threads are also used if the user's script is without GUARD, because each
    process imports the script and would run it again. An exception of `function` is raised in place of its result.
    Raises WorkerDiedError, with `describe` of the items in progress, if a process ended early. No items yield nothing.
    """
    count = resolve_workers(workers)
    if count <= 1:
        logger.debug("%s: in this process (workers=%d)", _name(function), workers)
        yield from map(function, items)
        return
    use_threads = count <= max_threads
    if not use_threads and (script := script_without_guard()) is not None:
        _warn_of_threads(script)
        use_threads = True
    kind = "threads" if use_threads else "processes"
    logger.debug("%s: in %d %s (workers=%d)", _name(function), count, kind, workers)
    context = multiprocessing.get_context("spawn")  # a forked process can hang in the threads of torch or OpenCV
    started = None if use_threads else context.Event()
    pool = _threads(count) if started is None else _processes(count, context, started)
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
        if started is not None and not started.is_set():
            main = _main_file() or "the main module"
            raise WorkerDiedError(
                f"the worker processes could not start, because importing {main} failed in them; put its calls of "
                f"detpipe under `{GUARD}`, or give workers=0"
            ) from error
        # Items before the first unfinished one are done and only wait to be yielded.
        unfinished = [item for item, future in window if not future.done() or future.exception() is not None]
        in_progress = ", ".join(describe(item) for item in unfinished[:count])
        raise WorkerDiedError(
            f"a worker process was killed, perhaps by one of: {in_progress}; check the memory, or lower workers"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _name(function: object) -> str:
    """Of a function, or of the class of another callable such as a partial."""
    return getattr(function, "__qualname__", type(function).__qualname__)


@cache
def _warn_of_threads(script: Path) -> None:
    """Warn once in a process."""
    logger.warning("%s: no %r around the call of detpipe, so it uses threads, not processes", script, GUARD)


def script_without_guard() -> Path | None:
    """The user's script if the main thread now runs a line of it that is not under GUARD; else None.

    A worker process imports the script, which would run that line again. Notebooks and `python -c` have no script.
    """
    path = _main_file()
    if path is None:
        return None
    line = None
    frame: FrameType | None = sys._current_frames().get(threading.main_thread().ident or 0)
    main = vars(sys.modules["__main__"])
    while frame is not None:
        if frame.f_globals is main and frame.f_code.co_name == "<module>":
            line = frame.f_lineno
        frame = frame.f_back
    if line is None:  # such as an interactive session after `python -i script.py`
        return None
    try:
        body = ast.parse(path.read_bytes()).body
    except (OSError, SyntaxError, ValueError):  # not a file of Python source, such as a zip archive
        return None
    guarded = any(one.lineno <= line <= (one.end_lineno or 0) for one in body if _is_guard(one))
    return None if guarded else path


def _main_file() -> Path | None:
    """The file that a spawned process imports as the main module; None without such a file.

    Python itself does not import the `__main__.py` of a package again.
    """
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    if (spec is not None and spec.name.rpartition(".")[2] == "__main__") or not getattr(main, "__file__", None):
        return None
    return Path(str(main.__file__))


def _is_guard(statement: ast.stmt) -> bool:
    """Whether the statement is an `if` with a comparison of `__name__`."""
    return isinstance(statement, ast.If) and any(
        isinstance(part, ast.Name) and part.id == "__name__" for part in ast.walk(statement.test)
    )


def _processes(count: int, context: SpawnContext, started: Event) -> Executor:
    return ProcessPoolExecutor(count, mp_context=context, initializer=_start_worker, initargs=(started,))


def _threads(count: int) -> Executor:
    return ThreadPoolExecutor(count, thread_name_prefix="worker")


def _start_worker(started: Event) -> None:
    """Let the parent handle Ctrl-C, and end the worker when the parent ends. started: set to tell the parent."""
    started.set()
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
