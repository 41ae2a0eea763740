"""progress: all items in order, and a line every tenth of the way where there is no terminal."""

from __future__ import annotations

import logging

import pytest

from detpipe.progress import progress


def test_a_line_every_tenth(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("detpipe.progress.PAUSE", 0.0)
    with caplog.at_level(logging.INFO):
        assert list(progress(iter(range(20)), "crop", total=20, unit="images")) == list(range(20))
    assert len(caplog.messages) == 9
    assert caplog.messages[0].startswith("crop: 2 of 20, ")


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
