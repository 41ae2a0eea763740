"""Reader of COCO JSON files with their image folders."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from detpipe.datasets.findings import Finding, finding
from detpipe.datasets.source import DatasetSource, Entry, RawObject, Split, read_number
from detpipe.structures import ImageId


class CocoFileError(ValueError):
    """A JSON file is not a COCO instances file."""


@dataclass(frozen=True)
class CocoFile:
    """The content of one COCO file.

    entries: its images. categories: from id to class name. annotated: whether the file has annotations at all.
    strays: findings for annotations of images that are not in the file.
    """

    path: Path
    entries: tuple[Entry, ...]
    categories: Mapping[int, str]
    annotated: bool
    strays: tuple[Finding, ...]


@dataclass(kw_only=True)
class CocoSource(DatasetSource):
    """COCO JSON files, one per split, each with an image folder. The classes of all files are merged by name."""

    train_json: str | None = None
    """COCO JSON file of the training images."""
    train_images: str | None = None
    """Folder of the training images."""
    val_json: str | None = None
    """COCO JSON file of the validation images."""
    val_images: str | None = None
    """Folder of the validation images."""
    test_json: str | None = None
    """COCO JSON file of the test images."""
    test_images: str | None = None
    """Folder of the test images."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for split in Split:
            file, folder = self._paths(split)
            if (file is None) != (folder is None):
                given, lacking = ("json", "images") if folder is None else ("images", "json")
                raise ValueError(f"expected {split.value}_{lacking} with {split.value}_{given}; set both or neither")
        if not any(self.has(split) for split in Split):
            raise ValueError("expected a COCO file; set train_json and train_images, or test_json and test_images")

    def has(self, split: Split) -> bool:
        return self._paths(split)[0] is not None

    def title(self, split: Split) -> str:
        file, _ = self._paths(split)
        return (
            f"{Path(file).parent.name}/{Path(file).name} {split.value}" if file is not None else f"COCO {split.value}"
        )

    def entries(self, split: Split) -> Sequence[Entry]:
        return self._files[split].entries

    def annotated(self, split: Split) -> bool:
        return self._files[split].annotated

    def strays(self) -> list[Finding]:
        return [one for file in self._files.values() for one in file.strays]

    def known_classes(self) -> list[str]:
        """All class names, also those without objects, ordered by the lowest id that any file gives them."""
        pairs = sorted((number, name) for file in self._files.values() for number, name in file.categories.items())
        return list(dict.fromkeys(name for _, name in pairs))

    def category_ids(self, split: Split, names: Sequence[str]) -> list[int]:
        """The ids in the split's own file. A class that only other files have gets its id there, or a free id."""
        own = _ids_by_name(self._files[split])
        others = {name: number for file in self._files.values() for name, number in _ids_by_name(file).items()}
        taken = set(own.values())
        numbers = []
        for name in names:
            number = own.get(name, others.get(name, 1))
            if name not in own:
                while number in taken:
                    number += 1
                taken.add(number)
            numbers.append(number)
        return numbers

    def _paths(self, split: Split) -> tuple[str | None, str | None]:
        return {
            Split.train: (self.train_json, self.train_images),
            Split.val: (self.val_json, self.val_images),
            Split.test: (self.test_json, self.test_images),
        }[split]

    @functools.cached_property
    def _files(self) -> dict[Split, CocoFile]:
        files = {}
        for split in Split:
            file, folder = self._paths(split)
            if file is not None and folder is not None:
                files[split] = read_coco_file(Path(file), Path(folder))
        return files


def _ids_by_name(file: CocoFile) -> dict[str, int]:
    """The id of each class name; where two ids share a name, the lower one."""
    return {name: number for number, name in sorted(file.categories.items(), reverse=True)}


def read_coco_file(path: Path, images: Path) -> CocoFile:
    """Read a COCO instances file. It needs `images` with id and file_name, and the categories of its annotations.

    An image with an unusable annotation becomes an entry with a fault. Raises FileNotFoundError for a missing file or
    folder, and CocoFileError, which names the file, for JSON that is not a COCO file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected a COCO JSON file, got no such file; check the path")
    if not images.is_dir():
        raise FileNotFoundError(f"{images}: expected the folder of the images of {path.name}, got no such folder")
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise CocoFileError(f"{path}: expected JSON, got an error on reading it: {error}") from error
    try:
        if not isinstance(content, dict) or "images" not in content:
            raise CocoFileError(f'expected a COCO file, {{"images": [...], ...}}, got {_kind(content)}')
        categories = _parse_categories(_records(content, "categories"))
        annotations = _group_by_image(_records(content, "annotations"))
        entries: dict[ImageId, Entry] = {}
        for number, image in enumerate(_records(content, "images")):
            image_id = _image_id(image.get("id"), f"images[{number}].id")
            if image_id in entries:
                raise CocoFileError(f"expected unique image ids, got {image_id!r} twice")
            entries[image_id] = _entry(image_id, image, annotations.pop(image_id, []), categories, path, images)
    except CocoFileError as error:
        raise CocoFileError(f"{path}: {error}") from error
    strays = [
        finding(
            "orphan_annotation", path, f"{len(orphans)} annotations of image {image_id!r}, which is not in the file"
        )
        for image_id, orphans in annotations.items()
    ]
    return CocoFile(path, tuple(entries.values()), categories, "annotations" in content, tuple(strays))


def _kind(value: object) -> str:
    return f"an object with {sorted(map(str, value))[:6]}" if isinstance(value, dict) else f"a {type(value).__name__}"


def _records(content: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """The list of objects under `key`; empty where the key is missing."""
    records = content.get(key) or []
    if not isinstance(records, list) or not all(isinstance(one, dict) for one in records):
        raise CocoFileError(f'expected "{key}" to be a list of objects, got {_kind(records)} or other values in it')
    return records


def _parse_categories(records: Sequence[Mapping[str, Any]]) -> dict[int, str]:
    categories: dict[int, str] = {}
    for record in records:
        number, name = record.get("id"), record.get("name")
        if not _is_int(number) or not isinstance(name, str) or not name.strip():
            raise CocoFileError(f"expected each category to have an integer id and a name, got {dict(record)}")
        if number in categories:
            raise CocoFileError(f"expected unique category ids, got {number} twice")
        categories[number] = name.strip()
    return categories


def _is_int(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _image_id(value: object, what: str) -> ImageId:
    if _is_int(value) or (isinstance(value, str) and value):
        return value
    raise CocoFileError(f"{what}: expected an integer or a string, got {value!r}")


def _group_by_image(records: Sequence[dict[str, Any]]) -> dict[ImageId, list[dict[str, Any]]]:
    groups: dict[ImageId, list[dict[str, Any]]] = {}
    for number, record in enumerate(records):
        image_id = _image_id(record.get("image_id"), f"annotations[{number}].image_id")
        groups.setdefault(image_id, []).append(record)
    return groups


def _entry(
    image_id: ImageId,
    image: Mapping[str, Any],
    annotations: Sequence[Mapping[str, Any]],
    categories: Mapping[int, str],
    path: Path,
    images: Path,
) -> Entry:
    name = image.get("file_name")
    if not isinstance(name, str) or not name:
        fault = finding("missing_image", path, f"image {image_id!r} has no file_name")
        return Entry(image_id, None, path, fault=fault)
    # Some files contain paths of the machine that wrote them; then only the file name is used.
    file = images / name
    if not file.exists() and (images / file.name).exists():
        file = images / file.name
    height, width = image.get("height"), image.get("width")
    stated_size = (height, width) if _is_int(height) and _is_int(width) else None
    try:
        objects = tuple(_parse_object(one, categories) for one in annotations)
    except ValueError as error:
        fault = finding("broken_annotation", file, f"{error} (in {path.name})")
        return Entry(image_id, file, path, (), stated_size, fault)
    return Entry(image_id, file, path, objects, stated_size)


def _parse_object(record: Mapping[str, Any], categories: Mapping[int, str]) -> RawObject:
    what = f"annotation {record.get('id', '')}"
    number, corner = record.get("category_id"), record.get("bbox")
    if not _is_int(number) or number not in categories:
        raise ValueError(f"{what}: expected a category_id that is in the file's categories, got {number!r}")
    if not isinstance(corner, list) or len(corner) != 4:
        raise ValueError(f"{what}: expected bbox [x, y, width, height], got {corner!r}")
    x, y, width, height = (read_number(value, f"{what}, bbox") for value in corner)
    area = record.get("area")
    # Some exporters write an area of 0 as a placeholder.
    has_area = isinstance(area, int | float) and 0 < area < 1e30
    return RawObject(
        name=categories[number],
        box=(x, y, x + width, y + height),
        crowd=record.get("iscrowd") in (1, True, "1"),
        area=area if has_area else None,
    )
