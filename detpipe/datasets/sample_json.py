"""The objects of one image in a JSON file beside it: COCO's annotations of this image alone, as SA-1B has them.

{"image": {"width": 640, "height": 480}, "annotations": [{"bbox": [x, y, width, height], "category": "cat"}]}

The class is the text under category, category_name, label or class. Otherwise it is the name of category_id in
"categories". Without "categories" it is the number itself. An annotation without a class is of the class "object".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detpipe.datasets.coco import parse_categories
from detpipe.datasets.coco_ids import number_of
from detpipe.datasets.coco_object import NoBoxError, parse_object
from detpipe.datasets.entry import RawObject
from detpipe.datasets.findings import Finding, finding

_NAMES = ("category", "category_name", "label", "class")
WITHOUT_CLASS = "object"
"""The class of an object whose annotation names none."""


@dataclass(frozen=True)
class SampleObjects:
    """The objects of one image. stated_size: (height, width), or None. notes: objects that are left out."""

    objects: tuple[RawObject, ...]
    stated_size: tuple[int, int] | None
    notes: tuple[Finding, ...]


def has_objects(content: object) -> bool:
    """Whether JSON is of objects at all. Other programs keep captions and addresses of images in such files."""
    return isinstance(content, dict) and "annotations" in content


def sample_objects(content: Mapping[str, Any], origin: Path) -> SampleObjects:
    """The objects in the content of a JSON file that `has_objects`. No annotations give no objects.

    origin: the file, for notes. Raises ValueError, which says what is wrong, without the file.
    """
    records = content["annotations"]
    if not isinstance(records, list) or not all(isinstance(one, dict) for one in records):
        raise ValueError('expected "annotations" to be a list of objects, got another value')
    given = content.get("categories") or []
    if not isinstance(given, list) or not all(isinstance(one, dict) for one in given):
        raise ValueError('expected "categories" to be a list of objects with id and name, got another value')
    categories = parse_categories(given)
    objects, notes = [], []
    for record in records:
        try:
            objects.append(parse_object({**record, "category_id": 0}, {0: _class_name(record, categories)}))
        except NoBoxError as error:
            notes.append(finding("object_without_box", origin, str(error)))
    image = content.get("image")
    return SampleObjects(tuple(objects), _size(image if isinstance(image, dict) else content), tuple(notes))


def _class_name(record: Mapping[str, Any], categories: Mapping[int, str]) -> str:
    for key in _NAMES:
        name = record.get(key)
        if isinstance(name, str) and name.strip():
            return name.strip()
    if record.get("category_id") is None:
        return WITHOUT_CLASS
    number = number_of(record["category_id"])
    if number is None or (categories and number not in categories):
        raise ValueError(f"expected a category_id of the file's categories, got {str(record['category_id'])[:100]!r}")
    return categories.get(number, str(number))


def _size(image: Mapping[str, Any]) -> tuple[int, int] | None:
    height, width = image.get("height"), image.get("width")
    if type(height) is not int or type(width) is not int or not (0 < height < 1 << 31 and 0 < width < 1 << 31):
        return None
    return height, width
