"""FiftyOne: labels.json of its format FiftyOneImageDetectionDataset, read and written.

`labels` has the labels of each image, by its path without suffix; `missing` and `detections` have boxes of the model in
the same form. A box is x, y, width, height in shares of the image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from detpipe.datasets.entry import read_number
from detpipe.datasets.folder_scan import without_suffix
from detpipe.labels.tools.exchange import (
    KEY,
    EditedImage,
    EditedObject,
    Export,
    Proposed,
    ToolFileError,
    shares,
)
from detpipe.storage.atomic import write_json
from detpipe.storage.input_json import read_json


def write_fiftyone(path: Path, export: Export) -> None:
    """Write the labels, and the model's boxes beside them."""
    labels: dict[str, list[dict[str, Any]]] = {}
    missing: dict[str, list[dict[str, Any]]] = {}
    detections: dict[str, list[dict[str, Any]]] = {}
    for image in export.images:
        name = without_suffix(image.name)
        labels[name] = []
        for one in image.objects:
            doubt = {} if one.suspect is None else {"suspect": one.suspect.value, "probability": one.probability}
            labels[name].append(
                {
                    "label": one.label,
                    "bounding_box": list(shares(one.box, image.size)),
                    "attributes": {KEY: one.key, **doubt},
                }
            )
        missing[name] = _proposed(image.missing, image.size)
        detections[name] = _proposed(image.detections, image.size)
    write_json(
        path,
        {"classes": list(export.classes), "labels": labels, "missing": missing, "detections": detections},
    )


def _proposed(some: Sequence[Proposed], size: tuple[int, int]) -> list[dict[str, Any]]:
    return [{"label": one.label, "bounding_box": list(shares(one.box, size)), "confidence": one.score} for one in some]


def read_fiftyone(path: Path) -> list[EditedImage]:
    """Read labels.json. The file has no sizes, so boxes are shares. A label may be a name or an index in `classes`.

    Raises ToolFileError, which names file and image, InputFileError, FileNotFoundError.
    """
    content = read_json(path, "labels.json of a FiftyOneImageDetectionDataset")
    labels = content.get("labels") if isinstance(content, dict) else None
    if not isinstance(labels, dict):
        raise ToolFileError(f'{path}: expected {{"classes": [...], "labels": {{...}}}}, got {str(content)[:100]}')
    classes = content.get("classes") or []
    images = []
    for name, some in labels.items():
        try:
            objects = [_object(one, classes) for one in some or []]
        except (ValueError, TypeError, AttributeError, IndexError) as error:
            raise ToolFileError(f"{path}: image {name[:200]}: {error}") from error
        images.append(EditedImage(name=name, key=None, objects=objects, are_shares=True))
    return images


def _object(one: Mapping[str, Any], classes: Sequence[str]) -> EditedObject:
    label, values = one.get("label"), one.get("bounding_box")
    if isinstance(label, int) and not isinstance(label, bool):
        label = classes[label]
    if not isinstance(label, str) or not isinstance(values, list) or len(values) != 4:
        raise ValueError(f"expected label and bounding_box [x, y, width, height], got {str(one)[:100]}")
    x, y, width, height = (read_number(value, "bounding_box") for value in values)
    attributes = one.get("attributes")
    key = attributes.get(KEY) if isinstance(attributes, dict) else None
    return EditedObject(
        key=key if isinstance(key, str) and key else None, label=label, box=(x, y, x + width, y + height)
    )
