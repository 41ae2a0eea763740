"""The sections of the report that are words, tables and figures.

Each gives HTML, or a sentence where it has no data.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from typing import Any

from detpipe.metrics.evaluate import Metrics
from detpipe.metrics.operating_point import OperatingPoint
from detpipe.report import curves
from detpipe.report.drawing import class_colour
from detpipe.report.markup import Markup, escape, number, paragraph, table
from detpipe.structures import Dataset

MAX_BAD_SHOWN = 20


def headline(
    dataset: Dataset, metrics: Metrics | None, point: OperatingPoint | None, seconds: Mapping[str, float]
) -> str:
    """The numbers that one looks for first."""
    cards: list[tuple[str, str]] = []
    if metrics is not None:
        coco = metrics.coco.numbers
        cards += [
            ("mAP at IoU 0.5 (VOC 2010)", number(metrics.voc10.map)),
            ("mAP, 11 points (VOC 2007)", number(metrics.voc07.map)),
            ("COCO AP, IoU 0.5 to 0.95", number(coco["AP"])),
        ]
    cards.append(("images", f"{len(dataset):,}"))
    if dataset.ground_truth is not None:
        objects = sum(len(dataset.ground_truth[record.image_id]) for record in dataset.records)
        cards.append((f"objects of {_count(len(dataset.classes), 'class', 'classes')}", f"{objects:,}"))
    if seconds:
        cards.append(("all stages", curves.as_time(sum(seconds.values()))))
    body = "".join(f"<div><b>{escape(value)}</b><span>{escape(name)}</span></div>" for name, value in cards)
    text = f'<div class="cards">{body}</div>'
    if metrics is None:
        return text + paragraph("The images have no annotations to measure against.", "none")
    if point is None:
        return text + paragraph("No detection is right: no object was found at any score.", "none")
    return text + paragraph(
        f"With a score of at least {point.score:.2f}, where precision and recall balance best, "
        f"{point.recall:.0%} of the objects are found and {point.precision:.0%} of the detections are right."
    )


def classes(dataset: Dataset, metrics: Metrics | None) -> str:
    """AP of each class, the best first, and COCO's numbers."""
    if metrics is None:
        return _none("There is nothing to measure against.")
    labels = {name: label for label, name in enumerate(dataset.classes, start=1)}
    area = metrics.voc10.per_class
    names = sorted(area, key=lambda name: (area[name] != area[name], -area[name], name))
    rows = [
        (
            _class(name, labels[name]),
            f"{metrics.voc10.objects[name]:,}",
            _bar(area[name]),
            number(metrics.voc07.per_class[name]),
            number(metrics.coco.per_class[name]),
        )
        for name in names
    ]
    by_class = table(["class", "objects", "VOC 2010", "VOC 2007", "COCO"], rows, kind="long")
    note = "Objects that are difficult or a crowd aren't counted; a dash stands where a class has no objects."
    coco = metrics.coco.numbers
    numbers = table(list(coco), [[number(value) for value in coco.values()]], kind="numbers")
    return f"{by_class}{paragraph(note, 'note')}<h3>COCO's twelve numbers</h3>{numbers}"


def precision_recall(metrics: Metrics | None) -> str:
    """A curve of each class."""
    if metrics is None or not any(metrics.voc10.objects.values()):
        return _none("There are no annotated objects, so there is no precision or recall.")
    figure = curves.precision_recall_figure(metrics.voc10.curves, metrics.voc10.per_class)
    note = "At IoU 0.5; the area under a line is the class's AP (VOC 2010)."
    return _figure(curves.to_svg(figure, "precision-recall")) + paragraph(note, "note")


def proposals(recall: Mapping[str, Mapping[str, float | None]] | None) -> str:
    """How many of the objects the proposals reach: no detector finds more."""
    if not recall:
        return _none("No proposals of this data set were measured.")
    keys = ("recall@0.5", "recall@0.7", "abo", "mabo", "ar")
    head = ["proposals an image", "recall at IoU 0.5", "recall at IoU 0.7", "ABO", "MABO", "average recall"]
    rows = [[f"{int(n):,}", *(number(recall[n].get(key)) for key in keys)] for n in sorted(recall, key=int)]
    note = "Recall at IoU 0.5 bounds the recall of the detector. ABO: mean IoU of each object's best proposal."
    return _figure(curves.to_svg(curves.recall_figure(recall), "recall")) + table(head, rows) + paragraph(note, "note")


def training(rows: Sequence[Mapping[str, Any]], proposer_rows: Sequence[Mapping[str, Any]] = ()) -> str:
    """Loss and validation accuracy over iterations, and of a network that was trained to propose its recall."""
    logs = {"The network that proposes": ("proposer-loss", proposer_rows), "The classifier": ("loss", rows)}
    figures = {
        title: _figure(curves.to_svg(curves.loss_figure(own), name))
        for title, (name, own) in logs.items()
        if any("loss" in row for row in own)
    }
    if not figures:
        return _none("No training log.")
    if not proposer_rows:
        return "".join(figures.values())
    return "".join(f"<h3>{title}</h3>{figure}" for title, figure in figures.items())


def time(seconds: Mapping[str, float]) -> str:
    """A bar a stage."""
    if not seconds:
        return _none("No stage was timed.")
    total = paragraph(f"{curves.as_time(sum(seconds.values()))} in all.", "note")
    return _figure(curves.to_svg(curves.seconds_figure(seconds), "seconds")) + total


def check(dataset: Dataset, counts: Mapping[str, int] | None) -> str:
    """What the check of the data found, and which images were left out."""
    if counts is None:
        found = _none("The data was not checked.")
    elif not counts:
        found = paragraph("The check of the data found nothing.")
    else:
        found = table(["finding", "number"], [(kind, f"{n:,}") for kind, n in counts.items()])
    if not dataset.bad:
        return found
    lines = "".join(f"<li>{escape(reason)}</li>" for reason in dataset.bad[:MAX_BAD_SHOWN])
    more = len(dataset.bad) - MAX_BAD_SHOWN
    rest = f"<li>and {more:,} more</li>" if more > 0 else ""
    title = f"{_count(len(dataset.bad), 'image', 'images')} left out"
    return f"{found}<details><summary>{title}</summary><ul>{lines}{rest}</ul></details>"


def settings(values: Mapping[str, object]) -> str:
    """Every setting by its dotted name, a fold for each group."""
    if not values:
        return _none("No settings were recorded.")
    groups: dict[str, list[tuple[str, str]]] = {}
    for name, value in _flat(values):
        group = name.split(".", 1)[0] if "." in name else "general"
        groups.setdefault(group, []).append((name, value))
    return "".join(
        f"<details><summary>{escape(group)} <small>{len(rows)}</small></summary>"
        f"{table(['setting', 'value'], rows, kind='settings')}</details>"
        for group, rows in groups.items()
    )


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


def _class(name: str, label: int) -> Markup:
    red, green, blue = class_colour(label)
    return Markup(f'<i class="chip" style="background:rgb({red},{green},{blue})"></i>{escape(name)}')


def _bar(value: float) -> Markup:
    filled = 0.0 if value != value else 100 * value
    return Markup(f'<span class="bar"><i style="width:{filled:.1f}%"></i></span>{number(value)}')


def _figure(svg: str) -> str:
    return f'<div class="plot">{svg}</div>'


def _none(sentence: str) -> str:
    return paragraph(sentence, "none")


def _count(n: int, one: str, many: str) -> str:
    return f"{n:,} {one if n == 1 else many}"
