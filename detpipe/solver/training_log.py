"""The log of a training: a JSON object a line, the same rows as CSV for a spreadsheet, and the smoothed loss."""

from __future__ import annotations

import csv
import io
import json
from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from detpipe.storage.atomic import write_text

Row = dict[str, Any]

MAX_BYTES = 1 << 28
"""A larger file is no log: this is a million rows."""


class TrainingLogError(ValueError):
    """A file that is no log of a training."""


class TrainingLog:
    """Rows by iteration in log.jsonl. A resumed training cuts off what came after its snapshot.

    A line that a kill left half written is cut off as well.
    """

    def __init__(self, folder: Path, *, resume_at: int) -> None:
        self.path = folder / "log.jsonl"
        folder.mkdir(parents=True, exist_ok=True)
        kept = [row for row in read_log(self.path) if row["iteration"] <= resume_at] if resume_at else []
        write_text(self.path, "".join(json.dumps(row) + "\n" for row in kept))

    def append(self, row: Row) -> None:
        """Add a row; it must have "iteration"."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def write_csv(self) -> Path:
        """Write log.csv from all rows. Returns its path."""
        path = self.path.with_suffix(".csv")
        write_text(path, as_csv(read_log(self.path)))
        return path


def read_log(path: Path) -> list[Row]:
    """The rows of a log.jsonl in order; no file gives none, and a last line without its end is left out.

    So a log that is being written can be read. Raises TrainingLogError naming the line that is no row.
    """
    if not path.is_file():
        return []
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise TrainingLogError(f"{path}: expected the log of a training, got {size} bytes, more than {MAX_BYTES}")
    lines = path.read_bytes().split(b"\n")[:-1]
    return [_row(line, f"{path}:{number}") for number, line in enumerate(lines, start=1) if line]


def _row(line: bytes, where: str) -> Row:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise TrainingLogError(f"{where}: expected a row of a training log as JSON, got: {error}") from error
    if not isinstance(row, dict) or type(row.get("iteration")) is not int or not 0 <= row["iteration"] < 1 << 53:
        raise TrainingLogError(
            f"{where}: expected a row with its iteration, got {line[:80].decode(errors='replace')!r}"
        )
    return row


def as_csv(rows: Iterable[Row]) -> str:
    """Rows as CSV with one column for each key that occurs, in order of appearance; no rows give an empty text."""
    rows = list(rows)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=columns, lineterminator="\n")
    if columns:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


class SmoothedLoss:
    """The mean of the last `window` losses; of all that came, while they are fewer (solver.cpp, UpdateSmoothedLoss)."""

    def __init__(self, window: int) -> None:
        self._losses: deque[float] = deque(maxlen=window)

    def add(self, loss: float) -> None:
        """Take in the loss of an iteration."""
        self._losses.append(loss)

    @property
    def mean(self) -> float:
        """The smoothed loss; there must have been one."""
        return sum(self._losses) / len(self._losses)

    def state(self) -> list[float]:
        """The losses of the window, oldest first. Caffe starts an empty window when it resumes; ours goes on."""
        return list(self._losses)

    def load(self, losses: Sequence[float]) -> None:
        """Take up what a snapshot held."""
        self._losses.extend(losses)
