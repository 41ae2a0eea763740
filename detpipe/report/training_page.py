"""The progress and results of a training, finished or not, as text and as a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from detpipe.progress import as_time
from detpipe.report import page
from detpipe.report.run.sections import setting_groups
from detpipe.report.text_table import as_bytes, significant, text_table
from detpipe.report.training_figure import Rows, has_curves, single_values, training_figure
from detpipe.solver.training_summary import courses
from detpipe.storage.atomic import write_text

HEAD = ("", "first", "last", "best", "at iteration")
RATES = ("examples_per_second", "waiting")
"""Keys of the log that are reported separately from the table."""


@dataclass(frozen=True, kw_only=True)
class SnapshotFile:
    """A snapshot of a training."""

    name: str
    size: int


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingPage:
    """The content of the page. None means unknown.

    subtitle: the folder, and what is trained. rows: of the log. complete: whether the training has finished. wanted:
    total number of iterations. batch: examples per iteration. seconds: run time of all finished or stopped processes.
    age: seconds since the log was written. settings: nested, plain values.
    """

    subtitle: str
    rows: Rows
    complete: bool | None = None
    wanted: int | None = None
    batch: int | None = None
    seconds: float | None = None
    age: float | None = None
    snapshots: Sequence[SnapshotFile] = ()
    settings: Mapping[str, object] = field(default_factory=dict)

    @property
    def iterations(self) -> int:
        """The iteration of the last row; 0 without rows."""
        return int(self.rows[-1]["iteration"]) if self.rows else 0

    @property
    def iterations_per_second(self) -> float | None:
        """From the last row with a rate."""
        rate = self.last("examples_per_second")
        return None if rate is None or not self.batch else rate / self.batch

    def last(self, name: str) -> float | None:
        """The last logged value of a key."""
        return next((one.last.value for one in courses(self.rows) if one.name == name), None)

    def facts(self) -> dict[str, str]:
        """The summary lines by name."""
        waiting, rate, speed = self.last("waiting"), self.last("examples_per_second"), self.iterations_per_second
        facts = {
            "state": self._state(),
            "speed": f"{significant(speed)} iterations/s, {significant(rate)} examples/s",
            "waiting": "–" if waiting is None else f"{waiting:.2%} of the time, for data",
        }
        if self.seconds:
            facts["time"] = as_time(self.seconds)
        facts["snapshots"] = ", ".join(f"{one.name} ({as_bytes(one.size)})" for one in self.snapshots) or "none"
        return facts

    def _state(self) -> str:
        of = f" of {self.wanted}" if self.wanted is not None else ""
        if self.complete:
            return f"complete, {self.iterations}{of} iterations"
        since = f", the log was last written {as_time(self.age)} ago" if self.age is not None else ""
        speed, left = self.iterations_per_second, (self.wanted or 0) - self.iterations
        eta = f", {as_time(left / speed)} left at this speed" if speed and left > 0 else ""
        return f"not complete, {self.iterations}{of} iterations logged{eta}{since}"


def course_rows(rows: Rows) -> list[list[str]]:
    """A table row for each key of the log: name, first, last and best value, and the iteration of the best."""
    return [
        [
            one.name,
            significant(one.first.value, 4),
            significant(one.last.value, 4),
            significant(one.best.value, 4) if one.best else "",
            str(one.best.iteration) if one.best else "",
        ]
        for one in courses(rows)
        if one.name not in RATES
    ]


def training_text(data: TrainingPage) -> str:
    """The summary and the table as plain text."""
    lines = [data.subtitle, *(f"  {name:<9} {text}" for name, text in data.facts().items())]
    rows = course_rows(data.rows)
    return "\n".join(lines) + (f"\n\n{text_table(HEAD, rows)}" if rows else "")


def write_training_page(path: Path, data: TrainingPage) -> None:
    """Write the page to `path` atomically."""
    write_text(path, render(data))


def render(data: TrainingPage) -> str:
    """The page as HTML. Without log rows it says so."""
    return page.render(
        "training.html",
        data.subtitle,
        facts=data.facts().items(),
        figure=training_figure(data.rows) if has_curves(data.rows) else None,
        single=single_values(data.rows),
        head=HEAD,
        numbers=course_rows(data.rows),
        groups=setting_groups(data.settings),
    )
