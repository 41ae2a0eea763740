"""The images of a run's report: images with their boxes, and crops of errors."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from detpipe.boxes import clip
from detpipe.classify.object_trace import ObjectTrace
from detpipe.datasets.image_file import read_image
from detpipe.metrics.matching import match_detections
from detpipe.report.drawing import GREEN, RED, draw_boxes, draw_detections, draw_ground_truth, scaled
from detpipe.report.page import Picture
from detpipe.report.run.misses import Miss, above, find_misses
from detpipe.structures import Dataset, Detections, GroundTruth, Image, ImageId, ImageRecord

log = logging.getLogger(__name__)

IMAGE_SIDE, CROP_SIDE = 480, 240
"""Longest side in pixels."""
QUALITY = 65
"""Of the JPEGs. The page also has pictures of all images, for which it needs the room."""
CONTEXT = 0.6
"""Margin around a box in a crop, as a share of its longer side."""


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
    dataset: Dataset,
    detections: Mapping[ImageId, Detections],
    *,
    min_score: float,
    most: int,
    traces: Mapping[ImageId, Sequence[ObjectTrace]] | None = None,
    nms_iou: float | None = None,
) -> MissGallery | None:
    """At most `most` crops of each kind; None without annotations. traces, nms_iou: see `find_misses`."""
    ground_truth = dataset.measured_truth
    if ground_truth is None:
        return None
    found = find_misses(
        ground_truth,
        detections,
        dataset.classes,
        min_score=min_score,
        limit=most,
        traces=traces,
        nms_iou=nms_iou,
    )
    records = {record.image_id: record for record in dataset.records}

    def crops(chosen: Sequence[Miss], counts: Mapping[str, int], *, missed: bool) -> Gallery:
        crop = partial(_crop, dataset=dataset, missed=missed)
        drawn = [(one := records[miss.image_id], partial(crop, miss=miss, path=one.path)) for miss in chosen]
        return _gallery(drawn, counts)

    return MissGallery(
        wrong=crops(found.wrong, found.wrong_counts, missed=False),
        missed=crops(found.missed, found.missed_counts, missed=True),
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


def _crop(image: Image, *, miss: Miss, dataset: Dataset, path: Path, missed: bool) -> Picture:
    x1, y1, x2, y2 = miss.box.tolist()
    margin = max(16.0, CONTEXT * max(x2 - x1, y2 - y1))
    around = np.array([[x1 - margin, y1 - margin, x2 + margin, y2 + margin]], dtype=np.float32)
    left, top, right, bottom = clip(around, (image.shape[0], image.shape[1]))[0].round().astype(int).tolist()
    # A box beyond the image's edge: the nearest pixels are shown.
    left, top = min(left, image.shape[1] - 1), min(top, image.shape[0] - 1)
    part = image[top : top + max(1, bottom - top), left : left + max(1, right - left)]
    scale = CROP_SIDE / max(part.shape[:2])
    origin = np.array([left, top, left, top], dtype=np.float32)
    drawn = scaled(part, scale)
    if not missed and dataset.ground_truth is not None:
        gt = dataset.ground_truth[miss.image_id].measured.boxes
        drawn = draw_boxes(drawn, (gt - origin) * np.float32(scale), colours=[GREEN] * len(gt), dashed=True)
    box = (miss.box[None] - origin) * np.float32(scale)
    drawn = draw_boxes(drawn, box, colours=[GREEN if missed else RED], dashed=missed)
    name = dataset.classes[miss.label - 1]
    head = f"{name}, {x2 - x1:.0f} × {y2 - y1:.0f} px" if missed else f"{name} {miss.weight:.2f}"
    return Picture(drawn, f"{head} in {path.name}", head, miss.why, below=path.name, quality=QUALITY)


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
        image = _read(record)
        if image is None:
            broken.append(record.path.name)
        else:
            pictures.append(draw(image))
    return Gallery(pictures, broken, counts or {})
