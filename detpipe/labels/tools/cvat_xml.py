"""CVAT for images 1.1: an XML file of boxes, read and written.

The key of an object is the attribute `detpipe_id` of its box. CVAT keeps attributes that the labels of the task have.
"""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detpipe.datasets.cvat import CvatFileError, CvatImage, CvatShape, read_cvat_xml
from detpipe.labels.tools.exchange import KEY, EditedImage, EditedObject, Export, ToolFileError
from detpipe.storage.atomic import write_bytes

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
    """Read CVAT for images 1.1. Shapes that are not boxes are ignored; a rotated box gives the upright box around it.

    Raises ToolFileError, which names the file and what is wrong, also for a file that defines entities; InputFileError,
    FileNotFoundError.
    """
    try:
        found = read_cvat_xml(path)[1]
    except CvatFileError as error:
        raise ToolFileError(str(error)) from error
    for image in found:
        if image.fault is not None:
            raise ToolFileError(f"{path}: image {image.name}: {image.fault}")
    return [EditedImage(name=one.name, key=None, objects=list(map(_object, _boxes(one)))) for one in found]


def _boxes(image: CvatImage) -> list[CvatShape]:
    return [one for one in image.shapes if one.kind == "box"]


def _object(box: CvatShape) -> EditedObject:
    assert box.box is not None  # of every shape of this kind
    return EditedObject(key=box.attributes.get(KEY) or None, label=box.label, box=box.box)


def _add(parent: ElementTree.Element, tag: str, text: str | None = None) -> ElementTree.Element:
    child = ElementTree.SubElement(parent, tag)
    child.text = text
    return child
