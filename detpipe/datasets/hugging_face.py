"""Reader of Hugging Face's image folders: metadata.jsonl, with an image and its objects in each line.

{"file_name": "0001.png", "objects": {"bbox": [[x, y, width, height]], "categories": [0]}}

Names of images are relative to the folder of their file. `objects` may also be a list of objects with `bbox` and a
class each. A class is a text, or a number, which is then its name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from detpipe.datasets.entry import Entry
from detpipe.datasets.files_source import FilesSource
from detpipe.datasets.findings import finding
from detpipe.datasets.image_finder import ImageFinder
from detpipe.datasets.parted_source import found_image
from detpipe.datasets.sample_json import sample_objects
from detpipe.datasets.source import Split
from detpipe.storage.input_json import read_json_lines
from detpipe.storage.parquet_file import CLASS_KEYS, class_value


class HuggingFaceFileError(ValueError):
    """A file is not Hugging Face's metadata of images with objects."""


@dataclass(kw_only=True)
class HuggingFaceSource(FilesSource):
    """Folders of images with metadata.jsonl, as Hugging Face's `imagefolder` reads them."""

    SUFFIXES: ClassVar[tuple[str, ...]] = (".jsonl",)
    FORMAT: ClassVar[str] = "Hugging Face's metadata.jsonl"

    @classmethod
    def is_format(cls, start: bytes) -> bool:
        return b'"file_name"' in start and b'"objects"' in start and b'"bbox"' in start

    def known_classes(self) -> list[str]:
        # Numbers sort as numbers, before other names.
        return sorted(super().known_classes(), key=lambda name: (name.zfill(20) if name.isdecimal() else ":", name))

    def read_file(self, path: Path, images: ImageFinder) -> Iterator[tuple[Split | None, Entry]]:
        for number, row in read_json_lines(path, self.FORMAT):
            name = row.get("file_name") if isinstance(row, dict) else None
            if not isinstance(name, str) or not name:
                raise HuggingFaceFileError(
                    f"{path}:{number}: expected {self.FORMAT} with a file_name in each line, got {str(row)[:100]}"
                )
            own, image, fault = found_image(images, self._below_root(path, images, name), path)
            try:
                found = sample_objects({"annotations": _records(row.get("objects")), "image": row}, path)
            except ValueError as error:
                fault = fault or finding("broken_annotation", path, f"line {number}: {error}")
                yield None, Entry(own, image, path, fault=fault)
                continue
            yield None, Entry(own, image, path, found.objects, found.stated_size, fault, found.notes)

    @staticmethod
    def _below_root(path: Path, images: ImageFinder, name: str) -> str:
        """The name below the folder of the images; another split may have an image of the same name."""
        folder = path.parent
        if folder == images.folder or not folder.is_relative_to(images.folder):
            return name
        return f"{folder.relative_to(images.folder).as_posix()}/{name}"


def _records(objects: object) -> list[Mapping[str, Any]]:
    """Records with `bbox` and a class, as COCO has them. No objects give none. Raises ValueError for other content."""
    if objects is None:
        return []
    if isinstance(objects, list) and all(isinstance(one, dict) for one in objects):
        return [_with_class(one.get("bbox"), class_value(one)) for one in objects]
    boxes = objects.get("bbox") if isinstance(objects, dict) else None
    if not isinstance(objects, dict) or not isinstance(boxes, list):
        raise ValueError(f"expected objects with a list bbox, got {str(objects)[:100]}")
    classes = class_value(objects) if objects.keys() & set(CLASS_KEYS) else [None] * len(boxes)
    if not isinstance(classes, list) or len(classes) != len(boxes):
        count = len(classes) if isinstance(classes, list) else str(classes)[:100]
        raise ValueError(f"expected a class for each of {len(boxes)} boxes, got {count}")
    return [_with_class(box, one) for box, one in zip(boxes, classes, strict=True)]


def _with_class(box: object, one: object) -> Mapping[str, Any]:
    return {"bbox": box, "category" if isinstance(one, str) else "category_id": one}
