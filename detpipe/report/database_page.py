"""What a database of images holds: as text, and as a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from detpipe.classify.database_contents import Fault
from detpipe.report import page
from detpipe.report.database_figures import label_figure
from detpipe.report.page import Cell, Picture
from detpipe.report.text_table import shortened, text_table
from detpipe.storage.atomic import write_text
from detpipe.structures import Image

MOST_LABELS, MOST_FAULTS = 20, 100
"""Lines of labels on the terminal, and of faults on the page."""


@dataclass(frozen=True)
class SampledImage:
    """A record that is shown, small. caption: its label's name. key: as text."""

    label: int
    caption: str
    key: str
    image: Image


@dataclass(frozen=True, kw_only=True, eq=False)
class DatabasePage:
    """What is shown.

    subtitle: the database. facts: lines of a word and a sentence. labels: records by label. names: of those labels.
    faults: some of what is wrong, `fault_count` in all. sample: of records, drawn evenly by class with `seed`.
    mean: a picture; None where sizes differ.
    """

    subtitle: str
    facts: Mapping[str, str]
    labels: Mapping[int, int]
    names: Mapping[int, str]
    faults: Sequence[Fault] = ()
    fault_count: int = 0
    sample: Sequence[SampledImage] = ()
    seed: int = 0
    mean: Image | None = field(default=None)

    def label_rows(self) -> list[list[str]]:
        """Label, name, records and their share, the most frequent first."""
        total = max(sum(self.labels.values()), 1)
        order = sorted(self.labels, key=lambda label: (-self.labels[label], label))
        return [
            [str(label), self.names[label], f"{self.labels[label]:,}", f"{self.labels[label] / total:.2%}"]
            for label in order
        ]


def database_text(data: DatabasePage) -> str:
    """The facts, and records by label, as plain text."""
    lines = [data.subtitle, *(f"  {name:<10} {text}" for name, text in data.facts.items())]
    rows = [[f"{label}  {name}" if name != label else label, *rest] for label, name, *rest in data.label_rows()]
    return "\n".join(lines) + (
        f"\n\n{text_table(['label', 'records', 'share'], shortened(rows, MOST_LABELS))}" if rows else ""
    )


def write_database_page(path: Path, data: DatabasePage) -> None:
    """Write the page to `path`, whole or not at all."""
    write_text(path, render(data))


def render(data: DatabasePage) -> str:
    """The page as HTML; without records it says so."""
    most = max(data.labels.values(), default=1)
    return page.render(
        "database.html",
        data.subtitle,
        data=data,
        faults=[(fault.where, fault.reason) for fault in data.faults[:MOST_FAULTS]],
        sample=[Picture(one.image, f"record {one.key}", one.caption, below=one.key) for one in data.sample],
        figure=label_figure(data.labels, data.names),
        labels=[
            (name if name == label else f"{label} {name}", Cell(count, bar=data.labels[int(label)] / most), share)
            for label, name, count, share in data.label_rows()
        ],
        most_labels=MOST_LABELS,
        mean=[] if data.mean is None else [Picture(data.mean, "the mean picture", text="of all records", quality=95)],
    )
