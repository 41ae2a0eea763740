"""engine=local: tasks in processes of this machine."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from detpipe.engines.engine import THREADS, Engine, Observer, TaskCall, cores
from detpipe.storage.interrupt import Interrupted, StopRequest, stop_on_signal

_TICK = 0.2
"""Seconds after which a signal is noticed."""


@dataclass(kw_only=True)
class LocalEngine(Engine):
    """Run the tasks in processes of this machine."""

    processes: int = -1
    """Number of processes; -1: one per core. Each runs one task at a time with its share of the cores."""
    retries: int = 2
    """How often a task is run again whose process was killed, for example because memory ran out."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.processes != -1 and not 1 <= self.processes <= 1024:
            raise ValueError(f"engine.processes: expected -1 (one per core) or 1 to 1024, got {self.processes}")
        if self.retries < 0:
            raise ValueError(f"engine.retries: expected at least 0, got {self.retries}")

    def run(self, call: TaskCall, tasks: Sequence[int], observer: Observer) -> None:
        """See `Engine.run`."""
        if not tasks:
            return
        count = min(cores() if self.processes == -1 else self.processes, len(tasks))
        share = max(1, cores() // count)
        with stop_on_signal() as stop:
            _Run(call.with_cores(share), tasks, observer, count, share, self.retries).run(stop)
        if stop:
            raise Interrupted("finished tasks are kept; run the same command again, it continues from there")


class _Worker:
    """A process that runs one task after the other. events: (worker, event), and (worker, None) at its end."""

    def __init__(self, threads: int, events: queue.Queue[tuple[_Worker, dict[str, Any] | None]]) -> None:
        environment = {THREADS: str(threads), **os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        # A session of its own: Ctrl-C in the terminal reaches only this process, which then stops the tasks.
        self.process = subprocess.Popen(
            [sys.executable, "-m", "detpipe.engines.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env=environment,
            start_new_session=True,
        )
        self.task: int | None = None
        self._events = events
        threading.Thread(target=self._read, daemon=True).start()

    def start(self, call: TaskCall, task: int) -> None:
        """Give it a task."""
        self.task = task
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended: the reading thread tells
            self.process.stdin.write(json.dumps({**asdict(call), "task": task}) + "\n")
            self.process.stdin.flush()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._events.put((self, json.loads(line)))
        self.process.wait()
        self._events.put((self, None))

    def stop(self) -> None:
        """Ask the task to stop where it can continue later."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)

    def close(self) -> None:
        """End the process now."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):  # what could not be written any more
                    stream.close()

    @property
    def end(self) -> str:
        """How the process ended."""
        code = self.process.returncode
        if code is not None and code < 0:
            return f"its process was killed by {signal.Signals(-code).name}"
        return f"its process ended with status {code}"


class _Run:
    """One call of `LocalEngine.run`."""

    def __init__(
        self, call: TaskCall, tasks: Sequence[int], observer: Observer, processes: int, threads: int, retries: int
    ) -> None:
        self._call, self._observer, self._threads, self._retries = call, observer, threads, retries
        self._left = deque(tasks)
        self._ends: dict[int, int] = {}
        self._processes = processes
        self._events: queue.Queue[tuple[_Worker, dict[str, Any] | None]] = queue.Queue()
        self._workers: list[_Worker] = []

    def run(self, stop: StopRequest) -> None:
        told = False
        try:
            while True:
                if stop and not told:
                    told = True
                    for worker in self._workers:
                        worker.stop()
                if not stop:
                    self._start()
                if not any(worker.task is not None for worker in self._workers):
                    return
                try:
                    worker, event = self._events.get(timeout=_TICK)
                except queue.Empty:
                    continue
                self._take(worker, event, stopping=bool(stop))
        finally:
            for worker in self._workers:
                worker.close()

    def _start(self) -> None:
        """Give each idle process a task, and start processes while there are tasks for them."""
        idle = [worker for worker in self._workers if worker.task is None]
        while self._left and (idle or len(self._workers) < self._processes):
            if idle:
                worker = idle.pop()
            else:
                worker = _Worker(self._threads, self._events)
                self._workers.append(worker)
            task = self._left.popleft()
            worker.start(self._call, task)
            self._observer.started(task, f"process {worker.process.pid}")

    def _take(self, worker: _Worker, event: Mapping[str, Any] | None, *, stopping: bool) -> None:
        task = worker.task
        if event is None:
            worker.close()
            self._workers.remove(worker)
            if task is not None and not stopping:
                self._lost(task, worker.end)
            return
        if task is None:
            return
        if event["event"] == "finished":
            worker.task = None
            self._observer.finished(task)
        elif event["event"] == "failed":
            worker.task = None
            if not stopping:
                self._observer.failed(task, event["text"])
        else:
            self._observer.event(task, event)

    def _lost(self, task: int, reason: str) -> None:
        self._ends[task] = self._ends.get(task, 0) + 1
        if self._ends[task] > self._retries:
            self._observer.failed(task, reason)
        else:
            self._observer.repeated(task, reason)
            self._left.appendleft(task)
