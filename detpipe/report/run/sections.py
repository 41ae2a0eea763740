"""The sections of a run's report: table rows and figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from matplotlib.figure import Figure

from detpipe.metrics.evaluate import Metrics
from detpipe.progress import as_time
from detpipe.report.figure_style import hex_colour
from detpipe.report.page import Cell
from detpipe.report.text_table import number
from detpipe.report.training_figure import has_curves, single_values, training_figure
from detpipe.structures import Dataset


def headline(dataset: Dataset, metrics: Metrics | None, seconds: Mapping[str, float]) -> list[tuple[str, str]]:
    """The most important numbers, with their names."""
    cards: list[tuple[str, str]] = []
    if metrics is not None:
        cards += [
            (number(metrics.voc10.map), "mAP at IoU 0.5 (VOC 2010)"),
            (number(metrics.voc07.map), "mAP, 11 points (VOC 2007)"),
            (number(metrics.coco.numbers["AP"]), "COCO AP, IoU 0.5 to 0.95"),
        ]
    cards.append((f"{len(dataset):,}", "images"))
    truth = dataset.measured_truth
    if truth is not None:
        objects = sum(map(len, truth.values()))
        n_classes = len(dataset.classes)
        cards.append((f"{objects:,}", f"objects of {n_classes:,} {'class' if n_classes == 1 else 'classes'}"))
    if seconds:
        cards.append((as_time(sum(seconds.values())), "all stages"))
    return cards


def class_rows(dataset: Dataset, metrics: Metrics) -> list[tuple[str | Cell, ...]]:
    """The number of objects and average precisions of each class, the best first."""
    labels = {name: label for label, name in enumerate(dataset.classes, start=1)}
    area = metrics.voc10.per_class
    return [
        (
            Cell(name, colour=hex_colour(labels[name])),
            f"{metrics.voc10.objects[name]:,}",
            Cell(number(area[name]), bar=0.0 if area[name] != area[name] else area[name]),
            number(metrics.voc07.per_class[name]),
            number(metrics.coco.per_class[name]),
        )
        for name in sorted(area, key=lambda name: (area[name] != area[name], -area[name], name))
    ]


def proposal_rows(recall: Mapping[str, Mapping[str, float | None]]) -> list[list[str]]:
    """The measures at each number of proposals, in increasing order. recall: the content of recall.json."""
    keys = ("recall@0.5", "recall@0.7", "abo", "mabo", "ar")
    return [[f"{int(n):,}", *(number(recall[n].get(key)) for key in keys)] for n in sorted(recall, key=int)]


@dataclass(frozen=True, eq=False)
class Training:
    """One training log of the report: a title, a figure of the values over iterations, and the values logged once."""

    title: str
    name: str
    figure: Figure | None
    single: list[str]


def trainings(rows: Sequence[Mapping[str, Any]], proposer_rows: Sequence[Mapping[str, Any]]) -> list[Training]:
    """The two training logs, without those that have no loss."""
    logs = (("The proposal network", "proposer-loss", proposer_rows), ("The classifier", "loss", rows))
    return [
        Training(
            title,
            name,
            training_figure(own, progress=False) if has_curves(own, progress=False) else None,
            single_values(own),
        )
        for title, name, own in logs
        if any("loss" in row for row in own)
    ]


def setting_groups(values: Mapping[str, object]) -> dict[str, list[tuple[str, str]]]:
    """All settings by dotted name, grouped by its first part."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for name, value in _flat(values):
        group = name.split(".", 1)[0] if "." in name else "general"
        groups.setdefault(group, []).append((name, value))
    return groups


def _flat(values: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{name}.")
        else:
            yield name, _value(value)


def _value(value: object) -> str:
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, list | tuple):
        return ", ".join(map(_value, value)) or "none"
    return "none" if value is None or value == {} else str(value)
