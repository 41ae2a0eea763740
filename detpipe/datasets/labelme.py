"""Reader of labelme's JSON files, one for each image: rectangles, polygons, circles and masks with labels.

AnyLabeling and X-AnyLabeling write the same files, with more kinds of shapes.
"""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from detpipe.datasets.entry import Entry, RawObject
from detpipe.datasets.findings import Finding, finding
from detpipe.datasets.folder_scan import suffix_of
from detpipe.datasets.image_finder import ImageFinder
from detpipe.datasets.parted_source import Part, PartedSource, found_image, left_out_pictures
from detpipe.datasets.shapes import Box, around_ellipse, around_points, coordinate
from detpipe.datasets.source import Recognised, Split
from detpipe.datasets.voc_folder import SPLIT_FOLDERS, unwrapped
from detpipe.progress import progress
from detpipe.storage.input_file import open_input
from detpipe.storage.input_json import read_json
from detpipe.storage.stored_file import children, is_existing_folder, is_file, stored_size

logger = logging.getLogger(__name__)

_START, _MOST_READ = 1 << 16, 5
_WITHOUT_BOX = ("point", "points", "line", "linestrip")
"""Shapes without a box. All others, also AnyLabeling's "rotation", are outlines or two corners."""


@dataclass(kw_only=True)
class LabelmeSource(PartedSource):
    """A folder of images and labelme's JSON files, with subfolders. Folders named train, val or test are splits."""

    PATHS: ClassVar[tuple[str, ...]] = ("root", *PartedSource.PATHS)

    root: str
    """The folder of the images and the JSON files."""

    @classmethod
    def recognise(cls, root: Path) -> Recognised | None:
        """See `DatasetSource`. The first JSON files of the folder, and of each folder in it, are looked at."""
        if not is_existing_folder(root):
            return None
        top = unwrapped(root)
        for folder in (top, *filter(is_existing_folder, children(top))):
            files = [path for path in children(folder) if path.suffix == ".json" and is_file(path)][:_MOST_READ]
            file = next(filter(_is_labelme, files), None)
            if file is not None:
                return Recognised({"root": str(root)}, f"labelme: {file.relative_to(root)}")
        return None

    @property
    def name(self) -> str:
        return Path(self.root).name or self.root

    def named_folders(self) -> list[Path]:
        return [Path(self.root)]

    def strays(self) -> list[Finding]:
        """Findings on images without a JSON file, and on pictures that are not read."""
        splits = [split for split in Split if self.has(split)]
        used = {entry.image for split in splits for entry in self.entries(split)}
        bare = [path for path in self._finder.scan.images if path not in used]
        return [
            *(finding("missing_annotation", path, "image without JSON; left out") for path in bare),
            *left_out_pictures([self._finder]),
        ]

    @functools.cached_property
    def _finder(self) -> ImageFinder:
        return ImageFinder(Path(self.root), outside=self.outside)

    def read_parts(self) -> list[Part]:
        root = Path(self.root)
        if not is_existing_folder(root):
            raise FileNotFoundError(
                f"{root}: expected a folder of labelme's files, got no such folder; set dataset.root"
            )
        files = [path for path in self._finder.scan.files if suffix_of(path.name) == ".json"]
        others = [path for path in files if not self._finder.candidates(path.stem) and _is_other(path)]
        if others:
            logger.warning("%s: %d JSON files are not labelme's, as %s; passed over", root, len(others), others[0].name)
            files = sorted({*files} - {*others})
        if not files:
            raise FileNotFoundError(f"{root}: expected labelme's JSON files in the folder, got none; set dataset.root")
        found: dict[Split | None, list[Entry]] = {}
        for path in progress(iter(files), "read labels", total=len(files), unit="files"):
            parts = path.relative_to(root).parts[:-1]
            split = next((SPLIT_FOLDERS[part.lower()] for part in parts if part.lower() in SPLIT_FOLDERS), None)
            found.setdefault(split, []).append(self._entry(path))
        return [Part(split, tuple(entries)) for split, entries in found.items()]

    def _entry(self, path: Path) -> Entry:
        try:
            content = read_json(path, "a JSON file of labelme")
            if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
                raise ValueError(f'expected labelme\'s "shapes", got {str(content)[:100]}')
        except (ValueError, OSError) as error:
            fault = finding("broken_annotation", path, str(error).removeprefix(f"{path}: "))
            return Entry(path.relative_to(self.root).with_suffix("").as_posix(), None, path, fault=fault)
        name, image, missing = self._image(path, content.get("imagePath"))
        try:
            objects, notes = _objects(content["shapes"], path)
        except ValueError as error:
            objects, notes = [], []
            missing = missing or finding("broken_annotation", path, str(error))
        stated = _size(content)
        return Entry(name, image, path, () if missing else tuple(objects), stated, missing, tuple(notes))

    def _image(self, path: Path, written: object) -> tuple[str, Path | None, Finding | None]:
        """The image of a JSON file: the one of its name in its folder, else the one that it names."""
        own = path.relative_to(self.root).with_suffix("").as_posix()
        beside = [one for one in self._finder.candidates(own) if one.parent == path.parent]
        if len(beside) == 1:
            return beside[0].relative_to(self.root).as_posix(), beside[0], None
        name = written if isinstance(written, str) and written else own
        folder = path.parent.relative_to(self.root).as_posix()
        first = found_image(self._finder, f"{folder}/{name}" if folder != "." else name, path)
        return first if first[1] is not None else found_image(self._finder, name, path)


def _is_labelme(path: Path) -> bool:
    try:
        with open_input(path, "a JSON file of labelme") as file:
            start = file.read(_START)
    except (OSError, ValueError):
        return False
    # imageData may come first and be long.
    return start.lstrip().startswith(b"{") and (b'"shapes"' in start or b'"imageData"' in start)


def _is_other(path: Path) -> bool:
    """Whether a file can be read and is not labelme's: a list of classes or settings of another program."""
    try:
        return stored_size(path) > 0 and not _is_labelme(path)
    except OSError:  # named when it is read
        return False


def _size(content: dict[str, Any]) -> tuple[int, int] | None:
    """(height, width) as the file states it; None if it does not."""
    height, width = content.get("imageHeight"), content.get("imageWidth")
    if type(height) is not int or type(width) is not int or not (0 < height < 1 << 31 and 0 < width < 1 << 31):
        return None
    return height, width


def _objects(shapes: Sequence[Any], path: Path) -> tuple[list[RawObject], list[Finding]]:
    """The objects of the shapes, and notes on shapes without a box. Raises ValueError, which says what is wrong.

    Outlines of one label and one group id are parts of one object.
    """
    objects: dict[object, RawObject] = {}
    notes = []
    for number, shape in enumerate(shapes):
        label, box = _shape(shape)
        if box is None:
            kind = str(shape.get("shape_type"))[:40]
            notes.append(finding("object_without_box", path, f"a {kind} has no box; left out"))
            continue
        is_part = shape.get("group_id") is not None and shape.get("shape_type") != "rectangle"
        key = (label, str(shape["group_id"])) if is_part else number
        if key in objects:
            other = objects[key].box
            box = around_points([box[:2], box[2:], other[:2], other[2:]])
        objects[key] = RawObject(label, box, shape.get("difficult") is True)  # as X-AnyLabeling writes it
    return list(objects.values()), notes


def _shape(shape: object) -> tuple[str, Box | None]:
    """Label and box of a shape; None for a point or a line. Raises ValueError, which says what is wrong."""
    if not isinstance(shape, dict):
        raise ValueError(f"expected shapes with label and points, got {str(shape)[:100]}")
    label, kind, points = shape.get("label"), shape.get("shape_type") or "polygon", shape.get("points")
    if not isinstance(label, str) or not label.strip():
        raise ValueError(f"expected a label of each shape, got {str(label)[:100]!r}")
    if not isinstance(points, list) or not all(isinstance(one, list) and len(one) == 2 for one in points):
        raise ValueError(f"expected points [x, y] of {label[:100]!r}, got {str(points)[:100]}")
    return label.strip(), _box(str(kind), [(coordinate(x, "points"), coordinate(y, "points")) for x, y in points])


def _box(kind: str, points: Sequence[tuple[float, float]]) -> Box | None:
    if kind == "circle":
        if len(points) != 2:
            raise ValueError(f"expected centre and edge of a circle, got {len(points)} points")
        (cx, cy), (x, y) = points
        radius = math.hypot(x - cx, y - cy)
        return around_ellipse(cx, cy, radius, radius)
    if kind == "mask":  # its points are the first and the last pixel, so it ends at the far edge of the last
        points = [*points, *((x + 1, y + 1) for x, y in points)]
    return None if kind in _WITHOUT_BOX else around_points(points)
