"""What a command shows on a terminal: results on stdout; log lines, warnings and progress on stderr.

`detpipe eval ... > table.txt` therefore holds the table alone. The log file of a run folder has both.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

RESULT = 25
"""The level of results (tables, and sentences with numbers and the files that were written): above INFO."""

PROGRESS = "detpipe.progress"
"""The name of the logger of progress."""

logging.addLevelName(RESULT, "RESULT")


FILE_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
"""The lines of a log file, as in conf/hydra/job_logging."""

ESSENTIAL = (PROGRESS, "detpipe.commands.run_progress", "detpipe.solver.solver", "detpipe.training")
"""The loggers of progress: of items, of a run's stages, of a training's iterations, and of a training from Python."""


def amount(count: int, plural: str) -> str:
    """A number with what it counts: 1, "classes" -> "1 class". plural: of a regular word."""
    singular = plural.removesuffix("es") if plural.endswith(("sses", "xes")) else plural.removesuffix("s")
    return f"{count} {singular if count == 1 else plural}"


def shows_bars() -> bool:
    """Whether progress is shown as bars: on a terminal, and in a notebook."""
    return sys.stderr.isatty() or type(sys.stderr).__module__.partition(".")[0] == "ipykernel"


class ConsoleHandler(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes lines above the progress bars."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line."""
        if "tqdm" not in sys.modules:  # then there is no bar
            super().emit(record)
            return
        from tqdm import tqdm

        with tqdm.external_write_mode(file=self.stream):
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Say nothing if the program that reads the output has ended, as `head` does: the work goes on."""
        if not isinstance(sys.exc_info()[1], BrokenPipeError):
            super().handleError(record)


class LogHandler(ConsoleHandler):
    """Writes what is not a result. Where bars are shown, they stand for the lines of progress."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether it is to be written."""
        has_bar = record.name == PROGRESS and shows_bars()
        return record.levelno != RESULT and not has_bar and bool(super().filter(record))


class ResultHandler(ConsoleHandler):
    """Writes results alone."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether it is a result."""
        return record.levelno == RESULT and bool(super().filter(record))


def set_verbosity(*, quiet: bool, verbose: bool) -> None:
    """Choose what stderr shows. quiet: warnings and errors only, and no progress.

    verbose: also time and module, and the debug lines of detpipe, which are then in the log file, too.
    """
    logging.getLogger("detpipe").setLevel(logging.DEBUG if verbose else logging.NOTSET)
    for handler in logging.getLogger().handlers:
        if isinstance(handler, LogHandler) and quiet:
            handler.setLevel(logging.WARNING)
        elif isinstance(handler, LogHandler) and verbose:
            handler.setFormatter(logging.Formatter(FILE_FORMAT))


def is_quiet() -> bool:
    """Whether stderr shows no progress."""
    return any(
        isinstance(handler, LogHandler) and handler.level > logging.INFO for handler in logging.getLogger().handlers
    )


class _EssentialHandler(LogHandler):
    """Writes progress and warnings alone."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether it is to be written."""
        is_shown = record.levelno >= logging.WARNING or record.name in ESSENTIAL
        return is_shown and bool(super().filter(record))


@contextlib.contextmanager
def shown_log(*, verbose: bool, log_file: Path) -> Iterator[None]:
    """Show the log of detpipe in a program that has not set up logging: results on stdout, the others on stderr.

    verbose: all lines; else results, progress and warnings. A program whose own handlers take lines of detpipe at level
    INFO gets them as usual, and nothing is shown twice. log_file: also receives all lines.
    """
    log = logging.getLogger("detpipe")
    file = logging.FileHandler(log_file, encoding="utf-8", errors="backslashreplace", delay=True)
    file.setFormatter(logging.Formatter(FILE_FORMAT))
    handlers: list[logging.Handler] = [file]
    is_set_up = log.hasHandlers() and log.isEnabledFor(logging.INFO)
    if not is_set_up:
        handlers += [(LogHandler if verbose else _EssentialHandler)(sys.stderr), ResultHandler(sys.stdout)]
    before = log.level, log.propagate
    log.setLevel(min(log.getEffectiveLevel(), logging.INFO))
    log.propagate = is_set_up
    for one in handlers:
        log.addHandler(one)
    try:
        yield
    finally:
        for one in handlers:
            log.removeHandler(one)
            one.close()
        log.setLevel(before[0])
        log.propagate = before[1]


@contextlib.contextmanager
def silent(but: str | None = None) -> Iterator[None]:
    """A block in which detpipe logs nothing but errors. but: the name of a logger below it that goes on."""
    loggers = [(logging.getLogger("detpipe"), logging.ERROR)]
    if but is not None:
        loggers.append((logging.getLogger(but), logging.INFO))
    before = [log.level for log, _ in loggers]
    for log, level in loggers:
        log.setLevel(level)
    try:
        yield
    finally:
        for (log, _), level in zip(loggers, before, strict=True):
            log.setLevel(level)
