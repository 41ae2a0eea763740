"""CVAT for images 1.1: an XML file of boxes, read and written.

The key of an object is the attribute `detpipe_id` of its box. CVAT keeps attributes that the labels of the task have.
"""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring as parse_xml

from detpipe.datasets.source import read_number
from detpipe.labels.tools.exchange import KEY, EditedImage, EditedObject, Export, ToolFileError
from detpipe.storage.atomic import write_bytes
from detpipe.storage.input_file import read_input

LARGEST = 1 << 28
"""Bytes of the largest file that is read."""
SUSPECT, PROBABILITY = "suspect", "probability"
"""The attributes that say how a label may be wrong, and how probable this is."""


def write_cvat(path: Path, export: Export) -> None:
    """Write the boxes of all labels as CVAT for images 1.1."""
    root = ElementTree.Element("annotations")
    _add(root, "version", "1.1")
    labels = _add(_add(_add(root, "meta"), "task"), "labels")
    for name in export.classes:
        label = _add(labels, "label")
        _add(label, "name", name)
        _add(label, "type", "rectangle")
        attributes = _add(label, "attributes")
        for setting in _attributes():
            attribute = _add(attributes, "attribute")
            for tag, value in setting.items():
                _add(attribute, tag, "\n".join(value) if isinstance(value, list) else str(value))
    for number, image in enumerate(export.images):
        height, width = image.size
        element = _add(root, "image")
        element.attrib.update({"id": str(number), "name": image.name, "width": str(width), "height": str(height)})
        for one in image.objects:
            box = _add(element, "box")
            corners = dict(zip(("xtl", "ytl", "xbr", "ybr"), (f"{value:.2f}" for value in one.box), strict=True))
            box.attrib.update({"label": one.label, "source": "file", "occluded": "0", **corners, "z_order": "0"})
            values = {KEY: one.key}
            if one.suspect is not None:
                values |= {SUSPECT: one.suspect.value, PROBABILITY: f"{one.probability:.3f}"}
            for name, value in values.items():
                _add(box, "attribute", value).set("name", name)
    ElementTree.indent(root)
    write_bytes(
        path, b'<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, encoding="utf-8") + b"\n"
    )


def label_constructor(classes: Sequence[str]) -> str:
    """The labels of the task as JSON, for CVAT's field Raw: without these attributes CVAT drops the keys."""
    return json.dumps(
        [{"name": name, "type": "rectangle", "attributes": _attributes()} for name in classes],
        indent=2,
        ensure_ascii=False,
    )


def _attributes() -> list[dict[str, Any]]:
    return [
        {"name": name, "input_type": "text", "mutable": False, "default_value": "", "values": [""]}
        for name in (KEY, SUSPECT, PROBABILITY)
    ]


def read_cvat(path: Path) -> list[EditedImage]:
    """Read CVAT for images 1.1. Shapes that are no boxes are ignored.

    Raises ToolFileError, which names the file and what is wrong, also for a file that defines entities; InputFileError,
    FileNotFoundError.
    """
    expected = "a file of CVAT for images 1.1"
    try:
        root = parse_xml(read_input(path, expected, LARGEST))
    except DefusedXmlException as error:
        raise ToolFileError(
            f"{path}: expected {expected}, got one that defines entities, which may be an attack"
        ) from error
    except ElementTree.ParseError as error:
        raise ToolFileError(f"{path}: expected {expected}, got an error on reading it: {error}") from error
    if root.tag != "annotations" or root.find("track") is not None:
        found = "tracks of CVAT for video" if root.tag == "annotations" else f"<{str(root.tag)[:100]}>"
        raise ToolFileError(f"{path}: expected {expected}, got {found}; export the task as CVAT for images 1.1")
    images = []
    for element in root.iter("image"):
        name = element.get("name")
        if not name:
            raise ToolFileError(f"{path}: expected a name of each image, got an image without")
        try:
            objects = [_object(box) for box in element.iter("box")]
        except ValueError as error:
            raise ToolFileError(f"{path}: image {name}: {error}") from error
        images.append(EditedImage(name=name, key=None, objects=objects))
    return images


def _object(box: ElementTree.Element) -> EditedObject:
    label = (box.get("label") or "").strip()
    if not label:
        raise ValueError("expected a label of each box, got a box without")
    x1, y1, x2, y2 = (read_number(box.get(side), side) for side in ("xtl", "ytl", "xbr", "ybr"))
    keys = [(one.text or "").strip() for one in box.iter("attribute") if one.get("name") == KEY]
    return EditedObject(key=keys[0] if keys and keys[0] else None, label=label, box=(x1, y1, x2, y2))


def _add(parent: ElementTree.Element, tag: str, text: str | None = None) -> ElementTree.Element:
    child = ElementTree.SubElement(parent, tag)
    child.text = text
    return child
