"""What a command shows on a terminal: results on stdout; log lines, warnings and progress on stderr.

`detpipe eval ... > table.txt` therefore holds the table alone. The log file of a run folder has both.
"""

from __future__ import annotations

import logging
import sys

RESULT = 25
"""The level of results (tables, and sentences with numbers and the files that were written): above INFO."""

PROGRESS = "detpipe.progress"
"""The name of the logger of progress."""

logging.addLevelName(RESULT, "RESULT")


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
    """Writes what is not a result. On a terminal, a bar stands for the lines of progress."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether it is to be written."""
        has_bar = record.name == PROGRESS and sys.stderr.isatty()
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
            handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))


def is_quiet() -> bool:
    """Whether stderr shows no progress."""
    return any(
        isinstance(handler, LogHandler) and handler.level > logging.INFO for handler in logging.getLogger().handlers
    )
