"""Label Studio: tasks with predictions, and its JSON export with annotations.

A task has the labels as one prediction and the detections as another. A region's id is the key of its object, which
Label Studio keeps. The score of a region is the probability that the label is right; the prediction's score is the
lowest one, so that sorting by it brings the most suspicious images first. Boxes are in percent of the image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from detpipe.datasets.label_studio import (
    LabelStudioFileError,
    read_tasks,
    region_box,
    region_label,
    region_size,
    regions,
    submitted,
)
from detpipe.labels.tools.exchange import (
    KEY,
    Box,
    EditedImage,
    EditedObject,
    Export,
    ExportedImage,
    ToolFileError,
    shares,
)
from detpipe.storage.atomic import write_json

LOCAL_FILES = "/data/local-files/?d="
"""How Label Studio names a file below LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT."""
FROM, TO = "label", "image"
"""The names of the two parts of the labelling interface."""


def write_label_studio(path: Path, export: Export) -> None:
    """Write the tasks. Paths of images begin with the name of their common folder: Label Studio reads no file that
    lies directly in LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT, so this must be the folder above.
    """
    write_json(path, [_task(image, export.folder.name) for image in export.images])


def labelling_interface(classes: Sequence[str]) -> str:
    """The XML of a project's labelling interface."""
    from xml.sax.saxutils import quoteattr

    labels = "\n".join(f"    <Label value={quoteattr(name)}/>" for name in classes)
    return (
        f'<View>\n  <Image name="{TO}" value="$image"/>\n  <RectangleLabels name="{FROM}" toName="{TO}">\n{labels}\n'
        "  </RectangleLabels>\n</View>\n"
    )


def _task(image: ExportedImage, folder: str) -> dict[str, Any]:
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
    address = LOCAL_FILES + quote(f"{folder}/{image.name}")
    return {"data": {"image": address, KEY: image.key}, "predictions": predictions}


def _region(key: str, label: str, box: Box, score: float, size: tuple[int, int]) -> dict[str, Any]:
    x, y, width, height = (100 * share for share in shares(box, size))
    return {
        "id": _region_id(key),
        "type": "rectanglelabels",
        "from_name": FROM,
        "to_name": TO,
        "original_width": size[1],
        "original_height": size[0],
        "image_rotation": 0,
        "score": score,
        "value": {"x": x, "y": y, "width": width, "height": height, "rotation": 0, "rectanglelabels": [label]},
    }


def _region_id(key: str) -> str:
    """The id of a region: Label Studio cuts ids at "#", which names of images may have; two regions then become one."""
    return key.replace("%", "%25").replace("#", "%23")


def read_label_studio(path: Path) -> list[EditedImage]:
    """Read Label Studio's JSON export. A task without a submitted annotation is left out: nobody has looked at it.

    Of several annotations the last one counts. Regions that are not rectangles with a label are ignored; a rotated one
    gives the upright box around it. Raises ToolFileError, which names file and task, InputFileError, FileNotFoundError.
    """
    try:
        tasks = read_tasks(path)
    except LabelStudioFileError as error:
        raise ToolFileError(str(error)) from error
    images = []
    for number, task in enumerate(tasks):
        try:
            one = _edited(task)
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            raise ToolFileError(f"{path}: task {number}: {error}") from error
        if one is not None:
            images.append(one)
    return images


def _edited(task: Mapping[str, Any]) -> EditedImage | None:
    data, annotation = task["data"], submitted(task)
    if annotation is None:
        return None
    name = data.get("image")
    if not isinstance(name, str):
        raise ValueError(f'expected "image" in data, got {str(data)[:100]}')
    objects = []
    for one in regions(annotation):
        label = region_label(one) if one["type"] == "rectanglelabels" else None
        box = None if label is None else region_box(one, region_size(one))
        if label is not None and box is not None:
            key = _text(one.get("id"))
            objects.append(EditedObject(key=None if key is None else unquote(key), label=label, box=box))
    return EditedImage(name=name, key=_text(data.get(KEY)), objects=objects)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
