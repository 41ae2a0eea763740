"""Label Studio: tasks with predictions, and its JSON export with annotations.

A task has the labels as one prediction and the detections as another. A region's id is the key of its object, which
Label Studio keeps. The score of a region is the probability that the label is right; that of the prediction is the
lowest one, so that sorting by it brings the most suspicious images first. Boxes are in percent of the image.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from detpipe.datasets.source import read_number
from detpipe.labels.tools.exchange import (
    KEY,
    Box,
    EditedImage,
    EditedObject,
    Export,
    ExportedImage,
    ToolFileError,
    pixels,
    shares,
)
from detpipe.storage.atomic import write_json
from detpipe.storage.input_json import read_json

LOCAL_FILES = "/data/local-files/?d="
"""How Label Studio names a file below LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT."""
FROM, TO = "label", "image"
"""The names of the two parts of the labelling interface."""


def write_label_studio(path: Path, export: Export) -> None:
    """Write the tasks."""
    write_json(path, [_task(image) for image in export.images])


def labelling_interface(classes: Sequence[str]) -> str:
    """The XML of a project's labelling interface."""
    from xml.sax.saxutils import quoteattr

    labels = "\n".join(f"    <Label value={quoteattr(name)}/>" for name in classes)
    return (
        f'<View>\n  <Image name="{TO}" value="$image"/>\n  <RectangleLabels name="{FROM}" toName="{TO}">\n{labels}\n'
        "  </RectangleLabels>\n</View>\n"
    )


def _task(image: ExportedImage) -> dict[str, Any]:
    labels = [_region(one.key, one.label, one.box, 1 - one.probability, image.size) for one in image.objects]
    missing = [
        _region(f"missing/{image.key}/{number}", one.label, one.box, one.score, image.size)
        for number, one in enumerate(image.missing)
    ]
    found = [
        _region(f"detection/{image.key}/{number}", one.label, one.box, one.score, image.size)
        for number, one in enumerate(image.detections)
    ]
    doubts = [one.probability for one in image.objects] + [one.score for one in image.missing]
    predictions = [{"model_version": "labels", "score": 1 - max(doubts, default=0.0), "result": labels}]
    if missing:
        predictions.append(
            {"model_version": "labels and missing ones", "score": 1 - max(doubts), "result": labels + missing}
        )
    if found:
        score = sum(one.score for one in image.detections) / len(found)
        predictions.append({"model_version": "detections", "score": score, "result": found})
    return {"data": {"image": LOCAL_FILES + quote(image.name), KEY: image.key}, "predictions": predictions}


def _region(key: str, label: str, box: Box, score: float, size: tuple[int, int]) -> dict[str, Any]:
    x, y, width, height = (100 * share for share in shares(box, size))
    return {
        "id": key,
        "type": "rectanglelabels",
        "from_name": FROM,
        "to_name": TO,
        "original_width": size[1],
        "original_height": size[0],
        "image_rotation": 0,
        "score": score,
        "value": {"x": x, "y": y, "width": width, "height": height, "rotation": 0, "rectanglelabels": [label]},
    }


def read_label_studio(path: Path) -> list[EditedImage]:
    """Read Label Studio's JSON export. A task without a submitted annotation is left out: nobody has looked at it.

    Of several annotations the last one counts. Regions that are no rectangles with a label are ignored; a rotated one
    gives the upright box around it. Raises ToolFileError, which names file and task, InputFileError, FileNotFoundError.
    """
    content = read_json(path, "a JSON export of Label Studio")
    if not isinstance(content, list) or not all(
        isinstance(one, dict) and isinstance(one.get("data"), dict) for one in content
    ):
        raise ToolFileError(
            f'{path}: expected a list of tasks with "data", as Label Studio exports it in the format JSON, got '
            f"{str(content)[:100]}"
        )
    images = []
    for number, task in enumerate(content):
        try:
            one = _edited(task)
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            raise ToolFileError(f"{path}: task {number}: {error}") from error
        if one is not None:
            images.append(one)
    return images


def _edited(task: Mapping[str, Any]) -> EditedImage | None:
    data, annotations = task["data"], task.get("annotations") or []
    done = [one for one in annotations if not one.get("was_cancelled")]
    if not done:
        return None
    name, key = data.get("image"), data.get(KEY)
    if not isinstance(name, str):
        raise ValueError(f'expected "image" in data, got {str(data)[:100]}')
    regions = [one for one in done[-1].get("result") or [] if one.get("type") == "rectanglelabels"]
    objects = []
    for one in regions:
        labels = one["value"].get("rectanglelabels") or []
        if labels:
            objects.append(EditedObject(key=_text(one.get("id")), label=str(labels[0]), box=_box(one)))
    return EditedImage(name=name, key=_text(key), objects=objects)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _box(region: Mapping[str, Any]) -> Box:
    """The upright box around a region, which is rotated around its first corner, clockwise, in degrees."""
    value = region["value"]
    size = tuple(int(read_number(region.get(name), name)) for name in ("original_height", "original_width"))
    x, y, width, height = (read_number(value.get(name), name) / 100 for name in ("x", "y", "width", "height"))
    angle = math.radians(read_number(value.get("rotation") or 0, "rotation"))
    x1, y1, x2, y2 = pixels(x, y, width, height, (size[0], size[1]))
    if not angle:
        return x1, y1, x2, y2
    cos, sin = math.cos(angle), math.sin(angle)
    corners = [(dx * cos - dy * sin, dx * sin + dy * cos) for dx in (0, x2 - x1) for dy in (0, y2 - y1)]
    xs, ys = zip(*corners, strict=True)
    return x1 + min(xs), y1 + min(ys), x1 + max(xs), y1 + max(ys)
