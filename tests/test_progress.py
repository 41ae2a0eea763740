"""progress: all items in order, and a line every tenth of the way, and every 30 s."""

from __future__ import annotations

import logging
import time

import pytest

from detpipe.progress import counted, duration, progress, progress_text


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


def test_a_long_item_is_not_silent(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("detpipe.progress.SILENCE", 0.02)
    with caplog.at_level(logging.INFO), counted("detect", total=7, unit="images") as count:
        time.sleep(0.1)
        count.advance()
    assert caplog.messages[0].startswith("detect: 0 of 7 images after ")


def test_the_lines_end_with_the_work(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("detpipe.progress.SILENCE", 0.02)
    with caplog.at_level(logging.INFO):
        items = progress([1, 2], "crop", total=2, unit="images")
        next(items)
        items.close()  # type: ignore[attr-defined]
        seen = len(caplog.messages)
        time.sleep(0.1)
    assert len(caplog.messages) == seen


def test_the_state_in_words() -> None:
    assert progress_text(0, 7, "images", 30.2) == "0 of 7 images after 30 s"
    assert progress_text(40, 600, "images", 5) == "40 of 600 images, 8.0 per second, 1 min 10 s left"
    assert progress_text(2, 7, "images", 50) == "2 of 7 images, 25.0 s each, 2 min 5 s left"


def test_durations() -> None:
    assert [duration(seconds) for seconds in (0, 59.4, 60, 3599, 7500)] == [
        "0 s", "59 s", "1 min 0 s", "59 min 59 s", "2 h 5 min",
    ]  # fmt: skip
