"""Reader of CVAT for images 1.1: an XML file of boxes, outlines, ellipses and masks, each with a label.

A rotated box or ellipse gives the upright box around it. `occluded` has no effect. Points, cuboids and skeletons are
left out and named.
"""

from __future__ import annotations

import functools
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring as parse_xml

from detpipe.datasets.entry import Entry, RawObject
from detpipe.datasets.files_source import FilesSource
from detpipe.datasets.findings import finding
from detpipe.datasets.image_finder import ImageFinder
from detpipe.datasets.parted_source import found_image
from detpipe.datasets.shapes import Box, around_ellipse, around_points, around_rotated, coordinate
from detpipe.datasets.source import Split
from detpipe.datasets.voc_folder import SPLIT_FOLDERS
from detpipe.storage.input_file import read_input

LARGEST = 1 << 28
"""Bytes of the largest file that is read."""
_EXPECTED = "a file of CVAT for images 1.1"
_SHAPES = ("box", "polygon", "polyline", "ellipse", "mask", "points", "cuboid", "skeleton")
_WITHOUT_BOX = ("points", "cuboid", "skeleton")


class CvatFileError(ValueError):
    """A file is not one of CVAT for images 1.1."""


@dataclass(frozen=True)
class CvatShape:
    """kind: its tag. box: x1 y1 x2 y2 in pixels, None for a shape without one. attributes: texts by name."""

    kind: str
    label: str
    box: Box | None
    attributes: dict[str, str]


@dataclass(frozen=True)
class CvatImage:
    """size: (height, width) as stated. subset: the name of its split, or "". fault: why its shapes can't be read."""

    name: str
    size: tuple[int, int] | None
    subset: str
    shapes: tuple[CvatShape, ...]
    fault: str | None


@dataclass(kw_only=True)
class CvatSource(FilesSource):
    """XML files of CVAT for images 1.1. The subset of an image is its split if it is called train, val or test."""

    SUFFIXES: ClassVar[tuple[str, ...]] = (".xml",)
    FORMAT: ClassVar[str] = "CVAT for images 1.1"

    @classmethod
    def is_format(cls, start: bytes) -> bool:
        return b"<annotations" in start

    def declared_classes(self) -> Sequence[str]:
        return list(dict.fromkeys(name for _, path, _ in self.files for name in self._read(path)[0]))

    def read_file(self, path: Path, images: ImageFinder) -> Iterator[tuple[Split | None, Entry]]:
        for one in self._read(path)[1]:
            # The export of a project has a folder for each subset, with images of the same name.
            name, image, fault = found_image(images, f"{one.subset}/{one.name}" if one.subset else one.name, path)
            if image is None and one.subset:
                name, image, fault = found_image(images, one.name, path)
            if one.fault is not None:
                fault = fault or finding("broken_annotation", path, f"image {one.name[:200]}: {one.fault}")
            notes = tuple(
                finding("object_without_box", path, f"image {one.name[:200]}: a {shape.kind} has no box; left out")
                for shape in one.shapes
                if shape.box is None
            )
            objects = tuple(RawObject(shape.label, shape.box) for shape in one.shapes if shape.box is not None)
            split = SPLIT_FOLDERS.get(one.subset.lower())
            yield split, Entry(name, image, path, () if fault else objects, one.size, fault, notes)

    @functools.cached_property
    def _contents(self) -> dict[Path, tuple[list[str], list[CvatImage]]]:
        return {}

    def _read(self, path: Path) -> tuple[list[str], list[CvatImage]]:
        if path not in self._contents:
            self._contents[path] = read_cvat_xml(path)
        return self._contents[path]


def read_cvat_xml(path: Path) -> tuple[list[str], list[CvatImage]]:
    """The labels of the task in order, if the file has them, and the images.

    Raises CvatFileError, which names the file and what is wrong, also for a file that defines entities; InputFileError,
    FileNotFoundError.
    """
    try:
        root = parse_xml(read_input(path, _EXPECTED, LARGEST))
    except DefusedXmlException as error:
        raise CvatFileError(
            f"{path}: expected {_EXPECTED}, got one that defines entities, which may be an attack"
        ) from error
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise CvatFileError(f"{path}: expected {_EXPECTED}, got an error on reading it: {error}") from error
    if root.tag != "annotations" or root.find("track") is not None:
        found = "tracks of CVAT for video" if root.tag == "annotations" else f"<{str(root.tag)[:100]}>"
        raise CvatFileError(f"{path}: expected {_EXPECTED}, got {found}; export the task as CVAT for images 1.1")
    labels = [(one.text or "").strip() for one in root.iterfind("meta//labels/label/name")]
    images = []
    for element in root.iter("image"):
        if not element.get("name"):
            raise CvatFileError(f"{path}: expected a name of each image, got an image without")
        images.append(_image(element))
    return [name for name in dict.fromkeys(labels) if name], images


def _image(element: ElementTree.Element) -> CvatImage:
    name, subset = element.get("name") or "", element.get("subset") or ""
    try:
        height, width = (round(coordinate(element.get(side), side)) for side in ("height", "width"))
        size = (height, width) if 0 < height < 1 << 31 and 0 < width < 1 << 31 else None
    except ValueError:
        size = None
    try:
        shapes = tuple(_shape(one) for one in element if one.tag in _SHAPES and one.get("outside") != "1")
    except ValueError as error:
        return CvatImage(name, size, subset, (), str(error))
    return CvatImage(name, size, subset, shapes, None)


def _shape(element: ElementTree.Element) -> CvatShape:
    kind, label = str(element.tag), (element.get("label") or "").strip()
    if not label:
        raise ValueError(f"expected a label of each {kind}, got a {kind} without")
    attributes = {one.get("name") or "": (one.text or "").strip() for one in element.iter("attribute")}
    return CvatShape(kind, label, None if kind in _WITHOUT_BOX else _box(element), attributes)


def _box(element: ElementTree.Element) -> Box:
    def numbers(*names: str) -> list[float]:
        return [coordinate(element.get(name), name) for name in names]

    degrees = coordinate(element.get("rotation") or 0, "rotation")
    if element.tag == "box":
        x1, y1, x2, y2 = numbers("xtl", "ytl", "xbr", "ybr")
        return around_rotated((x1, y1, x2, y2), degrees, ((x1 + x2) / 2, (y1 + y2) / 2))
    if element.tag == "ellipse":
        cx, cy, rx, ry = numbers("cx", "cy", "rx", "ry")
        return around_ellipse(cx, cy, rx, ry, degrees)
    if element.tag == "mask":
        x, y, width, height = numbers("left", "top", "width", "height")
        return x, y, x + width, y + height
    points = []
    for pair in filter(None, (element.get("points") or "").split(";")):
        x_text, _, y_text = pair.partition(",")
        points.append((coordinate(x_text, "points"), coordinate(y_text, "points")))
    return around_points(points)
