"""The console: results on stdout, everything else on stderr, and what -q and -v change."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Iterator

import pytest

from detpipe.console import PROGRESS, RESULT, LogHandler, ResultHandler, amount, is_quiet, set_verbosity

logger = logging.getLogger("detpipe.example")


@pytest.fixture
def streams() -> Iterator[tuple[io.StringIO, io.StringIO]]:
    """What the two handlers of a command write: stdout and stderr."""
    out, err = io.StringIO(), io.StringIO()
    root, handlers = logging.getLogger(), [ResultHandler(out), LogHandler(err)]
    level = root.level
    root.setLevel(logging.INFO)
    for handler in handlers:
        root.addHandler(handler)
    yield out, err
    for handler in handlers:
        root.removeHandler(handler)
    logging.getLogger("detpipe").setLevel(logging.NOTSET)
    root.setLevel(level)


def write_lines() -> None:
    logger.debug("2 workers")
    logger.info("3 images")
    logger.log(RESULT, "mAP %.1f", 0.5)
    logger.warning("a broken image")


def test_results_go_to_stdout_and_the_log_to_stderr(streams: tuple[io.StringIO, io.StringIO]) -> None:
    write_lines()
    assert [stream.getvalue() for stream in streams] == ["mAP 0.5\n", "3 images\na broken image\n"]


def test_quiet_leaves_results_and_warnings(streams: tuple[io.StringIO, io.StringIO]) -> None:
    assert not is_quiet()
    set_verbosity(quiet=True, verbose=False)
    assert is_quiet()
    write_lines()
    assert [stream.getvalue() for stream in streams] == ["mAP 0.5\n", "a broken image\n"]


def test_verbose_adds_time_and_module_to_the_log(streams: tuple[io.StringIO, io.StringIO]) -> None:
    set_verbosity(quiet=False, verbose=True)
    write_lines()
    assert streams[0].getvalue() == "mAP 0.5\n"
    first, second, _ = streams[1].getvalue().splitlines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d .* DEBUG detpipe\.example: 2 workers", first)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d .* INFO detpipe\.example: 3 images", second)
    set_verbosity(quiet=False, verbose=False)
    logger.debug("3 workers")
    assert "3 workers" not in streams[1].getvalue()


def test_a_bar_stands_for_the_lines_of_progress(
    streams: tuple[io.StringIO, io.StringIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    logging.getLogger(PROGRESS).info("1 of 3")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    logging.getLogger(PROGRESS).info("2 of 3")
    assert streams[1].getvalue() == "1 of 3\n"


class Broken(io.StringIO):
    """A pipe whose reader has ended."""

    def write(self, text: str) -> int:
        raise BrokenPipeError


def test_a_reader_that_has_ended_does_not_stop_the_work(capsys: pytest.CaptureFixture[str]) -> None:
    ResultHandler(Broken()).handle(logging.LogRecord("detpipe", RESULT, "", 0, "mAP", (), None))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("count", "plural", "text"),
    [(1, "classes", "1 class"), (1, "boxes", "1 box"), (1, "new images", "1 new image"), (0, "boxes", "0 boxes")],
)
def test_a_number_with_what_it_counts(count: int, plural: str, text: str) -> None:
    assert amount(count, plural) == text
