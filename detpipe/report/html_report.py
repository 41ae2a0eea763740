"""The report of a run: one HTML file that needs no network and runs no script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from detpipe.metrics.evaluate import Metrics
from detpipe.metrics.operating_point import best_f1
from detpipe.report import gallery, sections
from detpipe.report.page import page
from detpipe.storage.atomic import write_text
from detpipe.structures import Dataset, Detections, ImageId

MAX_IMAGES, MAX_CROPS = 24, 12


@dataclass(frozen=True, kw_only=True, eq=False)
class ReportData:
    """What a report can show; what is missing is left out with a sentence.

    detections: from image id, all of them. metrics: None where there is no ground truth. recall: recall.json's content.
    log_rows: of the training log, proposer_rows: of that of a network that proposes. settings: nested, plain values.
    seconds: of each stage, in order. check_counts: of check.json, None where the data wasn't checked. min_score: of the
    detections that are drawn; None takes the score where precision and recall balance best. max_images: in the grid.
    """

    title: str
    dataset: Dataset
    detections: Mapping[ImageId, Detections]
    metrics: Metrics | None = None
    recall: Mapping[str, Mapping[str, float | None]] | None = None
    log_rows: Sequence[Mapping[str, Any]] = ()
    proposer_rows: Sequence[Mapping[str, Any]] = ()
    settings: Mapping[str, object] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    check_counts: Mapping[str, int] | None = None
    min_score: float | None = None
    max_images: int = MAX_IMAGES


def write_report(path: Path, data: ReportData) -> None:
    """Write the page to `path`, whole or not at all; below 8 MB with the default max_images.

    Pictures are read from the records' paths; one that can't be read any more is named, logged and left out.
    """
    write_text(path, render(data))


def render(data: ReportData) -> str:
    """The page as HTML."""
    dataset, seconds = data.dataset, data.seconds
    ground_truth = dataset.ground_truth
    point = None if ground_truth is None else best_f1(ground_truth, data.detections)
    min_score, how = 0.5, "a usual bound"
    if data.min_score is not None:
        min_score, how = data.min_score, "as set"
    elif point is not None:
        min_score, how = point.score, "where precision and recall balance best"
    parts = {
        "Images": gallery.images(dataset, data.detections, min_score=min_score, most=data.max_images, chosen_how=how),
        "Average precision": sections.classes(dataset, data.metrics),
        "Precision and recall": sections.precision_recall(data.metrics),
        "Worst misses": gallery.misses(dataset, data.detections, min_score=min_score, most=MAX_CROPS),
        "Proposals": sections.proposals(data.recall),
        "Training": sections.training(data.log_rows, data.proposer_rows),
        "Time": sections.time(seconds),
        "Data": sections.check(dataset, data.check_counts),
        "Settings": sections.settings(data.settings),
    }
    head = sections.headline(dataset, data.metrics, point, seconds)
    return page(data.title, dataset.name, head, parts)
