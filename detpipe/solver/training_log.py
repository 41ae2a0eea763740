"""The log of a training: a JSON object a line, and the same rows as CSV for a spreadsheet."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from detpipe.storage.atomic import write_text

Row = dict[str, Any]


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
    """The rows of a log.jsonl in order; no file gives none, and a last line without its end is left out."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    return [json.loads(line) for line in lines if line]


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
