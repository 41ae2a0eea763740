"""The content of a database of images, as text and as a page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from detpipe.classify.images.contents import Fault
from detpipe.report import page
from detpipe.report.drawing import captioned, class_colour, contact_sheet
from detpipe.report.figure_style import ACCENT, STYLE, WIDTH, short_name
from detpipe.report.page import Cell, Picture
from detpipe.report.text_table import shortened, text_table
from detpipe.resize import Interpolation, resize
from detpipe.storage.atomic import write_text
from detpipe.structures import Float32Array, Image

MOST_LABELS, MOST_FAULTS = 20, 100
"""Maximum rows of labels in the terminal, and of faults on the page."""
MAX_NAMED = 40
"""With more labels than this, names next to the bars are unreadable and left out."""
CELL, MOST_COLUMNS = 128, 12
"""Side of a picture in the contact sheet in pixels, and pictures per row."""


@dataclass(frozen=True)
class SampledImage:
    """A record of the contact sheet. caption: the name of its label. key: as text."""

    label: int
    caption: str
    key: str
    image: Image


@dataclass(frozen=True, kw_only=True, eq=False)
class DatabasePage:
    """The content of the page.

    subtitle: the database. facts: text by name. labels: number of records by label. names: of these labels. faults: the
    first of `fault_count` faults. sample: records drawn evenly by class with `seed`. mean: the mean image; None if the
    sizes differ.
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
        """Label, name, number of records and their share, the most frequent label first."""
        total = max(sum(self.labels.values()), 1)
        order = sorted(self.labels, key=lambda label: (-self.labels[label], label))
        return [
            [str(label), self.names[label], f"{self.labels[label]:,}", f"{self.labels[label] / total:.2%}"]
            for label in order
        ]


def database_text(data: DatabasePage) -> str:
    """The facts and the number of records by label, as plain text."""
    lines = [data.subtitle, *(f"  {name:<10} {text}" for name, text in data.facts.items())]
    rows = [[f"{label}  {name}" if name != label else label, *rest] for label, name, *rest in data.label_rows()]
    return "\n".join(lines) + (
        f"\n\n{text_table(['label', 'records', 'share'], shortened(rows, MOST_LABELS))}" if rows else ""
    )


def write_database_page(path: Path, data: DatabasePage) -> None:
    """Write the page to `path` atomically."""
    write_text(path, render(data))


def render(data: DatabasePage) -> str:
    """The page as HTML; without records it says so."""
    most = max(data.labels.values(), default=1)
    return page.render(
        "database.html",
        data.subtitle,
        content=data,
        faults=[(fault.where, fault.reason) for fault in data.faults[:MOST_FAULTS]],
        sample=[Picture(one.image, f"record {one.key}", one.caption, below=one.key) for one in data.sample],
        figure=label_figure(data.labels, data.names),
        labels=[
            (name if name == label else f"{label} {name}", Cell(count, bar=data.labels[int(label)] / most), share)
            for label, name, count, share in data.label_rows()
        ],
        most_labels=MOST_LABELS,
        mean=[] if data.mean is None else [Picture(data.mean, "the mean image", text="of all records", quality=95)],
    )


def label_figure(counts: Mapping[int, int], names: Mapping[int, str]) -> Figure:
    """A bar chart of the records per label, in label order, with names if there are at most MAX_NAMED labels.

    counts: by label. names: of these labels. Without labels the figure is empty.
    """
    values = list(counts.values())
    with matplotlib.rc_context(STYLE):
        if len(counts) <= MAX_NAMED:
            figure = Figure(figsize=(WIDTH, 0.7 + 0.3 * max(len(counts), 1)), layout="constrained")
            axes = figure.add_subplot()
            bars = axes.barh(range(len(values)), values, height=0.7, color=ACCENT)
            axes.bar_label(bars, [f"{value:,}" for value in values], padding=3, fontsize=8)
            axes.set_yticks(range(len(values)), [short_name(names[label], 24) for label in counts], fontsize=8)
            axes.invert_yaxis()
            axes.margins(x=0.1)
            axes.grid(visible=False, axis="y")
            axes.set(xlabel="records")
            return figure
        figure = Figure(figsize=(WIDTH, 3), layout="constrained")
        axes = figure.add_subplot()
        axes.bar(range(len(values)), values, width=1.0, color=ACCENT)
        axes.margins(x=0)
        axes.grid(visible=False, axis="x")
        axes.set(xlabel=f"{len(values):,} labels in label order", ylabel="records")
        return figure


def sheet(images: Sequence[Image], captions: Sequence[str], labels: Sequence[int]) -> Image:
    """A contact sheet: images with their captions, coloured by label. Raises ValueError without images."""
    if not images:
        raise ValueError("sheet: expected images, got none")
    pairs = zip(images, captions, labels, strict=True)
    cells = [captioned(image, text, class_colour(label + 1), CELL) for image, text, label in pairs]
    columns = min(len(cells), MOST_COLUMNS, math.ceil(math.sqrt(1.5 * len(cells))))
    return contact_sheet(cells, columns, (cells[0].shape[0], cells[0].shape[1]))


def mean_image(mean: Float32Array) -> Image:
    """A mean (C, H, W) in 0..255, BGR or grey, as an RGB image (H, W, 3); small ones are enlarged to 128 pixels."""
    planes = mean[::-1] if len(mean) == 3 else np.repeat(mean, 3, axis=0)
    image = np.ascontiguousarray(planes.transpose(1, 2, 0)).round().astype(np.uint8)
    times = max(1, CELL // max(image.shape[:2]))
    return resize(image, (image.shape[0] * times, image.shape[1] * times), Interpolation.nearest)
