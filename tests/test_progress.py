"""progress: all items in order, and a line every tenth of the way, and every 30 s."""

from __future__ import annotations

import io
import logging
import time

import pytest

from detpipe.progress import as_time, begin_of_command, counted, pace, progress, roughly, timed_command


def test_a_line_every_tenth(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("detpipe.progress.PAUSE", 0.0)
    with caplog.at_level(logging.INFO):
        assert list(progress(iter(range(20)), "crop", total=20, unit="images")) == list(range(20))
    assert len(caplog.messages) == 9
    assert caplog.messages[0].startswith("crop: 2 of 20 images, ")


def test_short_work_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert list(progress(range(20), "crop", total=20, unit="images")) == list(range(20))
    assert caplog.messages == []


def test_nothing_shows_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert list(progress([], "crop", total=0, unit="images")) == []
    assert caplog.messages == []


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert list(progress([1, 2], "crop", total=2, unit="images")) == [1, 2]
    assert "crop" in capsys.readouterr().err


def test_a_notebook_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    # The stream of a notebook's kernel: no terminal, and known by its module.
    stream = type("OutStream", (io.StringIO,), {"__module__": "ipykernel.iostream"})()
    monkeypatch.setattr("sys.stderr", stream)
    assert list(progress([1, 2], "crop", total=2, unit="images")) == [1, 2]
    assert "crop: 100%" in stream.getvalue()


def test_a_long_item_is_not_silent(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("detpipe.progress.SILENCE", 0.02)
    with caplog.at_level(logging.INFO), counted("detect", total=7, unit="images") as count:
        time.sleep(0.1)
        count.advance()
    assert caplog.messages[0].startswith("detect: 0 of 7 images")


def test_the_lines_end_with_the_work(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("detpipe.progress.SILENCE", 0.02)
    with caplog.at_level(logging.INFO):
        items = progress([1, 2], "crop", total=2, unit="images")
        next(items)
        items.close()  # type: ignore[attr-defined]
        seen = len(caplog.messages)
        time.sleep(0.1)
    assert len(caplog.messages) == seen


def test_the_pace_of_slow_and_of_fast_work() -> None:
    assert pace(2, 7, 24.0, "images") == "2 of 7 images, 12 s per image, 1 min 0 s left"
    assert pace(300, 1200, 10.0, "crops") == "300 of 1,200 crops, 30.0 crops per second, 30 s left"
    assert pace(0, 7, 24.0, "images") == "0 of 7 images"


def test_items_that_were_done_before_do_not_count_in_the_pace() -> None:
    assert pace(60, 100, 20.0, "iterations", earlier=50).endswith("2.0 s per iteration, 1 min 20 s left")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.42, "0.42 s"), (9.94, "9.9 s"), (41.6, "42 s"), (59.7, "1 min 0 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert as_time(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "10 s"), (44, "40 s"), (54, "50 s"), (56, "1 min"), (250, "4 min"), (3599, "1 h 0 min"), (7500, "2 h 5 min")],
)
def test_a_rough_duration(seconds: float, text: str) -> None:
    assert roughly(seconds) == text


def test_a_command_begins_before_its_imports_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([1.0, 5.0, 9.0, 11.0])
    monkeypatch.setattr("detpipe.progress.time.perf_counter", lambda: next(clock))
    with timed_command():
        assert begin_of_command() == 1.0
        assert begin_of_command() == 5.0  # the next job of a sweep
    with timed_command():
        pass
    assert begin_of_command() == 11.0  # in Python, after a command that did not ask
