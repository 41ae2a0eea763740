"""Reader of Label Studio's exports JSON and JSON-MIN: tasks with annotations, whose regions are in percent.

Of several annotations of a task, the last one that was submitted counts. A task without one is left out: nobody has
looked at it. Rotated boxes, ellipses and outlines give the upright boxes around them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from detpipe.datasets.entry import Entry, RawObject
from detpipe.datasets.files_source import FilesSource
from detpipe.datasets.findings import finding
from detpipe.datasets.folder_scan import is_image
from detpipe.datasets.foreign_formats import foreign_hint
from detpipe.datasets.image_finder import UPLOADED, ImageFinder
from detpipe.datasets.parted_source import found_image, size_of_shares
from detpipe.datasets.shapes import Box, around_ellipse, around_points, around_rotated, coordinate
from detpipe.datasets.source import Split
from detpipe.storage.input_json import read_json

logger = logging.getLogger(__name__)

_KINDS = ("rectanglelabels", "polygonlabels", "ellipselabels", "brushlabels", "keypointlabels")
_SHAPES = {"rectangle": "height", "polygon": "points", "ellipse": "radiusX", "brush": "rle", "keypoint": "x"}
"""The kinds of regions without a label, and a key of each that the kinds before it lack."""


class LabelStudioFileError(ValueError):
    """A file is not Label Studio's JSON export."""


@dataclass(kw_only=True)
class LabelStudioSource(FilesSource):
    """JSON exports of Label Studio. Images are found by the last parts of their addresses (/data/upload/1/a.jpg)."""

    SUFFIXES: ClassVar[tuple[str, ...]] = (".json",)
    FORMAT: ClassVar[str] = "Label Studio's JSON"

    @classmethod
    def is_format(cls, start: bytes) -> bool:
        text = start.lstrip(b"\xef\xbb\xbf \r\n\t")
        is_full = b'"annotations"' in text and (b'"result"' in text or b'"data"' in text)
        is_short = b'"original_width"' in text or (b'"annotator"' in text and b'"annotation_id"' in text)
        return text.startswith(b"[") and (is_full or is_short)

    def read_file(self, path: Path, images: ImageFinder) -> Iterator[tuple[Split | None, Entry]]:
        n_open = 0
        for number, task in enumerate(read_tasks(path)):
            what = f"task {str(task.get('id', number))[:20]}"
            try:
                name, annotation = image_name(task), submitted(task)
            except ValueError as error:
                yield None, Entry(what, None, path, fault=finding("broken_annotation", path, f"{what}: {error}"))
                continue
            if annotation is None:
                n_open += 1
            elif name is None:
                fault = finding("broken_annotation", path, f"{what}: expected an image in data, got none")
                yield None, Entry(what, None, path, fault=fault)
            else:
                yield None, self._entry(name, annotation, path, images, what)
        if n_open:
            logger.warning(
                "%s: %d tasks without a submitted annotation are left out; predictions are not read", path, n_open
            )

    def _entry(self, name: str, annotation: Mapping[str, Any], path: Path, images: ImageFinder, what: str) -> Entry:
        own, image, fault = found_image(images, name, path)
        if image is None and UPLOADED.fullmatch(name):
            # The folder of an upload is one of Label Studio; the file may be in any folder here.
            found, image, missing = found_image(images, name.rpartition("/")[2], path)
            own, fault = (found, None) if missing is None else (own, fault)
        objects, notes, stated = [], [], None
        try:
            for region in regions(annotation):
                stated = stated or region_size(region)
                size = size_of_shares(image, stated, self.read_options, self.exif_boxes) or stated
                box = region_box(region, size)
                label = region_label(region)
                if box is None or label is None:
                    kind = str(region.get("type"))[:40]
                    lacks = "box" if box is None else "label"
                    notes.append(finding("object_without_box", path, f"{what}: a {kind} has no {lacks}; left out"))
                    continue
                key = region.get("id")
                x1, y1, x2, y2 = box
                written = (x1, y1, x2 - x1, y2 - y1)
                objects.append(RawObject(label, box, written=written, id=key if isinstance(key, str) else None))
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            fault = fault or finding("broken_annotation", path, f"{what}: {str(error)[:300]}")
            return Entry(own, image, path, (), stated, fault)
        return Entry(own, image, path, tuple(objects), stated, fault, tuple(notes))


def read_tasks(path: Path) -> list[Mapping[str, Any]]:
    """The tasks of a JSON export. Raises LabelStudioFileError, InputFileError, FileNotFoundError."""
    content = read_json(path, "a JSON export of Label Studio")
    if isinstance(content, list) and content and all(map(_is_short, content)):
        return _full_tasks(content)
    if not isinstance(content, list) or not all(
        isinstance(one, dict) and isinstance(one.get("data"), dict) for one in content
    ):
        raise LabelStudioFileError(
            f'{path}: expected a list of tasks with "data", as Label Studio exports it in the format JSON, got '
            f"{str(content)[:100]}{foreign_hint(path)}"
        )
    return content


def _is_short(task: object) -> bool:
    """Whether a task is in the format JSON-MIN."""
    return isinstance(task, dict) and "annotation_id" in task and "data" not in task


def _full_tasks(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The rows of JSON-MIN as tasks of JSON. A row is one annotation, or a task without any (annotation_id null)."""
    tasks: dict[str, dict[str, Any]] = {}
    for number, row in enumerate(rows):
        data = {key: value for key, value in row.items() if isinstance(value, str)}
        own: dict[str, Any] = {"id": row.get("id"), "data": data, "annotations": []}
        task = tasks.setdefault(str(row.get("id", f"row {number}")), own)
        if row["annotation_id"] is not None:
            task["annotations"].append({"id": row["annotation_id"], "result": _results(row)})
    return list(tasks.values())


def _results(row: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The regions in a row of JSON-MIN as results of JSON."""
    return [
        {"type": kind, "value": one, **{key: value for key, value in one.items() if key.startswith("original_")}}
        for some in row.values()
        for one in (some if isinstance(some, list) else ())
        if isinstance(one, dict) and (kind := next((key for key in one if key.endswith("labels")), None)) is not None
    ]


def submitted(task: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The newest annotation of a task that was not cancelled; None without one. Raises ValueError for other content.

    That is the one with the greatest id: JSON-MIN has the newest one first, and JSON has them in the database's order.
    """
    some = task.get("annotations") or []
    if not isinstance(some, list) or not all(isinstance(one, dict) for one in some):
        raise ValueError(f"expected a list of annotations, got {str(some)[:100]}")
    done = [one for one in some if not one.get("was_cancelled")]
    done.sort(key=lambda one: one["id"] if type(one.get("id")) is int else 0)
    return done[-1] if done else None


def image_name(task: Mapping[str, Any]) -> str | None:
    """The address of the image: `image` of the data, else the first text that is the address of a picture."""
    data = task["data"]
    name = data.get("image")
    if isinstance(name, str) and name:
        return name
    return next((one for one in data.values() if isinstance(one, str) and is_image(one)), None)


def regions(annotation: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The regions of an annotation that are shapes: each with its label as `rectanglelabels` and the like.

    With the tags Rectangle and Labels, a region and its label are two results with one id; both have the shape. Raises
    ValueError for other content.
    """
    result = annotation.get("result") or []
    if not isinstance(result, list) or not all(isinstance(one, dict) for one in result):
        raise ValueError(f"expected a list of regions, got {str(result)[:100]}")
    labelled = {str(one.get("id")) for one in result if str(one.get("type")).endswith("labels")}
    for one in result:
        kind, value = one.get("type"), one.get("value")
        if kind == "labels" and isinstance(value, dict):
            shape = next((shape for shape, key in _SHAPES.items() if key in value), None)
            if shape is not None:
                yield {**one, "type": f"{shape}labels", "value": {**value, f"{shape}labels": value.get("labels")}}
        elif kind in _SHAPES and str(one.get("id")) not in labelled:
            yield {**one, "type": f"{kind}labels"}
        elif kind in _KINDS:
            yield one


def region_label(region: Mapping[str, Any]) -> str | None:
    """The first label of a region; None without one."""
    labels = region["value"].get(region["type"]) or []
    return str(labels[0]) if labels else None


def region_size(region: Mapping[str, Any]) -> tuple[int, int]:
    """(height, width) of the image as the region states it. Raises ValueError if it does not."""
    height, width = (
        int(coordinate(region.get(f"original_{side}"), f"original_{side}")) for side in ("height", "width")
    )
    if height < 1 or width < 1:
        raise ValueError(f"original_width and original_height: expected at least 1, got {width} and {height}")
    return height, width


def region_box(region: Mapping[str, Any], size: tuple[int, int]) -> Box | None:
    """The upright box around a region in pixels of an image of `size` (height, width); None for other regions.

    A rectangle is rotated around its first corner, clockwise, in degrees. Raises ValueError for wrong values.
    """
    if coordinate(region.get("image_rotation") or 0, "image_rotation") % 360:
        raise ValueError("image_rotation: expected 0, got a rotated image; rotate the file and label it again")
    value, (height, width) = region["value"], size

    def pixels(key: str, side: int) -> float:
        return coordinate(value.get(key), key) / 100 * side

    degrees = coordinate(value.get("rotation") or 0, "rotation")
    if region["type"] == "rectanglelabels":
        x, y, w, h = pixels("x", width), pixels("y", height), pixels("width", width), pixels("height", height)
        return around_rotated((x, y, x + w, y + h), degrees, (x, y))
    if region["type"] == "ellipselabels":
        radii = pixels("radiusX", width), pixels("radiusY", height)
        return around_ellipse(pixels("x", width), pixels("y", height), *radii, degrees)
    if region["type"] == "polygonlabels":
        points = [(coordinate(x, "x"), coordinate(y, "y")) for x, y in value["points"]]
        return around_points([(x / 100 * width, y / 100 * height) for x, y in points])
    return None
