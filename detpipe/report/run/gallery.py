"""The images of a run's report: images with their boxes, and crops of errors."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from detpipe.datasets.image_file import read_image
from detpipe.diagnosis.causes import Miss, above
from detpipe.diagnosis.diagnose import Errors
from detpipe.diagnosis.false_detections import FalseDetection
from detpipe.metrics.matching import match_detections
from detpipe.report.drawing import draw_detections, draw_ground_truth, scaled
from detpipe.report.error_pictures import draw_errors, worst_false, worst_misses
from detpipe.report.page import Picture
from detpipe.report.run.reasons import kind_name
from detpipe.structures import Dataset, Detections, GroundTruth, Image, ImageId, ImageRecord

log = logging.getLogger(__name__)

IMAGE_SIDE = 480
"""Longest side of an image in pixels."""
QUALITY = 65
"""Of the JPEGs. The page also has pictures of all images, for which it needs the room."""


@dataclass(frozen=True, eq=False)
class Gallery:
    """Pictures, the names of unreadable files, and the total number of errors of each kind."""

    pictures: list[Picture]
    broken: list[str]
    counts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class MissGallery:
    """Crops around the most confident false positives and around the largest missed objects."""

    wrong: Gallery
    missed: Gallery


def images(dataset: Dataset, detections: Mapping[ImageId, Detections], *, min_score: float, most: int) -> Gallery:
    """At most `most` images, evenly spaced, with detections of at least min_score (solid) and objects (dashed)."""
    return _gallery(
        (
            record,
            partial(_image, record=record, dataset=dataset, detections=detections, min_score=min_score),
        )
        for record in evenly(dataset.records, most)
    )


def misses(
    dataset: Dataset, detections: Mapping[ImageId, Detections], errors: Errors, *, min_score: float, most: int
) -> MissGallery:
    """At most `most` pictures of each kind, the worst first. errors: those with at least min_score."""
    wrong, missed = worst_false(errors.wrong, most), worst_misses(errors.misses, dataset, most)
    drawn = draw_errors(dataset, detections, [*wrong, *missed], threshold=min_score)
    names = {record.image_id: record.path.name for record in dataset.records}

    def part(shown: Sequence[Miss | FalseDetection], kinds: Iterable[str]) -> Gallery:
        files = dict.fromkeys(names[one.image] for one in shown)
        return Gallery(
            drawn.of(shown), [name for name in files if name in drawn.unreadable], dict(Counter(kinds).most_common())
        )

    return MissGallery(
        wrong=part(wrong, (kind_name(one.type) for one in errors.wrong)),
        missed=part(missed, (kind_name(one.cause) for one in errors.misses)),
    )


def evenly(records: Sequence[ImageRecord], most: int) -> list[ImageRecord]:
    """At most `most` records, evenly spaced, in their order; all if there are fewer."""
    indices = np.linspace(0, len(records) - 1, max(0, min(most, len(records)))).round().astype(int)
    return [records[i] for i in indices.tolist()]


def _image(
    image: Image, *, record: ImageRecord, dataset: Dataset, detections: Mapping[ImageId, Detections], min_score: float
) -> Picture:
    scale = IMAGE_SIDE / max(image.shape[:2])
    found = detections.get(record.image_id)
    drawn = scaled(image, scale)
    tally = ""
    if dataset.ground_truth is not None:
        gt = dataset.ground_truth[record.image_id].measured
        drawn = draw_ground_truth(drawn, _scaled_gt(gt, scale), dataset.classes, names=False)
        tally = _tally(gt, found, min_score)
    if found is not None:
        # The boxes are scaled to the small image.
        small = Detections(found.boxes * np.float32(scale), found.scores, found.labels)
        drawn = draw_detections(drawn, small, dataset.classes, min_score=min_score)
    return Picture(drawn, f"{record.path.name} with its boxes", record.path.name, tally, quality=QUALITY)


def _tally(gt: GroundTruth, found: Detections | None, min_score: float) -> str:
    """The numbers of found objects and wrong detections."""
    objects = int((~gt.difficult & ~gt.crowd).sum())
    if found is None:
        return f"0 of {objects} found"
    matches = match_detections(gt, above(found, min_score))
    wrong = int(matches.false_positive.sum())
    return f"{int(matches.true_positive.sum())} of {objects} found" + (f", {wrong} wrong" if wrong else "")


def _scaled_gt(gt: GroundTruth, scale: float) -> GroundTruth:
    return GroundTruth(gt.boxes * np.float32(scale), gt.labels, gt.difficult, gt.crowd, gt.areas)


def _read(record: ImageRecord) -> Image | None:
    """The image, or None with a warning: a report must not fail if a file was deleted after the run."""
    try:
        return read_image(record.path, record.options)
    except (OSError, ValueError) as error:
        log.warning("report: left out an image: %s", error)
        return None


def _gallery(
    drawn: Iterable[tuple[ImageRecord, Callable[[Image], Picture]]], counts: Mapping[str, int] | None = None
) -> Gallery:
    """Read each file and draw its picture; list the unreadable files."""
    pictures, broken = [], []
    for record, draw in drawn:
        if not record.has_file:  # the page says how many
            continue
        image = _read(record)
        if image is None:
            broken.append(record.path.name)
        else:
            pictures.append(draw(image))
    return Gallery(pictures, broken, counts or {})
