"""Pictures of a database of images: its labels, some of its records, its mean."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import cv2
import matplotlib
import numpy as np
from matplotlib.figure import Figure

from detpipe.report.drawing import captioned, class_colour, contact_sheet
from detpipe.report.figure_style import ACCENT, STYLE, short_name
from detpipe.structures import Float32Array, Image

MAX_NAMED = 40
"""With more labels than this, names beside the bars could not be read."""
CELL, MOST_COLUMNS = 128, 12
"""Pixels of a picture in the contact sheet, and pictures in a row."""


def label_figure(counts: Mapping[int, int], names: Mapping[int, str]) -> Figure:
    """A bar of records for each label in label order, with its name; of more than MAX_NAMED labels without names.

    counts: by label. names: of each of these labels. No labels give a bare figure.
    """
    values = list(counts.values())
    with matplotlib.rc_context(STYLE):
        if len(counts) <= MAX_NAMED:
            figure = Figure(figsize=(7, 0.7 + 0.3 * max(len(counts), 1)), layout="constrained")
            axes = figure.add_subplot()
            bars = axes.barh(range(len(values)), values, height=0.7, color=ACCENT)
            axes.bar_label(bars, [f"{value:,}" for value in values], padding=3, fontsize=8)
            axes.set_yticks(range(len(values)), [short_name(names[label], 24) for label in counts], fontsize=8)
            axes.invert_yaxis()
            axes.margins(x=0.1)
            axes.grid(visible=False, axis="y")
            axes.set(xlabel="records")
            return figure
        figure = Figure(figsize=(7, 3), layout="constrained")
        axes = figure.add_subplot()
        axes.bar(range(len(values)), values, width=1.0, color=ACCENT)
        axes.margins(x=0)
        axes.grid(visible=False, axis="x")
        axes.set(xlabel=f"{len(values):,} labels in their order", ylabel="records")
        return figure


def sheet(images: Sequence[Image], captions: Sequence[str], labels: Sequence[int]) -> Image:
    """The images in rows, each with its caption above it on its label's colour. Raises ValueError for no images."""
    if not images:
        raise ValueError("sheet: wanted images, got none")
    pairs = zip(images, captions, labels, strict=True)
    cells = [captioned(image, text, class_colour(label + 1), CELL) for image, text, label in pairs]
    columns = min(len(cells), MOST_COLUMNS, math.ceil(math.sqrt(1.5 * len(cells))))
    return contact_sheet(cells, columns, (cells[0].shape[0], cells[0].shape[1]))


def mean_image(mean: Float32Array) -> Image:
    """A mean (C, H, W), 0..255, BGR or grey, as a picture (H, W, 3) RGB; small ones are enlarged to 128 pixels."""
    planes = mean[::-1] if len(mean) == 3 else np.repeat(mean, 3, axis=0)
    image = np.ascontiguousarray(planes.transpose(1, 2, 0)).round().astype(np.uint8)
    times = max(1, CELL // max(image.shape[:2]))
    size = (image.shape[1] * times, image.shape[0] * times)
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_NEAREST), dtype=np.uint8)
