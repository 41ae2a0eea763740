"""Pictures of errors: a part of the image around a missed object or a false detection, with the facts as a caption."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from detpipe.boxes import clip
from detpipe.datasets.image_file import read_image
from detpipe.diagnosis.causes import Miss
from detpipe.diagnosis.false_detections import FalseDetection
from detpipe.diagnosis.sentences import false_sentence, miss_sentence
from detpipe.report.drawing import GREEN, RED, Colour, draw_boxes, scaled
from detpipe.report.page import Picture
from detpipe.structures import Dataset, Detections, Image, ImageId

log = logging.getLogger(__name__)

SIDE = 240
"""Longest side of a picture in pixels."""
QUALITY = 65
"""Of the JPEGs."""
CONTEXT = 0.6
"""Margin around a box, as a share of its longer side."""
OF_IMAGE = 2
"""Errors of one image that are shown together."""
BLUE: Colour = (66, 110, 230)

Error = TypeVar("Error", Miss, FalseDetection)
_Key = tuple[ImageId, str, int]


@dataclass(frozen=True)
class Frame:
    """A box x1 y1 x2 y2 in pixels of the image, drawn in a colour. dashed: for annotated objects."""

    box: Sequence[float]
    colour: Colour
    dashed: bool = False


@dataclass(frozen=True, eq=False)
class ErrorPictures:
    """The pictures of some errors. unreadable: names of files that could not be read, whose errors have none."""

    pictures: Mapping[_Key, Picture]
    unreadable: Sequence[str]

    def of(self, errors: Iterable[Miss | FalseDetection]) -> list[Picture]:
        """The pictures of these errors, in their order."""
        return [self.pictures[_key(one)] for one in errors if _key(one) in self.pictures]


def worst_misses(misses: Sequence[Miss], dataset: Dataset, most: int) -> list[Miss]:
    """The largest missed objects, at most `most`, and OF_IMAGE of one image."""
    truth = dataset.measured_truth or {}
    return _first(sorted(misses, key=lambda one: -float(truth[one.image].areas[one.object])), most)


def worst_false(wrong: Sequence[FalseDetection], most: int) -> list[FalseDetection]:
    """The most confident false detections, at most `most`, and OF_IMAGE of one image."""
    return _first(sorted(wrong, key=lambda one: -one.score), most)


def draw_errors(
    dataset: Dataset,
    detections: Mapping[ImageId, Detections],
    shown: Sequence[Miss | FalseDetection],
    *,
    threshold: float,
) -> ErrorPictures:
    """The picture of each error. Each image is read once; unreadable ones are logged, named and left out.

    detections: all of each image. threshold: the smallest score that counts.
    """
    records = {record.image_id: record for record in dataset.records}
    truth = dataset.measured_truth or {}
    pictures: dict[_Key, Picture] = {}
    unreadable: list[str] = []
    for image_id in dict.fromkeys(one.image for one in shown):
        record = records[image_id]
        name = record.path.name
        if not record.has_file:  # the page says how many
            continue
        try:
            image = read_image(record.path, record.options)
        except (OSError, ValueError) as error:  # a page must not fail if a file was deleted after the run
            log.warning("left out an image: %s", error)
            unreadable.append(name)
            continue
        for one in shown:
            if one.image != image_id:
                continue
            if isinstance(one, Miss):
                pictures[_key(one)] = miss_picture(one, image, name, detections[image_id], threshold)
            else:
                why = false_sentence(one, truth[image_id], dataset.classes)
                pictures[_key(one)] = false_picture(one, image, name, truth[image_id].boxes.tolist(), why)
    return ErrorPictures(pictures, unreadable)


def miss_picture(miss: Miss, image: Image, file: str, detections: Detections, threshold: float) -> Picture:
    """The object (green, dashed), the box that covers it best (blue), and the detection that decided (red)."""
    frames = [Frame(miss.box, GREEN, dashed=True)]
    if miss.covering is not None:
        frames.append(Frame(miss.covering, BLUE))
    if miss.by is not None:
        frames.append(Frame(detections.boxes[miss.by].tolist(), RED))
    x1, y1, x2, y2 = miss.box
    head = f"{miss.label}, {x2 - x1:.0f} × {y2 - y1:.0f} px"
    why = miss_sentence(miss, detections, threshold)
    return Picture(
        error_crop(image, miss.box, frames),
        alt=f"Missed {head} in {file}: {why}",
        name=head,
        text=why,
        below=f"{file}, object {miss.object}",
        quality=QUALITY,
    )


def false_picture(
    one: FalseDetection, image: Image, file: str, objects: Sequence[Sequence[float]], why: str
) -> Picture:
    """The detection (red) and the annotated objects (green, dashed)."""
    frames = [Frame(one.box, RED), *(Frame(box, GREEN, dashed=True) for box in objects)]
    head = f"{one.label} {one.score:.2f}"
    return Picture(
        error_crop(image, one.box, frames),
        alt=f"False detection {head} in {file}: {why}",
        name=head,
        text=why,
        below=f"{file}, detection {one.detection}",
        quality=QUALITY,
    )


def error_crop(image: Image, focus: Sequence[float], frames: Sequence[Frame]) -> Image:
    """The surroundings of a box, with frames; the first is drawn last, on top. The longest side has SIDE pixels.

    focus: x1 y1 x2 y2 in pixels. Of a box beyond the image's edge, the nearest pixels are shown.
    """
    x1, y1, x2, y2 = focus
    margin = max(16.0, CONTEXT * max(x2 - x1, y2 - y1))
    around = np.array([[x1 - margin, y1 - margin, x2 + margin, y2 + margin]], dtype=np.float32)
    left, top, right, bottom = clip(around, (image.shape[0], image.shape[1]))[0].round().astype(int).tolist()
    left, top = min(left, image.shape[1] - 1), min(top, image.shape[0] - 1)
    part = image[top : top + max(1, bottom - top), left : left + max(1, right - left)]
    scale = SIDE / max(part.shape[:2])
    origin = np.array([left, top, left, top], dtype=np.float32)
    drawn = scaled(part, scale)
    for frame in reversed(frames):
        box = (np.array([frame.box], dtype=np.float32) - origin) * np.float32(scale)
        drawn = draw_boxes(drawn, box, colours=[frame.colour], dashed=frame.dashed)
    return drawn


def _first(ordered: Sequence[Error], most: int) -> list[Error]:
    chosen: list[Error] = []
    of_image: Counter[ImageId] = Counter()
    for one in ordered:
        if len(chosen) < most and of_image[one.image] < OF_IMAGE:
            chosen.append(one)
            of_image[one.image] += 1
    return chosen


def _key(error: Miss | FalseDetection) -> _Key:
    """What tells the error apart from all others."""
    if isinstance(error, Miss):
        return error.image, "object", error.object
    return error.image, "detection", error.detection
