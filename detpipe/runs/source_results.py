"""The detections in the images of a `source` as files for people and programs: JSON and CSV, and their counts."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from detpipe.storage.atomic import replaced, write_bytes
from detpipe.structures import Dataset, Detections, ImageId, ImageRecord

CSV_COLUMNS = ("file", "class", "score", "x1", "y1", "x2", "y2", "shown")


@dataclass(frozen=True)
class Row:
    """One detection. file: relative to the source. box: x1 y1 x2 y2 in pixels. label: 1..K."""

    record: ImageRecord
    file: str
    label: int
    score: float
    box: tuple[float, float, float, float]


def rows(dataset: Dataset, root: Path, detections: Mapping[ImageId, Detections]) -> Iterator[Row]:
    """The detections in the order of the images, then by descending score. root: the source's folder."""
    for record in dataset.records:
        found = detections.get(record.image_id)
        if found is None:
            continue
        file = record.path.relative_to(root).as_posix()
        for box, score, label in zip(found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True):
            x1, y1, x2, y2 = (round(value, 2) for value in box)
            yield Row(record, file, label, float(f"{score:.6g}"), (x1, y1, x2, y2))


def write_results(path: Path, dataset: Dataset, root: Path, detections: Mapping[ImageId, Detections]) -> None:
    """Write all detections as a COCO result list atomically; each also has its file's name and its class's name."""
    with replaced(path) as scratch, scratch.open("w", encoding="utf-8") as file:
        separator = "["
        for row in rows(dataset, root, detections):
            x1, y1, x2, y2 = row.box
            line = {
                "image_id": row.record.image_id,
                "file_name": row.file,
                "category_id": dataset.category_ids[row.label - 1],
                "category": dataset.classes[row.label - 1],
                "bbox": [x1, y1, round(x2 - x1, 2), round(y2 - y1, 2)],
                "score": row.score,
            }
            file.write(f"{separator}\n{json.dumps(line, allow_nan=False)}")
            separator = ","
        file.write("[]\n" if separator == "[" else "\n]\n")


def write_csv(
    path: Path, dataset: Dataset, root: Path, detections: Mapping[ImageId, Detections], min_score: float
) -> None:
    """Write all detections as CSV atomically: file, class, score, x1, y1, x2, y2, shown.

    shown is 1 for a score of at least min_score, else 0. Bytes of file names that are not UTF-8 become U+FFFD.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for row in rows(dataset, root, detections):
        shown = int(row.score >= min_score)
        writer.writerow([row.file, dataset.classes[row.label - 1], row.score, *row.box, shown])
    # Undecodable bytes of file names, which Python keeps as lone surrogates, would make the file unreadable as UTF-8.
    clean = text.getvalue().encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    write_bytes(path, clean.encode("utf-8"))


def counts_by_class(
    dataset: Dataset, detections: Mapping[ImageId, Detections], min_score: float
) -> list[tuple[str, int, int]]:
    """Class, number of detections with at least min_score, and number of images with one: all classes, in order."""
    found: Counter[int] = Counter()
    images: Counter[int] = Counter()
    for record in dataset.records:
        one = detections.get(record.image_id)
        labels = [] if one is None else one.labels[one.scores >= min_score].tolist()
        found.update(labels)
        images.update(set(labels))
    return [(name, found[label], images[label]) for label, name in enumerate(dataset.classes, start=1)]
