"""What was found as a whole COCO data set, for FiftyOne, CVAT and Label Studio: images, categories, annotations.

What each of them needs beside COCO's own: CVAT (Datumaro) whole numbers as ids, no category 0, `iscrowd`, and an empty
`segmentation` for a box to be a box; Label Studio's converter the sizes of images, and a score.
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
    """Write the file, whole or not at all; returns the folder that the file names in it are relative to.

    detections: from image id; an image that isn't there has none, but stands in the file. Those below `min_score` are
    left out. Ids of images and categories are the data set's own where all are whole numbers from 1, else they count
    from 1. The same detections give the same bytes, wherever the images are.
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
            # A line each, as they come: there may be a hundred in every image.
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
    """In the order of the images, then best first; ids from 1."""
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
    """The deepest folder that holds all images; the working directory where there are none."""
    folders = [record.path.absolute().parent for record in records]
    return Path(os.path.commonpath(folders)) if folders else Path.cwd()


def _whole_numbers(ids: Sequence[ImageId]) -> list[int]:
    """The ids, or 1, 2, ... where one is no whole number from 1: a tool may refuse it."""
    numbers = [one for one in ids if isinstance(one, int) and one >= 1]
    return numbers if len(numbers) == len(ids) else list(range(1, len(ids) + 1))


def _rows(found: Detections | None, min_score: float) -> list[tuple[list[float], float, int]]:
    """Box, score and label of each detection from `min_score` up, best first."""
    if found is None:
        return []
    rows = zip(found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True)
    return [(box, score, label) for box, score, label in rows if score >= min_score]
