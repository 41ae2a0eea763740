"""The sections of the report that are pictures: images with their boxes, and crops of what went wrong."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from detpipe.boxes import clip
from detpipe.datasets.image_file import read_image
from detpipe.metrics.matching import match_detections
from detpipe.report.drawing import GREEN, RED, draw_boxes, draw_detections, draw_ground_truth, resize
from detpipe.report.markup import escape, paragraph, picture
from detpipe.report.misses import Miss, above, find_misses
from detpipe.structures import Dataset, Detections, GroundTruth, Image, ImageId, ImageRecord

log = logging.getLogger(__name__)

IMAGE_SIDE, CROP_SIDE = 480, 240
"""Longest side in pixels: with the worst of images the page stays below 8 MB."""
SHOWN_AT_ONCE = 6
"""The other images of the grid stand in a fold: the numbers below are then near, on a phone too."""
CONTEXT = 0.6
"""How much of a box's longer side is shown around it."""


def images(
    dataset: Dataset, detections: Mapping[ImageId, Detections], *, min_score: float, most: int, chosen_how: str
) -> str:
    """Images evenly spread over the data set with their detections (solid) and objects (dashed).

    chosen_how: a phrase for where min_score comes from. An image that can't be read any more is named in a sentence.
    """
    if not dataset.records or most < 1:
        return paragraph("There are no images to show.", "none")
    shown = evenly(dataset.records, most)
    pictures, broken = [], []
    for record in shown:
        image = _read(record.path)
        if image is None:
            broken.append(record.path.name)
        else:
            pictures.append(_image(image, record, dataset, detections, min_score))
    note = (
        f"{len(shown)} of {len(dataset)} images. Solid: detections with a score of at least {min_score:.2f} "
        f"({chosen_how}). Dashed: annotated objects."
    )
    return (
        paragraph(note, "note") + _grid(pictures[:SHOWN_AT_ONCE]) + _folded(pictures[SHOWN_AT_ONCE:]) + _broken(broken)
    )


def misses(dataset: Dataset, detections: Mapping[ImageId, Detections], *, min_score: float, most: int) -> str:
    """Crops around the most confident false positives and the largest objects that were missed."""
    if dataset.ground_truth is None:
        return paragraph("Without annotations nothing is known to be wrong.", "none")
    ground_truth = {record.image_id: dataset.ground_truth[record.image_id] for record in dataset.records}
    found = find_misses(ground_truth, detections, dataset.classes, min_score=min_score, limit=most)
    paths = {record.image_id: record.path for record in dataset.records}
    parts = []
    for title, chosen, counts, colour, nothing in (
        ("False positives, the most confident first", found.wrong, found.wrong_counts, RED, "No detection is wrong."),
        ("Missed objects, the largest first", found.missed, found.missed_counts, GREEN, "No object is missed."),
    ):
        total = ", ".join(f"{n:,} {kind}" for kind, n in counts.items())
        note = f"{sum(counts.values()):,} in all: {total}. At most two of an image are shown." if counts else nothing
        parts.append(f"<h3>{title}</h3>{paragraph(note, 'note')}")
        crops, broken = [], []
        for miss in chosen:
            image = _read(paths[miss.image_id])
            if image is None:
                broken.append(paths[miss.image_id].name)
            else:
                crops.append(_crop(image, miss, dataset, paths[miss.image_id], missed=colour is GREEN))
        parts.append(_grid(crops, "gallery small") + _broken(broken))
    return "".join(parts)


def evenly(records: Sequence[ImageRecord], most: int) -> list[ImageRecord]:
    """At most so many records, evenly spread, in their order; all where there are fewer."""
    places = np.linspace(0, len(records) - 1, min(most, len(records))).round().astype(int)
    return [records[place] for place in places.tolist()]


def _image(
    image: Image, record: ImageRecord, dataset: Dataset, detections: Mapping[ImageId, Detections], min_score: float
) -> str:
    scale = IMAGE_SIDE / max(image.shape[:2])
    found = detections.get(record.image_id)
    drawn = resize(image, scale)
    caption = f"<b>{escape(record.path.name)}</b>"
    if dataset.ground_truth is not None:
        gt = dataset.ground_truth[record.image_id]
        drawn = draw_ground_truth(drawn, _scaled_gt(gt, scale), dataset.classes, names=False)
        caption += f" {_tally(gt, found, min_score)}"
    if found is not None:
        # Detections stay as they are but for the size: their boxes are those of the small picture.
        small = Detections(found.boxes * np.float32(scale), found.scores, found.labels)
        drawn = draw_detections(drawn, small, dataset.classes, min_score=min_score)
    return picture(drawn, f"{record.path.name} with its boxes", caption)


def _tally(gt: GroundTruth, found: Detections | None, min_score: float) -> str:
    """How many of the objects are found, and how many detections are wrong."""
    objects = int((~gt.difficult & ~gt.crowd).sum())
    if found is None:
        return f"0 of {objects} found"
    matches = match_detections(gt, above(found, min_score))
    wrong = int(matches.false_positive.sum())
    return f"{int(matches.true_positive.sum())} of {objects} found" + (f", {wrong} wrong" if wrong else "")


def _crop(image: Image, miss: Miss, dataset: Dataset, path: Path, *, missed: bool) -> str:
    x1, y1, x2, y2 = miss.box.tolist()
    margin = max(16.0, CONTEXT * max(x2 - x1, y2 - y1))
    around = np.array([[x1 - margin, y1 - margin, x2 + margin, y2 + margin]], dtype=np.float32)
    left, top, right, bottom = clip(around, (image.shape[0], image.shape[1]))[0].round().astype(int).tolist()
    # A box beyond the image's edge: the nearest pixels are shown.
    left, top = min(left, image.shape[1] - 1), min(top, image.shape[0] - 1)
    part = image[top : top + max(1, bottom - top), left : left + max(1, right - left)]
    scale = CROP_SIDE / max(part.shape[:2])
    origin = np.array([left, top, left, top], dtype=np.float32)
    drawn = resize(part, scale)
    if not missed and dataset.ground_truth is not None:
        gt = dataset.ground_truth[miss.image_id].boxes
        drawn = draw_boxes(drawn, (gt - origin) * np.float32(scale), colours=[GREEN] * len(gt), dashed=True)
    box = (miss.box[None] - origin) * np.float32(scale)
    drawn = draw_boxes(drawn, box, colours=[GREEN if missed else RED], dashed=missed)
    name = dataset.classes[miss.label - 1]
    head = f"{name}, {x2 - x1:.0f} × {y2 - y1:.0f} px" if missed else f"{name} {miss.weight:.2f}"
    caption = f"<b>{escape(head)}</b> {escape(miss.why)}<br><small>{escape(path.name)}</small>"
    return picture(drawn, f"{head} in {path.name}", caption)


def _scaled_gt(gt: GroundTruth, scale: float) -> GroundTruth:
    return GroundTruth(gt.boxes * np.float32(scale), gt.labels, gt.difficult, gt.crowd, gt.areas)


def _read(path: Path) -> Image | None:
    """The image, or None with a warning: the report of a finished run must not fail for a file that has gone since."""
    try:
        return read_image(path)
    except (OSError, ValueError) as error:
        log.warning("report: left out a picture: %s", error)
        return None


def _grid(pictures: Sequence[str], kind: str = "gallery") -> str:
    return f'<div class="{kind}">{"".join(pictures)}</div>' if pictures else ""


def _folded(pictures: Sequence[str]) -> str:
    if not pictures:
        return ""
    return f"<details><summary>{len(pictures)} more images</summary>{_grid(pictures)}</details>"


def _broken(names: Sequence[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return paragraph(f"Can't be read any more: {', '.join(names[:3])}{more}.", "none")
