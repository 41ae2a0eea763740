"""Writes detections as a complete COCO data set (images, categories, annotations) for FiftyOne, CVAT, Label Studio.

Requirements beyond COCO's own: CVAT (Datumaro) needs integer ids, no category 0, `iscrowd`, and an empty `segmentation`
to read an annotation as a box. Label Studio's converter needs the image sizes and a score.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from detpipe.storage.atomic import replaced
from detpipe.structures import Dataset, Detections, ImageId, ImageRecord


def write_coco_dataset(
    path: Path, dataset: Dataset, detections: Mapping[ImageId, Detections], *, min_score: float = 0.0
) -> Path:
    """Write the file atomically. Returns the folder that the file names in it are relative to.

    detections: by image id. An image without an entry has no detections; it is still listed in the file. Detections
    with a score below `min_score` are left out. Image and category ids are the data set's own if all are integers
    from 1; otherwise they are numbered from 1. Equal detections give equal bytes, wherever the images are.
    """
    root = common_folder(dataset.records)
    image_ids = _whole_numbers([record.image_id for record in dataset.records])
    category_ids = _whole_numbers(dataset.category_ids)
    parts: dict[str, Iterable[dict[str, Any]]] = {
        "images": _images(dataset.records, image_ids, root),
        "categories": [{"id": one, "name": name} for one, name in zip(category_ids, dataset.classes, strict=True)],
        "annotations": _annotations(dataset.records, image_ids, category_ids, detections, min_score),
    }
    with replaced(path) as scratch, scratch.open("w", encoding="utf-8") as file:
        file.write(json.dumps({"info": {"description": f"{dataset.name}, found by detpipe"}}).removesuffix("}"))
        for name, rows in parts.items():
            # Streamed, one line each: an image may have a hundred annotations.
            lines = (f"{',' if number else ''}\n{json.dumps(row, allow_nan=False)}" for number, row in enumerate(rows))
            file.write(f',\n"{name}": [')
            file.writelines(lines)
            file.write("\n]")
        file.write("\n}\n")
    return root


def _images(records: Sequence[ImageRecord], image_ids: Sequence[int], root: Path) -> Iterator[dict[str, Any]]:
    for record, image_id in zip(records, image_ids, strict=True):
        height, width = record.image_size
        name = record.path.absolute().relative_to(root).as_posix()
        yield {"id": image_id, "file_name": name, "height": height, "width": width}


def _annotations(
    records: Sequence[ImageRecord],
    image_ids: Sequence[int],
    category_ids: Sequence[int],
    detections: Mapping[ImageId, Detections],
    min_score: float,
) -> Iterator[dict[str, Any]]:
    """Annotations in the order of the images, then by descending score; ids count from 1."""
    number = 0
    for record, image_id in zip(records, image_ids, strict=True):
        for (x1, y1, x2, y2), score, label in _rows(detections.get(record.image_id), min_score):
            number += 1
            yield {
                "id": number,
                "image_id": image_id,
                "category_id": category_ids[label - 1],
                "bbox": [round(x1, 2), round(y1, 2), round(x2 - x1, 2), round(y2 - y1, 2)],
                "area": round((x2 - x1) * (y2 - y1), 2),
                "iscrowd": 0,
                "segmentation": [],
                "score": float(f"{score:.6g}"),
            }


def common_folder(records: Sequence[ImageRecord]) -> Path:
    """The deepest folder that contains all images; the working directory if there are no images."""
    folders = [record.path.absolute().parent for record in records]
    return Path(os.path.commonpath(folders)) if folders else Path.cwd()


def _whole_numbers(ids: Sequence[ImageId]) -> list[int]:
    """The ids, or 1, 2, ... if one of them is not an integer from 1, which some tools refuse."""
    numbers = [one for one in ids if isinstance(one, int) and one >= 1]
    return numbers if len(numbers) == len(ids) else list(range(1, len(ids) + 1))


def _rows(found: Detections | None, min_score: float) -> list[tuple[list[float], float, int]]:
    """Box, score and label of each detection with a score of at least `min_score`, by descending score."""
    if found is None:
        return []
    rows = zip(found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True)
    return [(box, score, label) for box, score, label in rows if score >= min_score]
