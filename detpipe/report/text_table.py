"""Plain-text tables and number formats for the terminal."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence


def text_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table as lines with columns two spaces apart; the first column is aligned left, the others right."""
    lines = [list(head), *map(list, rows)]
    widths = [max(columns_of(line[column]) for line in lines) for column in range(len(head))]

    def padded(cell: str, column: int) -> str:
        space = " " * (widths[column] - columns_of(cell))
        return cell + space if column == 0 else space + cell

    return "\n".join("  ".join(padded(cell, i) for i, cell in enumerate(line)).rstrip() for line in lines)


def columns_of(text: str) -> int:
    """The columns of a terminal that the text takes: a Chinese, Japanese or Korean character takes two."""
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(unicodedata.combining(c) > 0 for c in text)


def shortened(rows: Sequence[Sequence[str]], most: int) -> list[Sequence[str]]:
    """The rows; if there are more than `most`, the first and last ones with a row of dots between, `most` in total."""
    if len(rows) <= most or not rows:
        return list(rows)
    head = (most - 1) // 2
    return [*rows[:head], ["…"] * len(rows[0]), *rows[len(rows) - (most - 1 - head) :]]


def number(value: float | None, digits: int = 3) -> str:
    """A number with fixed digits, 0.123, or a dash for None and NaN. What rounds to 0 has no sign."""
    return "–" if value is None or math.isnan(value) else f"{value:z.{digits}f}"


def significant(value: float | None, digits: int = 3) -> str:
    """A number with `digits` significant digits, 0.0123 or 1.2e-08, or a dash for None and NaN."""
    return "–" if value is None or math.isnan(value) else f"{value:.{digits}g}"


def as_bytes(size: float) -> str:
    """A size in bytes as text, 12.3 MB, with units in steps of 1000."""
    for unit in ("B", "kB", "MB"):
        if abs(size) < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.2f} GB"


def as_count(number: float) -> str:
    """A large number with three significant digits: 4.65 M."""
    for unit in ("", " k", " M"):
        if abs(number) < 1000:
            return f"{number:.3g}{unit}"
        number /= 1000
    return f"{number:.3g} G"
