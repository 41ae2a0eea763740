"""The object of an annotation record in a COCO file: its box, or the box around its outline or its rotated box."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Any

from detpipe.datasets.coco_ids import number_of, plain_id
from detpipe.datasets.coco_segmentation import Box, segmentation_box
from detpipe.datasets.entry import FARTHEST, RawObject, read_number
from detpipe.datasets.shapes import around_rotated


class NoBoxError(ValueError):
    """An annotation has neither a box nor a shape, so its object can't be used."""


def parse_object(record: Mapping[str, Any], categories: Mapping[int, str]) -> RawObject:
    """The object of an annotation record. categories: the class names by id.

    Raises NoBoxError if the record has neither a box nor a shape, ValueError for wrong content.
    """
    category, box = record.get("category_id"), record.get("bbox")
    number = number_of(category)
    if number is None or number not in categories:
        raise ValueError(f"expected a category_id that is in the file's categories, got {reprlib.repr(category)}")
    if box is None or box == []:
        written = _shape_box(record.get("segmentation"), categories[number])
    elif isinstance(box, list) and len(box) == 4:
        x, y, width, height = (_coordinate(value) for value in box)
        written = upright_box((x, y, width, height), rotation_of(record))
    else:
        raise ValueError(f"expected bbox [x, y, width, height], got {reprlib.repr(box)}")
    x, y, width, height = written
    return RawObject(
        name=categories[number],
        box=(x, y, x + width, y + height),
        crowd=record.get("iscrowd") in (1, True, "1"),
        area=_area(record.get("area")),
        written=written,
        id=None if (own := plain_id(record.get("id"))) is None else str(own),
    )


def rotation_of(record: Mapping[str, Any]) -> float:
    """The degrees by which CVAT rotated the box around its centre, clockwise; 0 without a rotation."""
    attributes = record.get("attributes")
    value = attributes.get("rotation") if isinstance(attributes, Mapping) else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= 360:
        return 0.0
    return float(value)


def upright_box(box: Box, degrees: float) -> Box:
    """The box around one that is rotated around its centre; both are x y width height."""
    if not degrees % 360:
        return box
    x, y, width, height = box
    x1, y1, x2, y2 = around_rotated((x, y, x + width, y + height), degrees, (x + width / 2, y + height / 2))
    return x1, y1, x2 - x1, y2 - y1


def _shape_box(segmentation: object, name: str) -> tuple[float, float, float, float]:
    lacks = f"object {reprlib.repr(name)} lacks a bbox"
    try:
        box = segmentation_box(segmentation)
    except ValueError as error:
        raise NoBoxError(f"{lacks}; {error}; left out") from error
    if box is None:
        raise NoBoxError(f"{lacks} and a segmentation; left out")
    return box


def _coordinate(value: object) -> float:
    if type(value) in (int, float) and -FARTHEST <= value <= FARTHEST:  # type: ignore[operator]
        return float(value)  # type: ignore[arg-type]
    number = read_number(value, "bbox")
    if abs(number) > FARTHEST:
        raise ValueError(f"bbox: expected pixels, got {number:g}")
    return number


def _area(value: object) -> float | None:
    """The area as in the file, even if it can't be right; None where it is missing or not a number."""
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e30:
        return float(value)
    return None
