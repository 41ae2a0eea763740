"""`detpipe eval`: compare detections, from detpipe or another program, with objects -> metrics.json, report.html."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from detpipe.classify.classifier_folder import DESCRIPTION, check_classes
from detpipe.classify.kinds import load_region_spec
from detpipe.commands.stage_settings import Evaluate
from detpipe.datasets.coco_results import read_detections
from detpipe.datasets.source import Split
from detpipe.metrics.evaluate import Metrics, evaluate
from detpipe.report.run.page import ReportData, write_report
from detpipe.runs.run_folder import RunFolder
from detpipe.solver.training_log import read_log
from detpipe.storage.atomic import write_json
from detpipe.storage.manifest import ArtefactError, Manifest, manifest_path, read_manifest
from detpipe.structures import Dataset, Detections, GroundTruth, ImageId

logger = logging.getLogger(__name__)

COCO_LIMIT = 100
"""Detections per image that COCO counts: the limit of a detector of which no other is known."""


def run(config: Evaluate) -> None:
    """Compute VOC and COCO metrics of the detections on the test split, and write the report page."""
    begun = time.perf_counter()
    dataset = measurable(config.data_source.load(Split.test))
    file = Path(config.detections) if config.detections is not None else own_detections(config.folder, dataset)
    detections = read_detections(file, dataset)
    stages = manifests(config.folder) if config.detections is None else {}
    limit = stages["detect"].settings["detect"]["max_detections"] if stages else COCO_LIMIT
    metrics = evaluate(dataset, detections, max_dets=limit)
    seconds = {stage: manifest.seconds for stage, manifest in stages.items()}
    seconds["eval"] = round(time.perf_counter() - begun, 3)
    write_json(config.folder.metrics, metrics.to_json(seconds))
    write_report(config.folder.report, report_data(config, dataset, detections, metrics, stages, seconds))
    logger.info("\n%s", metrics.to_text())
    logger.info("eval: VOC10 mAP@0.5 %.3f -> %s, %s", metrics.voc10.map, config.folder.metrics, config.folder.report)


def measurable(dataset: Dataset) -> Dataset:
    """Return the data set; one without annotations gets images without objects, so that its metrics are null."""
    if dataset.ground_truth is not None:
        return dataset
    logger.warning("%s: has no annotations to evaluate against; the metrics are null", dataset.name)
    nothing = {record.image_id: GroundTruth.from_boxes([], []) for record in dataset.records}
    return replace(dataset, ground_truth=nothing)


def own_detections(folder: RunFolder, dataset: Dataset) -> Path:
    """Return the path of the run folder's detections of its data set.

    Raises ArtefactError if they are missing or of a `source`, ClassifierError if the classifier has other classes than
    the data set, or another order of classes: the file has the classifier's labels.
    """
    manifest = read_manifest(folder.detections)
    if manifest.settings.get("source") is not None:
        raise ArtefactError(
            f"{folder.detections}: expected detections of the data set, got those of {manifest.settings['source']}; "
            "run `detpipe detect dataset=...` again, or give detections=FILE"
        )
    if (folder.classifier / DESCRIPTION).is_file():
        check_classes(load_region_spec(folder.classifier), dataset.classes, dataset.name)
    return folder.detections


def manifests(folder: RunFolder) -> dict[str, Manifest]:
    """Return the manifests of the complete outputs in the run folder by stage, in the order of the pipeline."""
    stores = [folder.features(split) for split in Split]
    # The multibox/ of head=multibox_fast_rcnn has no manifest of its own.
    multibox = [folder.multibox] if manifest_path(folder.multibox).is_file() else []
    before_head = RunFolder(folder.fine_tuned)
    paths = (
        *(*multibox, folder.proposals, before_head.crops, before_head.classifier),
        *(folder.crops, *stores, folder.classifier, folder.detections),
    )
    made: dict[str, Manifest] = {}
    for path in paths:
        manifest = finished(path)
        if manifest is None:
            continue
        if path == before_head.classifier:
            manifest = replace(manifest, stage="fine-tune")
        before = made.get(manifest.stage)  # the seconds of a stage with one output per split are added
        seconds = manifest.seconds + (before.seconds if before is not None else 0.0)
        made[manifest.stage] = replace(manifest, seconds=seconds)
    return made


def finished(path: Path) -> Manifest | None:
    """Return the manifest of an output; None if it is missing or unfinished, since the page works without it."""
    try:
        return read_manifest(path) if path.exists() else None
    except ArtefactError as error:
        logger.warning("not on the page: %s", error)
        return None


def report_data(
    config: Evaluate,
    dataset: Dataset,
    detections: Mapping[ImageId, Detections],
    metrics: Metrics,
    made: Mapping[str, Manifest],
    seconds: Mapping[str, float],
) -> ReportData:
    """Return the content of the page: the evaluation, and for the run's own detections also the stages before it."""
    own = config.detections is None
    return ReportData(
        title="detpipe",
        dataset=dataset,
        detections=detections,
        metrics=metrics,
        recall=_json(config.folder.recall) if own else None,
        log_rows=read_log(config.folder.classifier / "log.jsonl") if own else (),
        proposer_rows=read_log(config.folder.multibox / "log.jsonl") if own else (),
        settings={stage: manifest.settings for stage, manifest in made.items()},
        seconds=seconds,
        check_counts=(_json(config.folder.check) or {}).get("counts"),
    )


def _json(path: Path) -> Any:
    """Return the content of a JSON file; None if it is missing or invalid, since the page works without it."""
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    except ValueError as error:
        logger.warning("not on the page: %s: expected JSON, got: %s", path, error)
        return None
