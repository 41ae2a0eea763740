"""Reader and writer of COCO result files: [{"image_id", "category_id", "bbox": [x, y, width, height], "score"}]."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from detpipe import boxes as box_ops
from detpipe.storage.atomic import replaced
from detpipe.structures import Dataset, Detections, ImageId

_LARGEST = 1e30


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


def read_detections(path: Path, dataset: Dataset) -> dict[ImageId, Detections]:
    """Read COCO results written by this or another program. Returns sorted Detections for each image of the data set.

    An image_id in the file may be the data set's own id, the same number as a string or as an integer, the image's file
    name, or its stem. An empty list gives empty Detections. Raises FileNotFoundError for a missing file. Raises
    ResultFileError, which names the file and the first bad result, for an image or category that the data set doesn't
    have, a box that is not four finite numbers, a negative width or height, and a score that is not finite.
    """
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path}: expected a file of detections, got no such file") from error
    except (ValueError, RecursionError) as error:
        raise ResultFileError(f"{path}: expected COCO results in JSON, got an error on reading it: {error}") from error
    if not isinstance(content, list):
        raise ResultFileError(f"{path}: expected a JSON list of COCO results, got a {type(content).__name__}")
    reader = _ResultReader.of(dataset)
    rows: dict[ImageId, list[tuple[float, float, float, float, float, int]]] = {
        record.image_id: [] for record in dataset.records
    }
    for number, result in enumerate(content):
        try:
            image_id, row = reader.read(result)
        except ValueError as error:
            raise ResultFileError(f"{path}: result {number}: {error}") from error
        rows[image_id].append(row)
    return {image_id: _to_detections(found) for image_id, found in rows.items()}


@dataclass(frozen=True)
class _ResultReader:
    """Parses single results. image_ids: from each accepted name of an image to its id. labels: from category id."""

    dataset: Dataset
    image_ids: Mapping[ImageId, ImageId]
    labels: Mapping[int, int]

    @classmethod
    def of(cls, dataset: Dataset) -> _ResultReader:
        labels = {number: label for label, number in enumerate(dataset.category_ids, start=1)}
        return cls(dataset, _image_ids_by_name(dataset), labels)

    def read(self, result: object) -> tuple[ImageId, tuple[float, float, float, float, float, int]]:
        """The image's id and (x1, y1, x2, y2, score, label)."""
        if not isinstance(result, dict):
            raise ValueError(f"expected an object with image_id, category_id, bbox, score, got {result!r}")
        lacking = {"image_id", "category_id", "bbox", "score"} - result.keys()
        if lacking:
            raise ValueError(f"expected image_id, category_id, bbox and score, got no {', '.join(sorted(lacking))}")
        name, category, box, score = (result[key] for key in ("image_id", "category_id", "bbox", "score"))
        if not isinstance(name, int | str) or isinstance(name, bool) or name not in self.image_ids:
            own = ", ".join(str(record.image_id) for record in self.dataset.records[:3])
            raise ValueError(f"image_id {name!r}: expected an image of {self.dataset.name} ({own}, ...)")
        if not isinstance(category, int) or isinstance(category, bool) or category not in self.labels:
            known = dict(zip(self.dataset.category_ids, self.dataset.classes, strict=True))
            raise ValueError(f"category_id {category!r}: expected one of {known}")
        if not isinstance(box, list) or len(box) != 4 or not all(_is_finite(value) for value in box):
            raise ValueError(f"bbox {box!r}: expected [x, y, width, height], four finite numbers")
        if box[2] < 0 or box[3] < 0:
            raise ValueError(
                f"bbox {box!r}: expected width and height of 0 or more; give [x, y, width, height], not corners"
            )
        if not _is_finite(score):
            raise ValueError(f"score {score!r}: expected a finite number")
        x, y, width, height = box
        return self.image_ids[name], (x, y, x + width, y + height, score, self.labels[category])


def _is_finite(value: object) -> bool:
    """Whether the value is a finite number, small enough that float32 can hold the sum of two such numbers."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _LARGEST


def _image_ids_by_name(dataset: Dataset) -> dict[ImageId, ImageId]:
    """From each accepted name of an image to its id. A name that fits several images counts only as an exact id."""
    aliases: dict[ImageId, set[ImageId]] = {}
    for record in dataset.records:
        spellings: set[ImageId] = {str(record.image_id), record.path.name, record.path.stem}
        text = str(record.image_id)
        if text.isascii() and text.isdigit() and len(text) < 19:
            spellings.add(int(text))
        for spelling in spellings:
            aliases.setdefault(spelling, set()).add(record.image_id)
    names = {spelling: next(iter(ids)) for spelling, ids in aliases.items() if len(ids) == 1}
    return names | {record.image_id: record.image_id for record in dataset.records}


def _to_detections(rows: list[tuple[float, float, float, float, float, int]]) -> Detections:
    table = np.array(rows, dtype=np.float64).reshape(-1, 6)
    boxes, scores = table[:, :4].astype(np.float32), table[:, 4].astype(np.float32)
    order = box_ops.rank(boxes, scores)
    return Detections(boxes[order], scores[order], table[order, 5].astype(np.int64))
