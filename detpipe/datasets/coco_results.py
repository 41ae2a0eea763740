"""Reader and writer of COCO result files: [{"image_id", "category_id", "bbox": [x, y, width, height], "score"}]."""

from __future__ import annotations

import json
import logging
import reprlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from detpipe.datasets import box_units
from detpipe.datasets.coco_ids import IdMatcher, number_of, plain_id
from detpipe.storage.atomic import replaced
from detpipe.storage.input_json import read_json
from detpipe.structures import Dataset, Detections, ImageId, WrittenDetections

logger = logging.getLogger(__name__)

_LARGEST = 1e15


class ResultFileError(ValueError):
    """A file is not a list of COCO results, or belongs to another data set."""


def write_detections(path: Path, dataset: Dataset, detections: Mapping[ImageId, Detections]) -> None:
    """Write the detections atomically. Equal detections give equal bytes.

    One line per detection, in the order of the images, then by descending score; bbox to 2 decimals, score to 6 digits.
    detections: by image id; an image without an entry has no detections. Raises ValueError for an image or a label
    that the data set doesn't have.
    """
    unknown = detections.keys() - {record.image_id for record in dataset.records}
    if unknown:
        raise ValueError(f"{dataset.name}: expected detections of its own images, got {sorted(map(str, unknown))[:3]}")
    with replaced(path) as scratch, scratch.open("w", encoding="utf-8") as file:
        separator = "["
        for record in dataset.records:
            found = detections.get(record.image_id)
            if found is None:
                continue
            if len(found) and not 1 <= found.labels.min() <= found.labels.max() <= len(dataset.classes):
                raise ValueError(
                    f"{record.image_id}: expected labels 1..{len(dataset.classes)}, got {found.labels.max()}"
                )
            for box, score, label in zip(
                found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True
            ):
                x1, y1, x2, y2 = box
                line = {
                    "image_id": record.image_id,
                    "category_id": dataset.category_ids[label - 1],
                    "bbox": [round(x1, 2), round(y1, 2), round(x2 - x1, 2), round(y2 - y1, 2)],
                    "score": float(f"{score:.6g}"),
                }
                file.write(f"{separator}\n{json.dumps(line, allow_nan=False)}")
                separator = ","
        file.write("[]\n" if separator == "[" else "\n]\n")


def read_detections(path: Path, dataset: Dataset) -> dict[ImageId, WrittenDetections]:
    """Read COCO results written by this or another program. Returns Detections for each image of the data set.

    They are sorted by score; equal scores keep the order of the file, as in pycocotools.
    An image_id in the file may be the data set's own id, the same number as text or as a float, the image's file name,
    or its stem. Results of images or categories that the data set doesn't have are left out, with a warning that counts
    and names them. An empty list gives empty Detections.
    Raises FileNotFoundError for a missing file. Raises ResultFileError, which names the file and the first bad result,
    for a box that is not four finite numbers, a negative width or height, a score that is not finite, an id that is
    neither a number nor text, and if no result is of an image and a category of the data set. Raises InputFileError if
    it is not JSON.
    """
    try:
        content = read_json(path, "COCO results in JSON")
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path}: expected a file of detections, got no such file") from error
    if not isinstance(content, list):
        raise ResultFileError(f"{path}: expected a JSON list of COCO results, got a {type(content).__name__}")
    reader = _ResultReader.of(dataset)
    rows: dict[ImageId, list[_Row]] = {record.image_id: [] for record in dataset.records}
    first_unknown = ""
    unknown: Counter[str] = Counter()
    for number, result in enumerate(content):
        try:
            image_id, row = reader.read(result)
            rows[image_id].append(row)
        except _UnknownIdError as error:
            first_unknown = first_unknown or f"{path}: result {number}: {error}"
            unknown[error.name] += 1
        except ValueError as error:
            raise ResultFileError(f"{path}: result {number}: {error}") from error
    if unknown and unknown.total() == len(content):
        raise ResultFileError(f"{first_unknown}; give the results of this data set")
    if unknown:
        some = ", ".join(list(unknown)[:3]) + (", ..." if len(unknown) > 3 else "")
        logger.warning(
            "%s: left out %d of %d results: %s has no %s", path, unknown.total(), len(content), dataset.name, some
        )
    detections = {image_id: _to_detections(found) for image_id, found in rows.items()}
    _warn_of_units(path, dataset, detections)
    return detections


def _warn_of_units(path: Path, dataset: Dataset, detections: Mapping[ImageId, WrittenDetections]) -> None:
    """Log a warning if the boxes can't be x y width height in pixels, because they would all count as wrong."""
    found = [detections[record.image_id] for record in dataset.records]
    written = np.concatenate([np.zeros((0, 4)), *(one.xywh for one in found)])
    sizes = [
        np.tile(np.array(one.image_size, dtype=np.float64), (len(own), 1))
        for one, own in zip(dataset.records, found, strict=True)
    ]
    corners = np.concatenate([written[:, :2], written[:, :2] + written[:, 2:]], axis=1)
    if box_units.are_shares(corners):
        logger.warning("%s: the boxes are shares of the image; give pixels", path)
    elif box_units.are_corners(written, np.concatenate([np.zeros((0, 2)), *sizes]), np.full(len(written), np.nan)):
        logger.warning("%s: the boxes are [x1, y1, x2, y2]; give [x, y, width, height]", path)


_Row = tuple[float, float, float, float, float, int]
"""x y width height score label, as in the file."""


class _UnknownIdError(ValueError):
    """A result is of an image or category that the data set doesn't have. name: which, as "image 7"."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


@dataclass(frozen=True)
class _ResultReader:
    """Parses single results. labels: from category id."""

    dataset: Dataset
    images: IdMatcher
    labels: Mapping[int, int]

    @classmethod
    def of(cls, dataset: Dataset) -> _ResultReader:
        labels = {number: label for label, number in enumerate(dataset.category_ids, start=1)}
        images = IdMatcher.of((record.image_id, (record.path.name, record.path.stem)) for record in dataset.records)
        return cls(dataset, images, labels)

    def read(self, result: object) -> tuple[ImageId, _Row]:
        """The image's id, and the row. Raises _UnknownIdError, and ValueError for a result that is wrong."""
        if not isinstance(result, dict):
            raise ValueError(f"expected an object with image_id, category_id, bbox, score, got {reprlib.repr(result)}")
        lacking = {"image_id", "category_id", "bbox", "score"} - result.keys()
        if lacking:
            raise ValueError(f"expected image_id, category_id, bbox and score, got no {', '.join(sorted(lacking))}")
        name, category, box, score = (result[key] for key in ("image_id", "category_id", "bbox", "score"))
        if not isinstance(box, list) or len(box) != 4 or not all(_is_finite(value) for value in box):
            raise ValueError(f"bbox {reprlib.repr(box)}: expected [x, y, width, height], four finite numbers")
        if box[2] < 0 or box[3] < 0:
            raise ValueError(
                f"bbox {box!r}: expected width and height of 0 or more; give [x, y, width, height], not corners"
            )
        if not _is_finite(score):
            raise ValueError(f"score {reprlib.repr(score)}: expected a finite number")
        x, y, width, height = map(float, box)
        return self._image_id(name), (x, y, width, height, float(score), self._label(category))

    def _image_id(self, name: object) -> ImageId:
        image_id = self.images.find(name)
        if image_id is not None:
            return image_id
        own = ", ".join(str(record.image_id) for record in self.dataset.records[:3])
        shown = reprlib.repr(name)
        message = f"image_id {shown}: expected an image of {self.dataset.name} ({own}, ...)"
        if plain_id(name) is None:
            raise ValueError(message)
        raise _UnknownIdError(f"image {shown}", message)

    def _label(self, category: object) -> int:
        number = number_of(category)
        label = None if number is None else self.labels.get(number)
        if label is not None:
            return label
        known = dict(zip(self.dataset.category_ids, self.dataset.classes, strict=True))
        message = f"category_id {reprlib.repr(category)}: expected one of {reprlib.repr(known)}"
        if number is None:
            raise ValueError(message)
        raise _UnknownIdError(f"category {reprlib.repr(number)}", message)


def _is_finite(value: object) -> bool:
    """Whether the value is a finite number, small enough that float32 can hold an area."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _LARGEST


def _to_detections(rows: list[_Row]) -> WrittenDetections:
    table = np.array(rows, dtype=np.float64).reshape(-1, 6)
    table = table[np.argsort(-table[:, 4], kind="stable")]
    corners = np.concatenate([table[:, :2], table[:, :2] + table[:, 2:4]], axis=1)
    return WrittenDetections(
        boxes=corners.astype(np.float32),
        scores=table[:, 4].astype(np.float32),
        labels=table[:, 5].astype(np.int64),
        xywh=table[:, :4].copy(),
        written_scores=table[:, 4].copy(),
    )
