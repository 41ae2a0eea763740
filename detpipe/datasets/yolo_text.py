"""YOLO's text: a line per object, "class cx cy width height" or "class x1 y1 x2 y2 x3 y3 ...", in shares of the image.

The first form may have a score or the number of a track behind it, which a label does not need. The second is an
outline, or the four corners of a rotated box, maybe with a score; it becomes the upright box around it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from detpipe.datasets.entry import read_number
from detpipe.datasets.image_list import shortest_ids
from detpipe.datasets.object_edits import ObjectEdit
from detpipe.storage.atomic import write_bytes
from detpipe.structures import Dataset, Detections, ImageId

_BEYOND = 0.01
"""Shares may be beyond 0 or 1 by this, because exporters round."""
_LONGEST_LINE = 1 << 20

Shares = tuple[float, float, float, float]


class YoloTextError(ValueError):
    """A line of a label file is wrong. The message begins with its number."""


@dataclass(frozen=True)
class YoloObject:
    """line: its index in the file. number: of its class, from 0. shares: x y width height, x y of the first corner."""

    line: int
    number: int
    shares: Shares


def parse_yolo_text(text: str, n_classes: int | None, *, keypoints: bool = False) -> list[YoloObject]:
    """The objects of a label file. Empty lines are passed over; an empty text gives an empty list.

    n_classes: None if it is not known. keypoints: the columns behind the box are keypoints. Raises YoloTextError.
    """
    found = []
    for index, line in enumerate(text.splitlines()):
        if not line.strip():
            continue
        try:
            found.append(_object(index, line, n_classes, keypoints))
        except ValueError as error:
            raise YoloTextError(f"line {index + 1}: {error}") from error
    return found


def _object(index: int, line: str, n_classes: int | None, keypoints: bool) -> YoloObject:
    if len(line) > _LONGEST_LINE:
        raise ValueError(f"expected an object, got a line of {len(line):,} characters")
    first, *rest = line.split()
    number = read_number(first, "class")
    if number != int(number) or number < 0:
        raise ValueError(f"class: expected a whole number from 0, got {first[:100]}")
    if n_classes is not None and number >= n_classes:
        raise ValueError(f"class: expected a number from 0 to {n_classes - 1}, as there are names, got {first[:100]}")
    values = [read_number(value, "share") for value in rest]
    is_box = len(values) in (4, 5) or (keypoints and len(values) >= 4)
    is_scored_corners = len(values) == 9 and not is_box
    if not is_box and not is_scored_corners and (len(values) < 6 or len(values) % 2):
        raise ValueError(
            "expected class cx cy width height (and a score), or class and at least 3 points x y, got "
            f"{len(values) + 1} columns"
        )
    values = values[:4] if is_box else values[:8] if is_scored_corners else values
    wrong = next((value for value in values if not -_BEYOND <= value <= 1 + _BEYOND), None)
    if wrong is not None:
        raise ValueError(f"expected shares of the image from 0 to 1, got {wrong:g}; divide pixels by the image's size")
    if is_box:
        cx, cy, width, height = values
        if width < 0 or height < 0:
            raise ValueError(f"expected a width and height of 0 or more, got {width:g} and {height:g}")
        shares = (cx - width / 2, cy - height / 2, width, height)
    else:
        xs, ys = values[0::2], values[1::2]
        shares = (min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys))
    return YoloObject(index, int(number), shares)


def yolo_line(number: int, box: Sequence[float], image_size: tuple[int, int]) -> str:
    """The line of a box x1 y1 x2 y2 in pixels. Its numbers are exact to the last bits of float64."""
    height, width = image_size
    x1, y1, x2, y2 = box
    shares = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
    return f"{number} {' '.join(map(repr, map(float, shares)))}"


def edited_yolo_text(
    text: str, objects: Sequence[YoloObject], edits: Sequence[ObjectEdit], names: Sequence[str], size: tuple[int, int]
) -> str:
    """The text with the edits: other lines stay as they are, added objects follow. size: (height, width) in pixels.

    Raises ValueError for a class that is not among the names, which no number stands for.
    """
    lines: list[str | None] = list(text.splitlines())
    for edit in edits:
        if edit.name is not None and edit.name not in names:
            raise ValueError(f"expected a class among the names of the data set, got {edit.name!r}; add it there first")
        number = None if edit.name is None else names.index(edit.name)
        if edit.index is None:
            if number is not None and edit.box is not None:  # as every added object has
                lines.append(yolo_line(number, edit.box, size))
            continue
        one = objects[edit.index]
        if edit.is_removed:
            lines[one.line] = None
        elif edit.box is not None:
            lines[one.line] = yolo_line(one.number if number is None else number, edit.box, size)
        elif number is not None:
            lines[one.line] = " ".join([str(number), *str(lines[one.line]).split()[1:]])
    return "".join(f"{line}\n" for line in lines if line is not None)


def write_yolo_results(
    folder: Path, dataset: Dataset, detections: Mapping[ImageId, Detections], *, min_score: float = 0.0
) -> None:
    """Write labels/NAME.txt of each image: lines of class from 0, cx, cy, width, height in shares, and score.

    NAME is the name of the image file without suffix, or, if two images share it, the path below their common folder.
    detections: by image id; an image without detections of at least min_score gets an empty file. Lines are by
    descending score. Also writes classes.txt: the names in the order of their numbers. Earlier labels are deleted.
    """
    shutil.rmtree(folder / "labels", ignore_errors=True)
    # Without "..", as a name in files of other people may have it.
    paths = {record.path: Path(os.path.normpath(record.path.absolute())) for record in dataset.records}
    files = sorted(set(paths.values()))
    top = os.path.commonpath([path.parent for path in files]) if files else "."
    names = dict(zip(files, shortest_ids([path.relative_to(top) for path in files]), strict=True))
    for record in dataset.records:
        found = detections.get(record.image_id)
        rows = () if found is None else zip(found.boxes.tolist(), found.scores.tolist(), found.labels, strict=True)
        height, width = record.image_size
        lines = []
        for (x1, y1, x2, y2), score, label in rows:
            if score >= min_score:
                shares = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
                lines.append(f"{int(label) - 1} {' '.join(f'{one:.6f}' for one in shares)} {score:.6g}\n")
        write_bytes(folder / "labels" / f"{names[paths[record.path]]}.txt", "".join(lines).encode())
    classes = "".join(f"{name}\n" for name in dataset.classes)
    write_bytes(folder / "classes.txt", classes.encode("utf-8", "surrogateescape"))
