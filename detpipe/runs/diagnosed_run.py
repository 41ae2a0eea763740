"""What a diagnosis needs of a run folder: its stored proposals, its settings, and the scores of the objects' boxes."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from detpipe import boxes as geometry
from detpipe.classify.classifier_folder import ClassifierError
from detpipe.classify.detect import select_detections
from detpipe.classify.kinds import load_region_spec
from detpipe.classify.settings import Duplicates
from detpipe.datasets.image_file import BrokenImageError, read_image
from detpipe.datasets.source import DatasetSource, Split
from detpipe.diagnosis.advice import DetectorSettings
from detpipe.plugins import PluginError
from detpipe.progress import counted
from detpipe.proposals.methods import method_name, proposer_of
from detpipe.proposals.selective_search.search import SelectiveSearch
from detpipe.runs.command import Command
from detpipe.runs.detector import Detector
from detpipe.runs.run_folder import RunFolder
from detpipe.runs.stored_split import open_split
from detpipe.runs.trace_file import Traces
from detpipe.storage.manifest import ArtefactError, read_manifest
from detpipe.structures import Dataset, Detections, Float32Array, Image, ImageId

logger = logging.getLogger(__name__)


def stored_proposals(folder: RunFolder, dataset: Dataset) -> list[tuple[ImageId, Float32Array]] | None:
    """Return all stored proposals (P, 4) of each readable image, best first; None, with a warning, without any."""
    try:
        stored = open_split(folder.proposals, Split.test, dataset)
        return [(image_id, proposals.boxes) for image_id, proposals in stored.proposals()]
    except ArtefactError as error:
        logger.warning("no missed object has the cause budget, because there are no stored proposals: %s", error)
        return None


def detector_settings(folder: RunFolder, source: DatasetSource | None, dataset: Dataset) -> DetectorSettings:
    """Return the settings that advice names, of the run's detections on `dataset`.

    source: counts the training objects; None leaves them out, since that reads all training images' headers.
    """
    detect = read_manifest(folder.detections).settings["detect"]
    try:
        proposes = load_region_spec(folder.classifier).PROPOSES
    except ClassifierError:  # the classifier is gone
        proposes = False
    method, stored, side = None, None, None
    try:
        description: dict[str, Any] = read_manifest(folder.proposals).settings["proposals"]
        method, stored = method_name(description), description.get("max_proposals")
        proposer = proposer_of(description)
        side = proposer.working_side if isinstance(proposer, SelectiveSearch) else None
    except (ArtefactError, ValueError, PluginError) as error:
        logger.info("the advice does not name the proposer: %s", error)
    return DetectorSettings(
        proposes=proposes,
        max_proposals=detect["max_proposals"],
        nms_iou=detect["nms_iou"],
        vote_iou=detect["vote_iou"],
        max_detections=detect["max_detections"],
        duplicates=Duplicates(detect["fast_rcnn"].get("duplicates", "nms")),  # older runs have none
        method=method,
        stored=stored,
        max_side=side,
        larger=() if side is None else (f"proposals.max_side={2 * side}",),
        longest={record.image_id: max(record.image_size) for record in dataset.records},
        train_objects=train_objects(source) if source is not None else {},
    )


def with_traced(detector: DetectorSettings, traces: Traces) -> DetectorSettings:
    """Return the settings with those that held when the traces were made."""
    held = traces.detect
    return replace(
        detector,
        max_proposals=held.max_proposals,
        nms_iou=held.nms_iou,
        vote_iou=held.vote_iou,
        max_detections=held.max_detections,
        duplicates=held.duplicates,
    )


def train_objects(source: DatasetSource) -> dict[str, int]:
    """Return the number of training objects by class, without difficult ones and crowds; {} without annotations."""
    train = source.load(Split.train) if source.has(Split.train) else None
    if train is None or train.ground_truth is None:
        return {}
    numbers: Counter[int] = Counter()
    for truth in train.ground_truth.values():
        numbers.update(truth.labels[~truth.difficult & ~truth.crowd].tolist())
    return {name: numbers[label] for label, name in enumerate(train.classes, start=1)}


def classified_objects(config: Command, dataset: Dataset) -> dict[ImageId, Detections] | None:
    """Return the detections of the run's detector on the objects' own boxes, clipped to the image, as its only regions.

    Images without objects and unreadable ones have no entry. None, with a warning, if the classifier is missing.
    """
    try:
        detector = Detector.from_run(config.run_dir, device=config.device.value)
    except ClassifierError as error:
        logger.warning("the mAP with perfect proposals is not measured: %s", error)
        return None
    truth = dataset.ground_truth or {}
    held: list[ImageId] = []

    def regions() -> Iterator[tuple[Image, Float32Array]]:
        for record in dataset.records:
            own = truth[record.image_id]
            boxes = geometry.clip(own.boxes[~own.crowd], record.image_size)
            boxes = np.ascontiguousarray(boxes[geometry.area(boxes) > 0])
            if not len(boxes):  # a network that proposes regions would propose some
                continue
            try:
                image = read_image(record.path, record.options)
            except (BrokenImageError, OSError) as error:
                logger.warning("not with perfect proposals: %s", error)
                continue
            held.append(record.image_id)
            yield image, boxes

    found: dict[ImageId, Detections] = {}
    with counted("classify objects", total=len(dataset), unit="images") as count:
        for boxes, scored, image_size in detector.score_many(regions()):
            found[held[len(found)]] = select_detections(boxes, scored, image_size, detector.config)
            count.advance()
    return found
