"""Signal handling as in Caffe: SIGINT and SIGTERM stop after the current iteration, SIGHUP saves and continues."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class Interrupted(Exception):  # noqa: N818  (not an error: the work is saved)
    """The command stopped on a signal after its work was saved."""


class StopRequest:
    """True after a signal has requested a stop."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    def __bool__(self) -> bool:
        return self.signal is not None


@contextlib.contextmanager
def stop_on_signal() -> Iterator[StopRequest]:
    """Record SIGINT and SIGTERM instead of terminating; a second signal raises KeyboardInterrupt.

    Outside the main thread the handlers are not changed, nor is a handler that was not installed from Python, because
    it could not be restored.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def note(number: int, _frame: FrameType | None) -> None:
        if request:
            raise KeyboardInterrupt
        request.signal = signal.Signals(number)

    numbers = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) is not None]
    previous = {number: signal.signal(number, note) for number in numbers}
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class SaveRequest:
    """Whether a signal has requested a snapshot since the last `take`."""

    def __init__(self) -> None:
        self.requested = False

    def take(self) -> bool:
        """Return whether a snapshot was requested, and clear the request."""
        requested, self.requested = self.requested, False
        return requested


@contextlib.contextmanager
def save_on_hangup() -> Iterator[SaveRequest]:
    """Record SIGHUP instead of terminating (also Caffe's default).

    Does nothing outside the main thread, on systems without SIGHUP, and if the handler was not installed from Python.
    """
    request = SaveRequest()
    hangup = getattr(signal, "SIGHUP", None)
    is_main = threading.current_thread() is threading.main_thread()
    if hangup is None or not is_main or signal.getsignal(hangup) is None:
        yield request
        return

    def note(_number: int, _frame: FrameType | None) -> None:
        request.requested = True

    previous = signal.signal(hangup, note)
    try:
        yield request
    finally:
        signal.signal(hangup, previous)
