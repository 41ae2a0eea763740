"""The data of the interactive images of a run's report: each image with its boxes, and counts at score thresholds.

report.js shows them. The pictures are as large as the room in the page allows.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from detpipe.classify.detect import NO_DETECTIONS
from detpipe.datasets.image_file import read_image
from detpipe.metrics.matching import match_detections
from detpipe.metrics.threshold_counts import threshold_counts
from detpipe.progress import counted
from detpipe.report.drawing import scaled
from detpipe.report.figure_style import hex_colour
from detpipe.report.page import jpeg_uri
from detpipe.report.run.reasons import LOW_SCORE, Diagnosis, Reason
from detpipe.structures import Dataset, Detections, Float32Array, GroundTruth, ImageId, ImageRecord

log = logging.getLogger(__name__)

SIZES = ((640, 76), (512, 74), (400, 70), (320, 66), (256, 62), (200, 60), (160, 56), (128, 50))
"""Longest side in pixels and JPEG quality of a picture, from the best to the smallest."""
LEAST_PICTURE = 4_000
"""Characters of a small picture. If the page has room for fewer of them than there are images, images are left out."""
FACTS_SHARE = 0.25
"""The facts of all missed objects are left out if they need more than this share of the room."""
STEPS = 100
"""Thresholds are multiples of 1 / STEPS, and the one that the page starts with."""


@dataclass(frozen=True, eq=False)
class Explored:
    """What the images show.

    threshold: the score that the page starts with; how: why this one. diagnosis: made at this threshold, None without
    annotations. proposals: (P, 4) boxes by image id, the best first, may be empty.
    """

    dataset: Dataset
    detections: Mapping[ImageId, Detections]
    threshold: float
    how: str
    diagnosis: Diagnosis | None = None
    proposals: Mapping[ImageId, Float32Array] = field(default_factory=dict)


def explorer_data(content: Explored, *, room: int) -> dict[str, Any]:
    """The data block for report.js: JSON of at most `room` characters, if images have to be left out for that.

    With too little room for all images, those with the most errors at the threshold are kept; counts are of all.
    Unreadable files are logged and have no picture. Boxes are in pixels of the image, rounded to whole ones.
    """
    dataset = content.dataset
    truth = dataset.measured_truth or {record.image_id: GroundTruth.from_boxes([], []) for record in dataset.records}
    thresholds = sorted({*(step / STEPS for step in range(STEPS + 1)), _short(content.threshold)})
    counts = threshold_counts(truth, content.detections, thresholds, n_classes=len(dataset.classes))
    texts = _Texts()
    content = _with_short_facts(content, FACTS_SHARE * room)
    entries = {record.image_id: _entry(record, content, truth, texts) for record in dataset.records}
    data: dict[str, Any] = {
        "classes": [{"name": name, "colour": hex_colour(k)} for k, name in enumerate(dataset.classes, start=1)],
        "annotated": any(map(len, truth.values())),
        "threshold": _short(content.threshold),
        "how": content.how,
        "thresholds": thresholds,
        "objects": counts.objects.tolist(),
        "shown": counts.shown.tolist(),
        "correct": counts.correct.tolist(),
        "lowScore": texts.index(content.diagnosis.low_score if content.diagnosis else LOW_SCORE),
        "total": len(dataset),
    }
    room -= _length(data) + _length(texts.all)
    kept = _that_fit(dataset.records, entries, content.threshold, room)
    room -= sum(_length(entries[record.image_id]) for record in kept)
    with counted("report: pictures", total=len(kept), unit="images") as progress:
        size = 0
        for n, record in enumerate(kept):
            # What a picture leaves is for those after it. Neighbours need about the same size, so few are tried.
            uri, size = _picture(record, max(0, room) // (len(kept) - n), first=max(0, size - 1))
            entries[record.image_id]["src"] = uri
            room -= len(uri or "")
            progress.advance()
    return data | {"texts": texts.all, "images": [entries[record.image_id] for record in kept]}


def _with_short_facts(content: Explored, most: float) -> Explored:
    """The content, without the facts of missed objects if they have more than `most` characters."""
    diagnosis = content.diagnosis
    if diagnosis is None:
        return content
    missed = diagnosis.missed
    if sum(_length(one.facts) for own in missed.values() for one in own.values() if one.facts) <= most:
        return content
    log.info("report: no room for the facts of all missed objects; `detpipe explain` shows them for an image")
    short = {image_id: {i: replace(one, facts=()) for i, one in own.items()} for image_id, own in missed.items()}
    return replace(content, diagnosis=replace(diagnosis, missed=short))


class _Texts:
    """Numbers for texts that occur many times, such as "no object of this class is annotated here"."""

    def __init__(self) -> None:
        self._index: dict[str, int] = {}

    def index(self, text: str) -> int:
        """The place of a text in `all`."""
        return self._index.setdefault(text, len(self._index))

    @property
    def all(self) -> list[str]:
        """The texts in the order of their numbers."""
        return list(self._index)


def _entry(
    record: ImageRecord, content: Explored, truth: Mapping[ImageId, GroundTruth], texts: _Texts
) -> dict[str, Any]:
    """An image without its picture.

    objects: x1, y1, x2, y2, label, state (0, or 1 for difficult ones and crowds), the score from which it is found (or
    -1), and the reason if it is missed. detections: x1, y1, x2, y2, label, score, state (1 correct, 0 wrong,
    2 ignored), and the reason if it is wrong. A reason is numbers of texts: the kind, the sentence, and the facts.
    """
    found = content.detections.get(record.image_id, NO_DETECTIONS)
    gt = truth[record.image_id]
    matches = match_detections(gt, found)
    scores = [_short(score) for score in found.scores]
    found_from = np.full(len(gt), -1.0)
    for index in np.flatnonzero(matches.true_positive).tolist():
        found_from[matches.object_index[index]] = scores[index]
    state = np.where(matches.true_positive, 1, np.where(matches.ignored, 2, 0)).tolist()

    def reason(reasons: Mapping[ImageId, Mapping[int, Reason]], index: int) -> list[int]:
        one = reasons.get(record.image_id, {}).get(index)
        return [] if one is None else [texts.index(text) for text in (one.kind, one.why, *one.facts)]

    missed = content.diagnosis.missed if content.diagnosis is not None else {}
    wrong = content.diagnosis.wrong if content.diagnosis is not None else {}
    aside = (gt.difficult | gt.crowd).astype(int).tolist()
    height, width = record.image_size
    return {
        "name": record.path.name,
        "size": [width, height],
        "src": None,
        "objects": [
            [*_whole(box), label, aside[i], found_from[i].item(), *reason(missed, i)]
            for i, (box, label) in enumerate(zip(gt.boxes, gt.labels.tolist(), strict=True))
        ],
        "detections": [
            [*_whole(box), label, scores[i], state[i], *(reason(wrong, i) if state[i] == 0 else ())]
            for i, (box, label) in enumerate(zip(found.boxes, found.labels.tolist(), strict=True))
        ],
        "proposals": [_whole(box) for box in content.proposals.get(record.image_id, ())],
    }


def _that_fit(
    records: Sequence[ImageRecord], entries: Mapping[ImageId, dict[str, Any]], threshold: float, room: int
) -> list[ImageRecord]:
    """The records whose entries and small pictures fit, in their order. Those with the most errors go first."""

    def errors(record: ImageRecord) -> int:
        entry = entries[record.image_id]
        missed = [one for one in entry["objects"] if one[5] == 0 and one[6] < threshold]
        wrong = [one for one in entry["detections"] if one[6] == 0 and one[5] >= threshold]
        return len(missed) + len(wrong)

    kept: set[ImageId] = set()
    for record in sorted(records, key=errors, reverse=True):
        room -= _length(entries[record.image_id]) + LEAST_PICTURE
        if room < 0:
            break
        kept.add(record.image_id)
    if len(kept) < len(records):
        log.info("report: room for %d of %d images, those with the most errors", len(kept), len(records))
    return [record for record in records if record.image_id in kept]


def _picture(record: ImageRecord, limit: int, *, first: int) -> tuple[str | None, int]:
    """The image as a data URI of at most `limit` characters, with the place of its size in SIZES.

    first: the place of the largest size that may be taken. None if the file is unreadable or not even the smallest
    picture fits.
    """
    if not record.has_file:
        return None, first
    try:
        image = read_image(record.path, record.options)
    except (OSError, ValueError) as error:
        # A report must not fail if a file was deleted after the run.
        log.warning("report: an image has no picture: %s", error)
        return None, first
    for place in range(first, len(SIZES)):
        side, quality = SIZES[place]
        uri = jpeg_uri(scaled(image, min(1.0, side / max(image.shape[:2]))), quality)
        if len(uri) <= limit:
            return uri, place
    return None, first


def _length(data: object) -> int:
    """The characters of data in the page, with the comma after it."""
    return len(json.dumps(data, separators=(",", ":"))) + 1


def _short(score: float) -> float:
    """The number with the fewest digits that is the same float32. It keeps the order, and what equals what."""
    return float(str(np.float32(score)))


def _whole(box: Float32Array) -> list[int]:
    return [round(value) for value in box.tolist()]
