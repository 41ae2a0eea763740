"""A COCO file of labels for other tools, and such a file as they write it back.

The key of an object is the field `detpipe_id` of its annotation, and again in `attributes`, which CVAT keeps. Ids are
numbers from 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from detpipe.datasets.coco import CocoFileError, records_of_objects
from detpipe.datasets.coco_ids import number_of, plain_id
from detpipe.datasets.coco_object import rotation_of, upright_box
from detpipe.datasets.entry import read_number
from detpipe.labels.tools.exchange import KEY, EditedImage, EditedObject, Export, ToolFileError
from detpipe.storage.atomic import write_json
from detpipe.storage.input_json import read_json


def write_coco_labels(path: Path, export: Export) -> None:
    """Write the labels. Each annotation also has `suspect` and `probability`, if the label is suspected."""
    numbers = {name: number for number, name in enumerate(export.classes, start=1)}
    annotations: list[dict[str, Any]] = []
    for image_id, image in enumerate(export.images, start=1):
        for one in image.objects:
            x1, y1, x2, y2 = one.box
            doubt = {} if one.suspect is None else {"suspect": one.suspect.value, "probability": one.probability}
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": numbers[one.label],
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": 0,
                    "segmentation": [],
                    KEY: one.key,
                    "attributes": {KEY: one.key, **doubt},
                    **doubt,
                }
            )
    images = [
        {"id": number, "file_name": one.name, "height": one.size[0], "width": one.size[1], KEY: one.key}
        for number, one in enumerate(export.images, start=1)
    ]
    categories = [{"id": number, "name": name} for name, number in numbers.items()]
    write_json(path, {"images": images, "categories": categories, "annotations": annotations})


def read_coco_labels(path: Path) -> list[EditedImage]:
    """Read a COCO instances file. Annotations without a box are ignored.

    Raises ToolFileError, which names file and annotation, InputFileError, FileNotFoundError.
    """
    content = read_json(path, "a COCO JSON file")
    if not isinstance(content, dict) or "images" not in content or "annotations" not in content:
        raise ToolFileError(f"{path}: expected a COCO file with images and annotations, got {str(content)[:100]}")
    try:
        records = records_of_objects(content)
    except CocoFileError as error:
        raise ToolFileError(f"{path}: {error}") from error
    names = {number_of(one.get("id")): str(one.get("name")).strip() for one in content.get("categories") or []}
    images = []
    for image in content["images"]:
        name = image.get("file_name")
        if not isinstance(name, str) or not name:
            raise ToolFileError(f"{path}: expected a file_name of each image, got {str(image)[:100]}")
        objects = []
        for one in records[plain_id(image.get("id"))]:  # type: ignore[index]
            try:
                objects.append(_object(one, names))
            except (ValueError, TypeError) as error:
                raise ToolFileError(f"{path}: annotation {str(one.get('id'))[:100]}: {error}") from error
        images.append(EditedImage(name=name, key=_text(image.get(KEY)), objects=objects))
    return images


def _object(record: Mapping[str, Any], names: Mapping[int | None, str]) -> EditedObject:
    label, bbox = names.get(number_of(record.get("category_id"))), record.get("bbox")
    if label is None:
        raise ValueError(f"expected a category_id of the file's categories, got {str(record.get('category_id'))[:100]}")
    if not isinstance(bbox, list) or len(bbox) != 4:
        raise ValueError(f"expected bbox [x, y, width, height], got {str(bbox)[:100]}")
    x, y, width, height = (read_number(value, "bbox") for value in bbox)
    x, y, width, height = upright_box((x, y, width, height), rotation_of(record))
    attributes = record.get("attributes")
    inner = attributes.get(KEY) if isinstance(attributes, dict) else None
    return EditedObject(key=_text(record.get(KEY)) or _text(inner), label=label, box=(x, y, x + width, y + height))


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
