"""Reader of VIA's JSON (VGG Image Annotator 1 and 2): projects and exported annotations, with classes as attributes.

The attributes of regions have any names. The class is the value of the only one, or of the one that the user names.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from detpipe.datasets.entry import Entry, RawObject
from detpipe.datasets.files_source import FilesSource
from detpipe.datasets.findings import finding
from detpipe.datasets.image_finder import ImageFinder
from detpipe.datasets.parted_source import found_image
from detpipe.datasets.sample_json import WITHOUT_CLASS
from detpipe.datasets.shapes import Box, around_ellipse, around_points, coordinate
from detpipe.datasets.source import Split
from detpipe.storage.input_json import read_json

Region = Mapping[str, Any]


class ViaFileError(ValueError):
    """A file is not VIA's JSON, or its regions have several attributes."""


@dataclass(kw_only=True)
class ViaSource(FilesSource):
    """JSON files of VIA, the VGG Image Annotator: projects and exported annotations."""

    SUFFIXES: ClassVar[tuple[str, ...]] = (".json",)
    FORMAT: ClassVar[str] = "VIA's JSON"

    attribute: str | None = None
    """The attribute of the regions that has the class; null: the only one. Without any, the class is "object"."""

    @classmethod
    def is_format(cls, start: bytes) -> bool:
        is_annotations = b'"filename"' in start and b'"regions"' in start and b'"size"' in start
        return start.lstrip().startswith(b"{") and (b'"_via_' in start or is_annotations)

    def read_file(self, path: Path, images: ImageFinder) -> Iterator[tuple[Split | None, Entry]]:
        found = read_via(path)
        attribute = self.attribute or _only_attribute(path, [one for _, regions in found for one in regions])
        for name, regions in found:
            own, image, fault = found_image(images, name, path)
            objects, notes = [], []
            try:
                for region in regions:
                    shape = region["shape_attributes"]
                    kind, box, label = str(shape.get("name"))[:40], _box(shape), _label(region, attribute)
                    if box is not None and label:
                        objects.append(RawObject(label, box))
                    else:
                        lacks = "box" if box is None else "class"
                        detail = f"image {name[:200]}: a {kind} has no {lacks}; left out"
                        notes.append(finding("object_without_box", path, detail))
            except ValueError as error:
                objects, fault = [], fault or finding("broken_annotation", path, f"image {name[:200]}: {error}")
            yield None, Entry(own, image, path, tuple(objects), fault=fault, notes=tuple(notes))


def read_via(path: Path) -> list[tuple[str, list[Region]]]:
    """The name of each image, and its regions. Raises ViaFileError, InputFileError, FileNotFoundError."""
    content = read_json(path, "VIA's JSON")
    images = content.get("_via_img_metadata", content) if isinstance(content, dict) else None
    found = []
    for image in images.values() if isinstance(images, dict) else [None]:
        name, regions = (image.get("filename"), image.get("regions") or []) if isinstance(image, dict) else (None, None)
        some = list(regions.values()) if isinstance(regions, dict) else regions  # VIA 1 numbers them
        if not isinstance(name, str) or not name or not isinstance(some, list) or not all(map(_is_region, some)):
            raise ViaFileError(
                f"{path}: expected VIA's JSON, images with filename and regions, got {str(image or content)[:100]}"
            )
        found.append((name, some))
    return found


def _is_region(one: object) -> bool:
    if not isinstance(one, dict) or not isinstance(one.get("shape_attributes"), dict):
        return False
    return isinstance(one.setdefault("region_attributes", {}), dict)


def _only_attribute(path: Path, regions: Sequence[Region]) -> str | None:
    """The name of the attribute that regions have; None without one. Raises ViaFileError for several."""
    names = list(dict.fromkeys(str(name) for one in regions for name in one["region_attributes"]))
    if len(names) > 1:
        raise ViaFileError(
            f"{path}: expected one attribute of regions, got {', '.join(names)[:200]}; give the one with the class: "
            f"dataset.attribute={names[0]}"
        )
    return names[0] if names else None


def _label(region: Region, attribute: str | None) -> str:
    """The class of a region; "" if it has none."""
    if attribute is None:
        return WITHOUT_CLASS
    value = region["region_attributes"].get(attribute)
    if isinstance(value, dict):  # checkboxes
        value = next((name for name, chosen in value.items() if chosen), None)
    return "" if value is None else str(value).strip()


def _box(shape: Mapping[str, Any]) -> Box | None:
    """The upright box around a shape; None for a point. Raises ValueError, which says what is wrong."""

    def numbers(*names: str) -> list[float]:
        return [coordinate(shape.get(name), name) for name in names]

    kind = shape.get("name")
    if kind == "rect":
        x, y, width, height = numbers("x", "y", "width", "height")
        return x, y, x + width, y + height
    if kind == "circle":
        cx, cy, radius = numbers("cx", "cy", "r")
        return around_ellipse(cx, cy, radius, radius)
    if kind == "ellipse":
        cx, cy, rx, ry = numbers("cx", "cy", "rx", "ry")
        return around_ellipse(cx, cy, rx, ry, math.degrees(coordinate(shape.get("theta") or 0, "theta")))
    if kind in ("polygon", "polyline"):
        xs, ys = shape.get("all_points_x"), shape.get("all_points_y")
        if not isinstance(xs, list) or not isinstance(ys, list) or len(xs) != len(ys):
            raise ValueError(f"expected all_points_x and all_points_y of equal length, got {str(xs)[:50]}")
        return around_points([(coordinate(x, "points"), coordinate(y, "points")) for x, y in zip(xs, ys, strict=True)])
    return None
