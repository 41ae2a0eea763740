"""`detpipe eval`: compare detections, from detpipe or another program, with objects -> metrics.json, report.html."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from detpipe.commands.stage_settings import Evaluate
from detpipe.console import RESULT
from detpipe.datasets.coco_results import read_detections
from detpipe.datasets.source import Split
from detpipe.diagnosis.advice import DetectorSettings
from detpipe.diagnosis.diagnose import Errors, Inputs, find_errors, operating_point, quick_advice
from detpipe.diagnosis.explanation import ImageFacts, explain_objects
from detpipe.diagnosis.oracles import Scene
from detpipe.metrics.evaluate import Metrics, check_metrics, evaluate
from detpipe.metrics.operating_point import OperatingPoint, best_f1
from detpipe.proposals.proposals_db import CorruptRecordError
from detpipe.report.run.levels import LEVEL_HEAD, level_rows
from detpipe.report.run.page import ReportData, write_report
from detpipe.report.text_table import text_table
from detpipe.runs.diagnosed_run import detector_settings, with_traced
from detpipe.runs.kept_dataset import keep_dataset
from detpipe.runs.kept_evaluation import evaluation_of, keep_evaluation
from detpipe.runs.model_card import keep_model_card
from detpipe.runs.operating_point import KeptOperatingPoint, keep_operating_point
from detpipe.runs.recall import read_recall
from detpipe.runs.run_detections import own_detections
from detpipe.runs.run_folder import RunFolder
from detpipe.runs.stored_split import open_split
from detpipe.runs.trace_file import Traces, read_traces
from detpipe.solver.training_log import TrainingLogError, read_log
from detpipe.storage.atomic import write_json
from detpipe.storage.dataclass_json import DataclassJsonError, from_json, read_object
from detpipe.storage.lmdb_pages import DatabaseError
from detpipe.storage.manifest import ArtefactError, Manifest, manifest_path, plain, read_manifest
from detpipe.structures import Dataset, Float32Array, GroundTruth, ImageId
from detpipe.taxonomy.class_tree import read_class_tree
from detpipe.taxonomy.level_accuracy import level_accuracy
from detpipe.tracking.follower import following

logger = logging.getLogger(__name__)


COCO_LIMIT = 100
"""Detections per image that COCO counts: the limit of a detector of which no other is known."""

SHOWN_PROPOSALS = 50
"""Proposals of an image that the page can show: more of them would hide the image."""


def run(config: Evaluate) -> None:
    """Compute VOC and COCO metrics of the detections on the test split, and write the report page."""
    config.track.check()
    with following(config.track, config.folder.path, log=None, config=plain(config)):
        measure(config)


def measure(config: Evaluate) -> None:
    """Compute and write, for `run`."""
    begun = time.perf_counter()
    check_metrics(config.metrics)
    # A run's own detections belong to the files of its images; other detections only need annotations.
    stored = config.data_source.load(Split.test, needs_images=config.detections is None)
    tree = None if config.taxonomy is None else read_class_tree(Path(config.taxonomy), stored.classes)
    dataset = measurable(stored)
    file = Path(config.detections) if config.detections is not None else own_detections(config.folder, dataset)
    detections = read_detections(file, dataset)
    stages = manifests(config.folder) if config.detections is None else {}
    limit = stages["detect"].settings["detect"]["max_detections"] if "detect" in stages else COCO_LIMIT
    metrics = evaluate(dataset, detections, max_dets=limit, metrics=config.metrics)
    seconds = {stage: manifest.seconds for stage, manifest in stages.items()}
    seconds["eval"] = round(time.perf_counter() - begun, 3)
    truth = dataset.measured_truth
    point = best_f1(truth, detections) if truth is not None else None
    levels = None
    if tree is not None and truth is not None:
        floor = point.score if point is not None else 0.5
        levels = level_accuracy(
            truth, detections, dataset.classes, tree, threshold=config.taxonomy_threshold, min_score=floor
        )
    extra = {} if levels is None else {"taxonomy": levels.to_json()}
    write_json(config.folder.metrics, {**metrics.to_json(seconds), **extra})
    if config.detections is None:
        keep_dataset(config.folder, config.data_source)
        keep_operating_point(config.folder.classifier, measured_point(point, dataset))
        keep_evaluation(config.folder.classifier, evaluation_of(stored, detections, metrics, seed=config.seed))
        keep_model_card(config.folder)
    data = report_data(config, dataset, metrics, stages, seconds)
    # Proposals belong to the data set, whatever program made the detections.
    with_files = all(record.has_file for record in stored.records)
    proposals = _proposals(config.folder, stored) if with_files else {}
    shown = {image_id: boxes[:SHOWN_PROPOSALS] for image_id, boxes in proposals.items()}
    data = replace(data, detections=detections, proposals=shown, levels=levels)
    if truth is not None and stored.ground_truth is not None:
        data = with_errors(data, config, Scene(truth, dict(detections)), proposals)
    write_report(config.folder.report, data)
    logger.log(RESULT, "\n%s", metrics.to_text())
    if levels is not None:
        logger.log(RESULT, "\n%s", text_table(LEVEL_HEAD, level_rows(levels)))
    if point is not None:
        logger.log(
            RESULT,
            "at a score of at least %.2f, where F1 is best: precision %.2f, recall %.2f",
            point.score,
            point.precision,
            point.recall,
        )
    logger.log(
        RESULT, "eval: VOC10 mAP@0.5 %.3f -> %s, %s", metrics.voc10.map, config.folder.metrics, config.folder.report
    )


def measured_point(point: OperatingPoint | None, dataset: Dataset) -> KeptOperatingPoint | None:
    """Return the operating point with what it was measured on, to be kept with the classifier."""
    if point is None:
        return None
    return KeptOperatingPoint(
        score=point.score,
        precision=point.precision,
        recall=point.recall,
        measured_on=dataset.name,
        images=len(dataset),
    )


def measurable(dataset: Dataset) -> Dataset:
    """Return the data set; one without annotations gets images without objects, so that its metrics are null."""
    if dataset.ground_truth is not None:
        return dataset
    logger.warning("%s: has no annotations to evaluate against; the metrics are null", dataset.name)
    nothing = {record.image_id: GroundTruth.from_boxes([], []) for record in dataset.records}
    return replace(dataset, ground_truth=nothing)


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


def with_errors(
    data: ReportData, config: Evaluate, scene: Scene, proposals: Mapping[ImageId, Float32Array]
) -> ReportData:
    """Return the content of the page with the cause or type of each error at the operating point, and advice.

    As `detpipe blame`, but without a second classifier, and with fewer resamples. proposals: all of each image.
    """
    own, dataset, folder = config.detections is None, data.dataset, config.folder
    threshold, why = operating_point(None, scene)
    stored_traces = _traces(folder, dataset) if own else None
    traces = stored_traces.images if stored_traces is not None else None
    errors = find_errors(
        scene,
        dataset.classes,
        threshold=threshold,
        traces=traces,
        proposals=proposals.items() if traces is not None else None,
    )
    inputs = Inputs(
        dataset=dataset.name,
        classes=dataset.classes,
        scene=scene,
        threshold=threshold,
        threshold_why=why,
        run_dir=config.run_dir,
        second_opinion="",
        traces=traces,
        detector=detector_settings(folder, None, dataset) if own else DetectorSettings(),
    )
    told = inputs if stored_traces is None else replace(inputs, detector=with_traced(inputs.detector, stored_traces))
    floor = None if stored_traces is None else stored_traces.detect.score_floor
    begun = time.perf_counter()
    advice = quick_advice(inputs, errors, seed=config.seed)
    logger.debug("eval: advice in %.2f s", time.perf_counter() - begun)
    page = folder.blame_page
    is_current = own and page.is_file() and page.stat().st_mtime_ns >= folder.detections.stat().st_mtime_ns
    return replace(
        data,
        errors=errors,
        facts=facts_of_misses(told, errors, proposals, floor) if own else {},
        advice=advice,
        blame_page=page.name if is_current else "",
        run_dir=config.run_dir,
    )


def facts_of_misses(
    inputs: Inputs, errors: Errors, proposals: Mapping[ImageId, Float32Array], score_floor: float | None
) -> dict[tuple[ImageId, int], list[str]]:
    """Return what `detpipe explain` tells about each missed object, by image and index, without its cause.

    proposals: all of each image, none where they are unknown. score_floor: None without traces.
    """
    found: dict[tuple[ImageId, int], list[str]] = {}
    for image_id in dict.fromkeys(one.image for one in errors.misses):
        facts = ImageFacts(
            image=image_id,
            truth=inputs.scene.truth[image_id],
            detections=inputs.scene.detections[image_id],
            classes=inputs.classes,
            threshold=inputs.threshold,
            threshold_why=inputs.threshold_why,
            traces=None if inputs.traces is None else inputs.traces.get(image_id),
            proposals=proposals.get(image_id),
            detector=inputs.detector,
            score_floor=score_floor,
        )
        for index, one in enumerate(explain_objects(facts)):
            if one.is_error:  # the last line is the cause
                found[(image_id, index)] = [*one.lines[:-1], f"Change: {one.change}."]
    return found


def report_data(
    config: Evaluate,
    dataset: Dataset,
    metrics: Metrics,
    made: Mapping[str, Manifest],
    seconds: Mapping[str, float],
) -> ReportData:
    """Return the content of the page: the evaluation, and for the run's own detections also the stages before it."""
    own = config.detections is None
    return ReportData(
        title="detpipe",
        dataset=dataset,
        detections={},
        metrics=metrics,
        recall=_recall(config.folder.recall) if own else None,
        log_rows=_log(config.folder.classifier) if own else (),
        proposer_rows=_log(config.folder.multibox) if own else (),
        settings={stage: manifest.settings for stage, manifest in made.items()},
        seconds=seconds,
        check_counts=_check_counts(config.folder.check),
        max_bytes=round(1e6 * config.report_megabytes),
    )


def _recall(path: Path) -> dict[str, dict[str, float | None]] | None:
    """Return the content of recall.json; None if it is missing or damaged, since the page works without it."""
    try:
        return read_recall(path)
    except FileNotFoundError:
        return None
    except DataclassJsonError as error:
        logger.warning("not on the page: %s", error)
        return None


def _check_counts(path: Path) -> dict[str, int] | None:
    """Return the numbers of findings in check.json; None if it is missing or damaged."""
    try:
        values = read_object(path, "run `detpipe check` again")
        return from_json(values.get("counts"), dict[str, int], f"{path}: counts")
    except FileNotFoundError:
        return None
    except DataclassJsonError as error:
        logger.warning("not on the page: %s", error)
        return None


def _log(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of a training's log; none if it is missing or damaged."""
    try:
        return read_log(folder / "log.jsonl")
    except TrainingLogError as error:
        logger.warning("not on the page: %s", error)
        return []


def _proposals(folder: RunFolder, dataset: Dataset) -> dict[ImageId, Float32Array]:
    """Return all stored boxes of each image, the best first; none if they are missing, unfinished or of others."""
    try:
        split = open_split(folder.proposals, Split.test, dataset)
        return {image_id: one.boxes for image_id, one in split.proposals()}
    except (ArtefactError, CorruptRecordError, DatabaseError) as error:
        if folder.proposals.exists():
            logger.warning("not on the page: %s", error)
        return {}


def _traces(folder: RunFolder, dataset: Dataset) -> Traces | None:
    """Return what the detector did with each object; None if the file is missing or damaged."""
    try:
        return read_traces(folder.object_traces, dataset)
    except DataclassJsonError as error:
        logger.warning("not on the page: %s", error)
        return None
