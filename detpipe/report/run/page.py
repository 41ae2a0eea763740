"""The report of a run: one HTML file without network requests. Without scripts it shows a selection of the images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from detpipe.classify.detect import NO_DETECTIONS
from detpipe.diagnosis.diagnose import Errors, count_objects, find_errors
from detpipe.diagnosis.oracles import Scene
from detpipe.diagnosis.result import Advice
from detpipe.metrics.evaluate import Metrics
from detpipe.metrics.operating_point import best_f1
from detpipe.progress import as_time
from detpipe.report import curves, page
from detpipe.report.fonts import stand_ins
from detpipe.report.run import gallery, sections
from detpipe.report.run.explorer import Explored, explorer_data
from detpipe.report.run.levels import LEVEL_HEAD, level_rows
from detpipe.report.run.reasons import Facts, reasons
from detpipe.storage.atomic import write_text
from detpipe.structures import Dataset, Detections, Float32Array, ImageId
from detpipe.taxonomy.level_accuracy import LevelAccuracy

SCRIPTS = ("dom.js", "boxes.js", "report.js")
MAX_IMAGES, MAX_CROPS, MAX_BAD_SHOWN = 24, 12, 20
MAX_BYTES, REST_BYTES = 8_000_000, 600_000
"""Of the page, and of what is in it beside pictures and data: text, style, scripts and figures."""
SHOWN_AT_ONCE = 6
"""Number of images shown at first; the others are collapsed, so that the numbers below are near."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ReportData:
    """The content of the report. A sentence replaces each missing part.

    detections: all detections by image id. metrics: None without ground truth. recall: the content of recall.json.
    log_rows: of the classifier's training log. proposer_rows: of the training log of a proposal network. settings:
    nested, plain values. seconds: of each stage, in order. check_counts: of check.json, None if the data wasn't
    checked. min_score: of the drawn detections; None uses the score with the best F1. errors: the causes and
    types at this score; None finds those that the detections alone show. facts: of the missed objects among them, what
    happened at each stage; left out if they need too much room. advice: the next actions, the best first. blame_page:
    address of the page of `detpipe blame`, or "". run_dir: for the command that makes it. proposals: (P, 4) boxes by
    image id, the best first. levels: the accuracy at each level of a class tree. max_images: that are shown without
    scripts. max_bytes: of the page; pictures get smaller for it, and if they are very many, some are left out.
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
    errors: Errors | None = None
    facts: Facts = field(default_factory=dict)
    advice: Sequence[Advice] = ()
    blame_page: str = ""
    run_dir: str = "DIR"
    proposals: Mapping[ImageId, Float32Array] = field(default_factory=dict)
    levels: LevelAccuracy | None = None
    max_images: int = MAX_IMAGES
    max_bytes: int = MAX_BYTES


def write_report(path: Path, data: ReportData) -> None:
    """Write the page to `path` atomically. It is below `max_bytes` with the default max_images.

    Images are read from the records' paths. Unreadable ones are listed, logged and left out.
    """
    write_text(path, render(data))


def render(data: ReportData) -> str:
    """The page as HTML."""
    dataset, metrics = data.dataset, data.metrics
    truth = dataset.measured_truth
    point = None if truth is None else best_f1(truth, data.detections)
    min_score, how = 0.5, "the default"
    if data.min_score is not None:
        min_score, how = data.min_score, "as set"
    elif point is not None:
        min_score, how = point.score, "the best F1"
    images = gallery.images(dataset, data.detections, min_score=min_score, most=data.max_images)
    found = {record.image_id: data.detections.get(record.image_id, NO_DETECTIONS) for record in dataset.records}
    errors, shown_errors, diagnosis = data.errors, None, None
    if truth is not None:
        if errors is None:
            scene = Scene(truth, found)
            errors = find_errors(scene, dataset.classes, threshold=min_score, traces=None, proposals=None)
        shown_errors = gallery.misses(dataset, found, errors, min_score=min_score, most=MAX_CROPS)
        diagnosis = reasons(truth, found, dataset.classes, errors, threshold=min_score, facts=data.facts)
    shown = list(images.pictures)
    if shown_errors is not None:
        shown += [*shown_errors.wrong.pictures, *shown_errors.missed.pictures]
    room = data.max_bytes - REST_BYTES - sum(len(page.jpeg_uri(one.image, one.quality)) for one in shown)
    return page.render(
        "run.html",
        dataset.name,
        scripts=SCRIPTS if len(dataset) else (),
        data=explorer_data(Explored(dataset, found, min_score, how, diagnosis, data.proposals), room=room)
        if len(dataset)
        else None,
        content=data,
        metrics=metrics,
        point=point,
        cards=sections.headline(dataset, metrics, data.seconds),
        images=images,
        min_score=min_score,
        chosen_how=how,
        shown_at_once=SHOWN_AT_ONCE,
        stand_ins=stand_ins(dataset.classes),
        classes=[] if metrics is None else sections.class_rows(dataset, metrics),
        level_head=LEVEL_HEAD,
        level_rows=[] if data.levels is None else level_rows(data.levels),
        precision_recall=None if metrics is None else _precision_recall(metrics),
        misses=shown_errors,
        objects=0 if truth is None else count_objects(truth),
        advice=data.advice[0] if data.advice else None,
        recall=curves.recall_figure(data.recall) if data.recall and len(data.recall) > 1 else None,
        proposals=sections.proposal_rows(data.recall or {}),
        trainings=sections.trainings(data.log_rows, data.proposer_rows),
        seconds=curves.seconds_figure(data.seconds),
        seconds_alt="Time by stage: " + ", ".join(f"{name} {as_time(value)}" for name, value in data.seconds.items()),
        all_seconds=as_time(sum(data.seconds.values())),
        findings=[(kind, f"{n:,}") for kind, n in (data.check_counts or {}).items()],
        max_bad_shown=MAX_BAD_SHOWN,
        without_files=page.without_files(dataset),
        groups=sections.setting_groups(data.settings),
    )


def _precision_recall(metrics: Metrics) -> Figure | None:
    """None if no class has an object."""
    if not any(metrics.voc10.objects.values()):
        return None
    return curves.precision_recall_figure(metrics.voc10.curves, metrics.voc10.per_class)
