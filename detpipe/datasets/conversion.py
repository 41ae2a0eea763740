"""A data set as it is written in another format, and the list of what that format can't hold.

Boxes are as in the files, not clipped, in float64, on the image as EXIF rotates it.
"""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from detpipe.class_path import load_class
from detpipe.datasets.coco import CocoSource
from detpipe.datasets.entry import Entry, RawObject, usable_header
from detpipe.datasets.exif_boxes import are_raw_boxes, upright_entry
from detpipe.datasets.findings import Finding
from detpipe.datasets.image_finder import normalised
from detpipe.datasets.source import DatasetSource, Split
from detpipe.progress import counted
from detpipe.storage.input_json import read_json
from detpipe.structures import ImageId

WRITERS: Mapping[str, str] = {
    "coco": "detpipe.datasets.coco_writer:write_coco",
    "voc": "detpipe.datasets.voc_writer:write_voc",
    "yolo": "detpipe.datasets.yolo_writer:write_yolo",
}
"""Word of `to=` -> "module:function". A new target is one line here and one file."""

_COCO_KEYS = {"id", "image_id", "category_id", "bbox", "area", "iscrowd"}
"""What a RawObject holds of a COCO annotation."""


@dataclass(frozen=True)
class ConvertedImage:
    """One image. name: unique in the data set, without suffix. path: its file. size: (height, width)."""

    image_id: ImageId
    name: str
    path: Path
    size: tuple[int, int]
    objects: tuple[RawObject, ...]

    @property
    def file_name(self) -> str:
        """The name with the suffix of its file."""
        return f"{self.name}{self.path.suffix}"


@dataclass(frozen=True)
class ConvertedSplit:
    """One split. annotated: whether its images have annotations at all. category_ids: of the classes, in order."""

    split: Split
    images: tuple[ConvertedImage, ...]
    annotated: bool
    category_ids: tuple[int, ...]


@dataclass(frozen=True)
class Conversion:
    """A whole data set. classes: in label order."""

    title: str
    classes: tuple[str, ...]
    splits: tuple[ConvertedSplit, ...]


@dataclass
class NotCarried:
    """What a format can't hold: how often, by kind, and where. Kinds are phrases: "difficult flags"."""

    counts: Counter[str] = field(default_factory=Counter)
    where: dict[str, list[str]] = field(default_factory=dict)

    def add(self, kind: str, where: object, count: int = 1) -> None:
        """Count one more of a kind. where: an image, file, class or key. A count of 0 adds nothing."""
        if count:
            self.counts[kind] += count
            self.where.setdefault(kind, [])
            if str(where) not in self.where[kind]:
                self.where[kind].append(str(where))


Writer = Callable[[Conversion, Path, NotCarried], Sequence[tuple[Path, Path]]]
"""Writes the annotations into a folder; returns each image file with its place below the folder."""


def writer(word: str) -> Writer:
    """The function of a target format."""
    found: Writer = load_class(WRITERS[word])
    return found


def read_conversion(source: DatasetSource, lost: NotCarried) -> Conversion:
    """All splits of a data set. Images that can't be used, and objects of other classes, are counted in `lost`.

    Raises as `DatasetSource.entries` and `class_names`. An empty data set has no splits.
    """
    classes = source.class_names()
    there = {split: source.entries(split) for split in Split if source.has(split)}
    names = _names([entry for entries in there.values() for entry in entries if entry.image is not None])
    splits = []
    for split, entries in there.items():
        images = []
        with counted(f"convert: {split.value}", total=len(entries), unit="images") as count:
            for entry in entries:
                image = _image(source, entry, names, set(classes), lost)
                images += [image] if image is not None else []
                count.advance()
        ids = tuple(source.category_ids(split, classes))
        splits.append(ConvertedSplit(split, tuple(images), source.annotated(split), ids))
    _count_unread(source, lost)
    title = " and ".join(source.title(split) for split in there)
    return Conversion(title, tuple(classes), tuple(splits))


def _image(
    source: DatasetSource, entry: Entry, names: Mapping[Path, str], classes: set[str], lost: NotCarried
) -> ConvertedImage | None:
    header = usable_header(entry, source.read_options)
    if isinstance(header, Finding):
        lost.add("images that can't be used", f"{header.file}: {header.detail}")
        return None
    if are_raw_boxes(entry, header, source.exif_boxes):
        entry = upright_entry(entry, header)
    assert entry.image is not None  # usable_header gives a header only if there is an image
    kept = tuple(one for one in entry.objects if one.name in classes)
    lost.add("objects of classes that dataset.classes leaves out", entry.image, len(entry.objects) - len(kept))
    lost.add("objects without a box", entry.image, sum(one.kind == "object_without_box" for one in entry.notes))
    return ConvertedImage(entry.image_id, names[entry.image], entry.image, header.image_size, kept)


def _names(entries: Sequence[Entry]) -> dict[Path, str]:
    """A name for each image that no other has, in upper or lower case: its own, or else with its folders."""
    paths = list(dict.fromkeys(entry.image for entry in entries if entry.image is not None))
    top = Path(os.path.commonpath([path.absolute().parent for path in paths])) if paths else Path()
    counts = Counter(normalised(path.stem) for path in paths)
    names: dict[Path, str] = {}
    taken: set[str] = set()
    for path in paths:
        whole = "_".join(path.absolute().relative_to(top).with_suffix("").parts)
        first = path.stem if counts[normalised(path.stem)] == 1 else whole
        free: Iterator[str] = itertools.chain((first,), (f"{whole}_{number}" for number in itertools.count(2)))
        names[path] = next(name for name in free if normalised(name) not in taken)
        taken.add(normalised(names[path]))
    return names


def _count_unread(source: DatasetSource, lost: NotCarried) -> None:
    """Count what a COCO file has besides boxes: segmentations, keypoints, attributes."""
    if not isinstance(source, CocoSource):
        return
    for path in filter(None, (source.train_json, source.val_json, source.test_json)):
        content = read_json(Path(path), "a COCO JSON file")
        for record in content.get("annotations") or []:
            for key in record.keys() - _COCO_KEYS:
                if record[key] not in (None, [], {}, "", 0):
                    lost.add(f"{key} of objects", path)


def count_common(conversion: Conversion, lost: NotCarried) -> None:
    """Count what only COCO's files hold: ids, and areas that are not the areas of the boxes."""
    for split in conversion.splits:
        if split.category_ids != tuple(range(1, len(split.category_ids) + 1)):
            lost.add("ids of classes", split.split.value, len(split.category_ids))
        for image in split.images:
            lost.add("ids of images", image.path, int(str(image.image_id) != image.name))
            lost.add("ids of objects", image.path, sum(one.id is not None for one in image.objects))
            lost.add("areas that differ from the box", image.path, sum(map(_has_own_area, image.objects)))


def _has_own_area(one: RawObject) -> bool:
    x1, y1, x2, y2 = one.box
    own = (x2 - x1) * (y2 - y1) if one.written is None else one.written[2] * one.written[3]
    return one.area is not None and abs(one.area - own) > 1e-6 * max(1.0, abs(own))
