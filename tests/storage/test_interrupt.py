"""Signals as a request to stop."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from detpipe.storage.interrupt import save_on_hangup, stop_on_signal


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_noted(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with stop_on_signal() as stop:
        assert not stop
        os.kill(os.getpid(), number)
        assert stop
        assert stop.signal is number
    assert signal.getsignal(number) is before


def test_a_second_signal_stops_at_once() -> None:
    before = signal.getsignal(signal.SIGINT)

    def twice() -> None:
        with stop_on_signal():
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        twice()
    assert signal.getsignal(signal.SIGINT) is before


def test_no_signal() -> None:
    with stop_on_signal() as stop:
        pass
    assert not stop
    assert stop.signal is None


def test_a_side_thread_leaves_signals_alone() -> None:
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def work() -> None:
        with stop_on_signal() as stop:
            seen.append((bool(stop), signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(False, before)]


def test_a_hangup_is_noted_once() -> None:
    before = signal.getsignal(signal.SIGHUP)
    with save_on_hangup() as save:
        assert not save.take()
        os.kill(os.getpid(), signal.SIGHUP)
        assert save.take()
        assert not save.take()
    assert signal.getsignal(signal.SIGHUP) is before


def test_a_side_thread_notes_no_hangup() -> None:
    seen = []

    def work() -> None:
        with save_on_hangup() as save:
            seen.append((save.take(), signal.getsignal(signal.SIGHUP)))

    before = signal.getsignal(signal.SIGHUP)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(False, before)]


def test_a_handler_that_could_not_be_restored_is_not_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python knows no handler that a program in C has installed."""
    monkeypatch.setattr(signal, "getsignal", lambda _: None)
    monkeypatch.setattr(signal, "signal", None)
    with stop_on_signal() as stop, save_on_hangup() as save:
        assert not stop
        assert not save.take()
