"""SIGINT and SIGTERM as a request to stop after the running iteration, SIGHUP as one to save and go on, as in Caffe."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class Interrupted(Exception):  # noqa: N818  (it is no error: the work is saved)
    """The work stopped on a signal, with all that was done on disk."""


class StopRequest:
    """Whether a signal has asked to stop."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    def __bool__(self) -> bool:
        return self.signal is not None


@contextlib.contextmanager
def stop_on_signal() -> Iterator[StopRequest]:
    """Note SIGINT and SIGTERM instead of dying; a second SIGINT dies as usual. In a side thread signals stay as are."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def note(number: int, _frame: FrameType | None) -> None:
        if request:
            raise KeyboardInterrupt
        request.signal = signal.Signals(number)

    previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class SaveRequest:
    """Whether a signal has asked for a snapshot since the last time that this was asked."""

    def __init__(self) -> None:
        self.noted = False

    def take(self) -> bool:
        """Answer, and forget it."""
        noted, self.noted = self.noted, False
        return noted


@contextlib.contextmanager
def save_on_hangup() -> Iterator[SaveRequest]:
    """Note SIGHUP instead of dying (Caffe's default too). Nothing is noted in a side thread, or where there is none."""
    request = SaveRequest()
    hangup = getattr(signal, "SIGHUP", None)
    if hangup is None or threading.current_thread() is not threading.main_thread():
        yield request
        return

    def note(_number: int, _frame: FrameType | None) -> None:
        request.noted = True

    previous = signal.signal(hangup, note)
    try:
        yield request
    finally:
        signal.signal(hangup, previous)
