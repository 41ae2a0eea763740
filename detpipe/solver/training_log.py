"""The log of a training as JSON lines and as CSV, and the smoothed loss."""

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
"""Limit on the file size, about a million rows."""


class TrainingLogError(ValueError):
    """A file is not the log of a training."""


class TrainingLog:
    """Writes rows to log.jsonl. A resumed training removes the rows after its snapshot.

    It also removes an incomplete last line, which a killed process may have left.
    """

    def __init__(self, folder: Path, *, resume_at: int) -> None:
        self.path = folder / "log.jsonl"
        folder.mkdir(parents=True, exist_ok=True)
        kept = [row for row in read_log(self.path) if row["iteration"] <= resume_at] if resume_at else []
        write_text(self.path, "".join(json.dumps(row) + "\n" for row in kept))

    def append(self, row: Row) -> None:
        """Append a row. It must contain "iteration"."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def write_csv(self) -> Path:
        """Write log.csv from all rows. Returns its path."""
        path = self.path.with_suffix(".csv")
        write_text(path, as_csv(read_log(self.path)))
        return path


def read_log(path: Path) -> list[Row]:
    """The rows of a log.jsonl, in order. A missing file gives no rows.

    An incomplete last line is ignored, so a log can be read while it is written. Raises TrainingLogError, which names
    the line, for any other line that is not a row.
    """
    if not path.is_file():
        return []
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise TrainingLogError(f"{path}: expected the log of a training of at most {MAX_BYTES} bytes, got {size} bytes")
    lines = path.read_bytes().split(b"\n")[:-1]
    return [_row(line, f"{path}:{number}") for number, line in enumerate(lines, start=1) if line]


def _row(line: bytes, where: str) -> Row:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise TrainingLogError(f"{where}: expected a row of a training log as JSON, got: {error}") from error
    if not isinstance(row, dict) or type(row.get("iteration")) is not int or not 0 <= row["iteration"] < 1 << 53:
        raise TrainingLogError(f"{where}: expected a row with an iteration, got {line[:80].decode(errors='replace')!r}")
    return row


def as_csv(rows: Iterable[Row]) -> str:
    """Rows as CSV with a column for each key, in order of first appearance. No rows give an empty string."""
    rows = list(rows)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=columns, lineterminator="\n")
    if columns:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


class SmoothedLoss:
    """The mean of the last `window` losses, or of all losses if they are fewer (solver.cpp, UpdateSmoothedLoss)."""

    def __init__(self, window: int) -> None:
        self._losses: deque[float] = deque(maxlen=window)

    def add(self, loss: float) -> None:
        """Add the loss of an iteration."""
        self._losses.append(loss)

    @property
    def mean(self) -> float:
        """The smoothed loss. Needs at least one loss."""
        return sum(self._losses) / len(self._losses)

    def state(self) -> list[float]:
        """The losses in the window, oldest first. Unlike Caffe, a resumed training keeps them."""
        return list(self._losses)

    def load(self, losses: Sequence[float]) -> None:
        """Load the losses from a snapshot."""
        self._losses.extend(losses)
