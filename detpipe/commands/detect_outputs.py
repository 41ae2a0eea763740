"""What `detpipe detect` writes beside detections.json: the formats of other programs, and the page of a source."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from detpipe.commands.stage_settings import Detect
from detpipe.console import RESULT
from detpipe.datasets.coco_dataset import common_folder, write_coco_dataset
from detpipe.datasets.coco_results import read_detections
from detpipe.datasets.image_file import BrokenImageError, read_image
from detpipe.datasets.voc_xml import write_voc_results
from detpipe.datasets.yolo_text import write_yolo_results
from detpipe.progress import progress
from detpipe.report.drawing import draw_detections, to_jpeg
from detpipe.runs.individual_results import RollUp, write_individuals, write_megadetector
from detpipe.runs.run_folder import RunFolder
from detpipe.runs.source_folder import source_root
from detpipe.runs.source_results import counts_by_class, write_csv
from detpipe.storage.atomic import write_bytes
from detpipe.storage.manifest import Artefact
from detpipe.structures import Dataset
from detpipe.taxonomy.class_tree import read_class_tree

if TYPE_CHECKING:
    from detpipe.report.page import Picture

logger = logging.getLogger(__name__)


def write_extras(config: Detect, dataset: Dataset, out: RunFolder, min_score: float, why: str) -> None:
    """Write the files of the VOC devkit, the COCO data set and YOLO's text, if set.

    They are made from detections.json, so they can also be written later.
    """
    if not (config.voc_results or config.coco or config.yolo):
        return
    detections = read_detections(out.detections, dataset)
    if config.voc_results:
        write_voc_results(out.path / "voc_results", dataset, detections)
    if config.coco:
        path = out.path / "detections_coco.json"
        images = write_coco_dataset(path, dataset, detections, min_score=min_score)
        logger.log(
            RESULT,
            "detect: COCO data set of the detections with a score of at least %.2f (%s) -> %s; file names are relative "
            "to %s",
            min_score,
            why,
            path,
            images,
        )
    if config.yolo:
        labels = out.path / "yolo" / "labels"
        write_yolo_results(labels.parent, dataset, detections, min_score=min_score)
        logger.log(
            RESULT,
            "detect: YOLO text of the detections with a score of at least %.2f (%s) -> %s",
            min_score,
            why,
            labels,
        )


def read_roll_up(config: Detect, dataset: Dataset) -> RollUp | None:
    """Return the class tree of the detector's classes with its threshold. Raises ClassTreeError for another tree."""
    if config.taxonomy is None:
        return None
    return RollUp(read_class_tree(Path(config.taxonomy), dataset.classes), config.taxonomy_threshold)


def write_animals(
    config: Detect, artefact: Artefact, dataset: Dataset, out: RunFolder, min_score: float, roll_up: RollUp | None
) -> None:
    """Write megadetector.json and animals.csv, if set. They are made from detections.json, as the other extras."""
    if not config.megadetector and roll_up is None:
        return
    detections = read_detections(out.detections, dataset)
    root = common_folder(dataset.records) if config.source is None else source_root(config.source)
    if config.megadetector:
        write_megadetector(
            out.path / "megadetector.json",
            dataset,
            root,
            detections,
            bad=artefact.manifest.bad,
            roll_up=roll_up,
            typical=min_score,
            lowest=config.detect.score_floor,
        )
        logger.log(RESULT, "detect: animals -> %s; file names relative to %s", out.path / "megadetector.json", root)
    if roll_up is not None:
        write_individuals(out.path / "animals.csv", dataset, root, detections, roll_up, min_score)
        logger.log(RESULT, "detect: animals with their answers -> %s", out.path / "animals.csv")


def write_source_pages(
    config: Detect, artefact: Artefact, dataset: Dataset, out: RunFolder, min_score: float, why: str
) -> None:
    """Write detections.csv, the drawn images and the page of a source, and log the counts by class.

    They are made from detections.json, so another `show_floor` needs no new detection.
    """
    # Imported here, because pages import matplotlib, which takes half a second and only a source needs.
    from detpipe.report.source_page import MAX_IMAGES, SourcePage, counts_text, picture, write_source_page

    assert config.source is not None
    root, folder = source_root(config.source), out.path / "annotated"
    detections = read_detections(out.detections, dataset)
    write_csv(out.path / "detections.csv", dataset, root, detections, min_score)
    pictures: list[Picture] = []
    drawn: set[Path] = set()
    for record in progress(dataset.records, "draw", total=len(dataset), unit="images"):
        try:
            image = read_image(record.path, record.options)
        except (BrokenImageError, OSError):  # already logged, and in the manifest
            continue
        found = detections[record.image_id]
        target = folder / f"{record.image_id}.jpg"
        write_bytes(target, to_jpeg(draw_detections(image, found, dataset.classes, min_score=min_score)))
        drawn.add(target)
        if len(pictures) < MAX_IMAGES:
            file, link = record.path.relative_to(root).as_posix(), target.relative_to(out.path).as_posix()
            pictures.append(picture(image, found, dataset.classes, file=file, link=link, min_score=min_score))
    if not folder.is_symlink():
        for path in folder.rglob("*.jpg"):  # of images that are no longer in the source
            if path not in drawn:
                path.unlink()
    data = SourcePage(
        source=config.source,
        classes=dataset.classes,
        min_score=min_score,
        why=why,
        counts=counts_by_class(dataset, detections, min_score),
        images=len(drawn),
        bad=[str(fault) for fault in artefact.manifest.bad],
        pictures=pictures,
    )
    write_source_page(out.source_page, data)
    logger.log(RESULT, "%s", counts_text(data))
    logger.log(RESULT, "detect: page %s, table %s, images %s", out.source_page, out.path / "detections.csv", folder)
