"""Reader of MegaDetector's results, the boxes of animals, people and vehicles in photos of camera traps.

Three forms are read:

- MegaDetector's own (https://lila.science/megadetector-output-format), which Timelapse, AddaxAI, SpeciesNet and
  PytorchWildlife's Timelapse export write: `images[].detections[]` with `conf` and [x, y, width, height] as shares of
  the image.
- Microsoft's: a list of `file` and `detections[]` with `confidence` and [x1, y1, x2, y2] in pixels.
- PytorchWildlife's: `annotations[]` with `img_id` and lists `bbox` ([x1, y1, x2, y2] in pixels), `category` and
  `confidence`.
"""

from __future__ import annotations

import logging
import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detpipe.console import amount
from detpipe.storage.input_json import read_json

logger = logging.getLogger(__name__)

ANIMAL = "animal"
"""MegaDetector's category of animals."""
_BEYOND = 0.01
"""Shares may be beyond 0 or 1 by this, because detectors round."""
_LARGEST = 1e15
_EXPECTED = "a MegaDetector result file"


class MegaDetectorFileError(ValueError):
    """A JSON file is not a MegaDetector result file."""


@dataclass(frozen=True)
class FoundBox:
    """One detection. box: x1 y1 x2 y2. category: its name, or its id if the file does not name it."""

    box: tuple[float, float, float, float]
    confidence: float
    category: str


@dataclass(frozen=True)
class FoundImage:
    """The detections of an image, in the order of the file.

    are_shares: the boxes are shares of the width and height of the upright image, not pixels. failure: why the detector
    could not read the image; it then has no boxes. None if it could.
    """

    boxes: tuple[FoundBox, ...]
    are_shares: bool = False
    failure: str | None = None


def read_megadetector(path: Path) -> dict[str, FoundImage]:
    """The images of a file by their names as written. A file without images gives an empty dict.

    Detections of categories that the file does not list are left out, as its specification demands. Videos are left
    out. Raises FileNotFoundError; InputFileError for a file that is not JSON; MegaDetectorFileError, which names the
    file and the first bad image, for other content.
    """
    content = read_json(path, _EXPECTED)
    if not is_megadetector(content):
        raise MegaDetectorFileError(
            f'{path}: expected {_EXPECTED} with "images", "annotations" or a list of images with "file", got '
            f"{reprlib.repr(content)}"
        )
    return parse_megadetector(content, path)


def is_megadetector(content: Any) -> bool:
    """Whether the content of a JSON file has one of the forms, as its first image shows. An empty list has none."""
    if isinstance(content, list):
        return bool(content) and isinstance(content[0], dict) and "file" in content[0]
    if not isinstance(content, dict):
        return False
    if isinstance(content.get("images"), list):
        first = content["images"][:1]
        return "detection_categories" in content or (bool(first) and isinstance(first[0], dict) and "file" in first[0])
    first = content["annotations"][:1] if isinstance(content.get("annotations"), list) else []
    return bool(first) and isinstance(first[0], dict) and "img_id" in first[0]


def parse_megadetector(content: Any, path: Path) -> dict[str, FoundImage]:
    """As `read_megadetector`, of the content of the file `path`, for which `is_megadetector` is true."""
    found: dict[str, FoundImage] = {}
    n_videos = 0
    if isinstance(content, list):
        images, key, names = content, "file", None
    elif "images" in content:
        images, key, names = content["images"], "file", _names(content.get("detection_categories"), path)
    else:
        categories = content.get("categories") or content.get("det_categories")
        images, key, names = content["annotations"], "img_id", _names(categories, path)
    for number, image in enumerate(images):
        name = image.get(key) if isinstance(image, dict) else None
        if not isinstance(name, str) or not name:
            raise MegaDetectorFileError(
                f'{path}: image {number}: expected an object with its name under "{key}", got {reprlib.repr(image)}'
            )
        if name in found:
            raise MegaDetectorFileError(f"{path}: expected each image once, got {reprlib.repr(name)} twice")
        if image.get("frame_rate") is not None or image.get("frames_processed") is not None:
            n_videos += 1
            continue
        try:
            found[name] = _image(image if key == "file" else _as_rows(image), names)
        except ValueError as error:
            raise MegaDetectorFileError(f"{path}: image {reprlib.repr(name)}: {error}") from error
    if n_videos:
        logger.warning("%s: %s left out; run the detector on their frames", path, amount(n_videos, "videos"))
    return found


def _names(categories: object, path: Path) -> Mapping[str, str] | None:
    """The category names by id; None if the file has none."""
    if categories is None:
        return None
    if isinstance(categories, list):
        categories = {str(number): name for number, name in enumerate(categories)}
    if not isinstance(categories, dict) or not all(isinstance(name, str) and name for name in categories.values()):
        raise MegaDetectorFileError(
            f"{path}: expected detection_categories to be an object of ids and names, got {reprlib.repr(categories)}"
        )
    return categories


def _as_rows(image: Mapping[str, Any]) -> dict[str, Any]:
    """PytorchWildlife's lists of boxes, categories and confidences of an image as one list of detections."""
    boxes = image.get("bbox")
    prefix = "det_" if "det_confidence" in image else ""
    columns = [boxes, image.get(f"{prefix}category"), image.get(f"{prefix}confidence")]
    lengths = {len(column) if isinstance(column, list) else -1 for column in columns}
    if len(lengths) > 1 or -1 in lengths:
        raise ValueError("expected lists bbox, category and confidence of equal length")
    rows: Iterable[tuple[Any, Any, Any]] = zip(*columns, strict=True)
    return {"detections": [{"bbox": box, "category": kind, "confidence": score} for box, kind, score in rows]}


def _image(image: Mapping[str, Any], names: Mapping[str, str] | None) -> FoundImage:
    failure, detections = image.get("failure"), image.get("detections")
    if failure is not None:
        return FoundImage((), failure=str(failure)[:200])
    if not isinstance(detections, list) or not all(isinstance(one, dict) for one in detections):
        raise ValueError(f"expected a list of detections, got {reprlib.repr(detections)}")
    are_shares = any("conf" in one for one in detections)
    boxes = []
    for one in detections:
        category = str(one.get("category"))
        if names is not None and category not in names:
            continue
        confidence = _number(one.get("conf" if are_shares else "confidence"), "conf" if are_shares else "confidence")
        box = _box(one.get("bbox"), are_shares)
        boxes.append(FoundBox(box, confidence, category if names is None else names[category]))
    return FoundImage(tuple(boxes), are_shares)


def _box(value: object, are_shares: bool) -> tuple[float, float, float, float]:
    if not isinstance(value, list) or len(value) != 4:
        raise ValueError(f"expected bbox of four numbers, got {reprlib.repr(value)}")
    x, y, third, fourth = (_number(one, "bbox") for one in value)
    x2, y2 = (x + third, y + fourth) if are_shares else (third, fourth)
    if x2 < x or y2 < y:
        form = "[x, y, width, height]" if are_shares else "[x1, y1, x2, y2]"
        raise ValueError(f"expected bbox {form} with a size of 0 or more, got {value}")
    if are_shares and (min(x, y) < -_BEYOND or max(x2, y2) > 1 + _BEYOND):
        raise ValueError(f"expected bbox [x, y, width, height] as shares of the image from 0 to 1, got {value}")
    return x, y, x2, y2


def _number(value: object, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _LARGEST:
        raise ValueError(f"expected {what} to be a finite number, got {reprlib.repr(value)}")
    return float(value)
