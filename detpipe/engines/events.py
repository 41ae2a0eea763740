"""What a task tells the process that started it: progress and log lines, as JSON objects.

{"event": "progress", "name", "advance"} counts finished items of an operation. {"event": "log", "level", "text"} is a
line of the log.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from detpipe.console import PROGRESS
from detpipe.progress import counts_told

Send = Callable[[Mapping[str, Any]], None]
PAUSE = 0.2
"""Minimum seconds between two events of progress."""


@contextlib.contextmanager
def sent(send: Send) -> Iterator[None]:
    """A block whose progress and log lines (from INFO) are sent in place of being shown."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers[:] = [_SendingHandler(send)]
    root.setLevel(logging.INFO)
    progress = _Progress(send)
    try:
        with counts_told(progress.add):
            yield
    finally:
        progress.flush()
        root.handlers[:] = handlers
        root.setLevel(level)


class _Progress:
    """Sums what was counted between two events."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._counts: dict[str, int] = {}
        self._sent = 0.0

    def add(self, name: str, count: int) -> None:
        self._counts[name] = self._counts.get(name, 0) + count
        if time.monotonic() - self._sent >= PAUSE:
            self.flush()

    def flush(self) -> None:
        counts, self._counts = self._counts, {}
        for name, count in counts.items():
            self._send({"event": "progress", "name": name, "advance": count})
        self._sent = time.monotonic()


class _SendingHandler(logging.Handler):
    """Sends log lines, without lines of progress."""

    def __init__(self, send: Send) -> None:
        super().__init__(logging.INFO)
        self._send_event = send

    def emit(self, record: logging.LogRecord) -> None:
        """Send a line."""
        if record.name != PROGRESS:
            self._send_event({"event": "log", "level": record.levelno, "text": record.getMessage()})
