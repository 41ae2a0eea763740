"""From corrections to edits of annotation files: finds each object, and refuses what can't be applied."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from detpipe.datasets.corrected_copy import free_names
from detpipe.datasets.entry import Entry, RawObject, usable_header
from detpipe.datasets.exif_boxes import are_raw_boxes, raw_box, upright_entry
from detpipe.datasets.findings import Finding
from detpipe.datasets.folder_scan import is_inside, real_folders
from detpipe.datasets.image_file import ImageHeader, read_header
from detpipe.datasets.object_edits import Box, NewImage, ObjectEdit, decimal
from detpipe.datasets.source import DatasetSource, Split
from detpipe.labels.corrections import Action, Correction, CorrectionError
from detpipe.structures import Dataset, ImageId

UNKNOWN = (
    "expected an image of the data set, got an unknown id. For new images, as from `detpipe labels next`, give "
    "source=FOLDER"
)
LONGEST_CLASS = 200
"""Characters of a class name."""


@dataclass(frozen=True, kw_only=True)
class Label:
    """The class and the box (x1, y1, x2, y2) of an object."""

    label: str
    box: Box


@dataclass(frozen=True, kw_only=True)
class Change:
    """One change, for changes.json. object: as in the correction; null for `add`. before, after: null if absent."""

    image: ImageId
    split: str
    action: Action
    object: int | None
    id: str | None
    before: Label | None
    after: Label | None

    def __str__(self) -> str:
        place = f"{self.split}/{self.image}" + ("" if self.object is None else f", object {self.object}")
        return f"{place}: {self._what}"

    @property
    def _what(self) -> str:
        if self.before is None or self.after is None:
            one = self.after or self.before
            assert one is not None
            return f"{'added' if self.before is None else 'removed'} {one.label} {_box_text(one.box)}"
        parts = []
        if self.before.label != self.after.label:
            parts.append(f"{self.before.label} -> {self.after.label}")
        if self.before.box != self.after.box:
            name = "" if parts else f"{self.after.label} "
            parts.append(f"{name}{_box_text(self.before.box)} -> {_box_text(self.after.box)}")
        return ", ".join(parts)


@dataclass
class PlannedEdits:
    """edits: of each image, by the file that holds its annotation and its id. changes: the same for people.

    without_effect: number of corrections that say what is there already. new_classes: names that the data lack.
    new_images: images that the data set gets in addition.
    """

    edits: dict[tuple[Path, ImageId], list[ObjectEdit]] = field(default_factory=dict)
    changes: list[Change] = field(default_factory=list)
    without_effect: int = 0
    new_classes: list[str] = field(default_factory=list)
    new_images: list[NewImage] = field(default_factory=list)


@dataclass(frozen=True)
class _Image:
    """An image of the data set. entry: as in the file. upright: with boxes on the image as it is shown."""

    split: Split
    entry: Entry
    upright: Entry
    header: ImageHeader
    objects: tuple[int, ...]
    """The index in `entry.objects` of each object of the chosen classes."""


def plan_edits(
    source: DatasetSource,
    splits: Mapping[Split, Dataset],
    corrections: Sequence[Correction],
    *,
    allow_new_classes: bool,
    reviewed: Sequence[ImageId] = (),
    new_from: Path | None = None,
) -> PlannedEdits:
    """Return the edits that the corrections mean. No corrections give no edits.

    Boxes are clipped to the image. source: of the data set whose `splits` are loaded. allow_new_classes: a class that
    the data set lacks is accepted. new_from: a folder; an image that the data set lacks is a file in it, by its path,
    and becomes a training image. reviewed: images without objects; those that the data set lacks become training
    images, too. Raises CorrectionError, which names the number of the correction, its image and what is wrong: an
    unknown image, object or class, a box outside the image, or two corrections of one object.
    """
    finder = _Finder(source, splits)
    planned = PlannedEdits()
    known = list(dict.fromkeys((*source.known_classes(), *(source.classes or ()))))
    seen: dict[tuple[object, ...], int] = {}
    new = None if new_from is None else _NewImages(new_from, source)
    for number, one in enumerate(corrections, start=1):
        try:
            if new is not None and one.action is Action.add and not finder.has(one.image):
                label = _class(one, known, planned, allow_new_classes=allow_new_classes)
                planned.changes.append(new.add(one, label))
                continue
            image = finder.image(one)
            index = None if one.action is Action.add else finder.index(one, image)
            label = _class(one, known, planned, allow_new_classes=allow_new_classes)
            box = None if one.box is None or one.action is Action.remove else _clipped(one.box, image.header.image_size)
            key = (image.entry.origin, image.entry.image_id, index, *((label, box) if index is None else ()))
            if key in seen:
                raise ValueError(f"expected one correction of an object, got another one, number {seen[key]}, of it")
            seen[key] = number
            _plan(planned, one, image, index, label, box)
        except ValueError as error:
            raise CorrectionError(f"correction {number}, image {one.image!r}: {error}") from error
    for name in reviewed:
        if finder.has(name):
            planned.without_effect += 1
        elif new is None:
            raise CorrectionError(f"reviewed, image {name!r}: {UNKNOWN}")
        else:
            try:
                new.entry(name)
            except ValueError as error:
                raise CorrectionError(f"reviewed, image {name!r}: {error}") from error
    if new is not None:
        planned.new_images = new.images()
    return planned


class _NewImages:
    """Images of a folder that the data set gets in addition, with their objects."""

    def __init__(self, folder: Path, source: DatasetSource) -> None:
        self._folder, self._source = folder, source
        self._found: dict[str, tuple[Path, ImageHeader, list[ObjectEdit]]] = {}

    def entry(self, image: ImageId) -> tuple[ImageHeader, list[ObjectEdit]]:
        """The header of an image, and its objects so far, to which others may be added.

        Raises ValueError for a file that is not in the folder, or is not an image.
        """
        name = str(image)
        if name not in self._found:
            path = self._folder / name
            if not path.is_file() or not is_inside(path, real_folders([self._folder])):
                raise ValueError(f"expected an image of the data set, or a file in source={self._folder}, got neither")
            self._found[name] = (path, read_header(path, self._source.read_options), [])
        _, header, edits = self._found[name]
        return header, edits

    def add(self, one: Correction, label: str | None) -> Change:
        """Add the object of a correction. Raises ValueError as `entry`, and for an object that is there already."""
        header, edits = self.entry(one.image)
        assert label is not None  # Correction requires both
        assert one.box is not None
        box = _clipped(one.box, header.image_size)
        if any((edit.name, edit.box) == (label, box) for edit in edits):
            raise ValueError("expected each new object once, got one twice")
        edits.append(ObjectEdit(name=label, box=box))
        after = Label(label=label, box=box)
        return Change(
            image=str(one.image), split="train", action=one.action, object=None, id=None, before=None, after=after
        )

    def images(self) -> list[NewImage]:
        """The images, with names that are free in the data set."""
        free = free_names(self._source) if self._found else str
        return [
            NewImage(path=path, name=free(name), image_size=header.image_size, objects=tuple(edits))
            for name, (path, header, edits) in self._found.items()
        ]


def _plan(
    planned: PlannedEdits, one: Correction, image: _Image, index: int | None, label: str | None, box: Box | None
) -> None:
    before: RawObject | None = None
    if index is not None:
        before = image.upright.objects[index]
        label = None if label == before.name else label
        box = None if box is not None and _equal(box, before.box) else box
        if one.action is Action.change and label is None and box is None:
            planned.without_effect += 1
            return
    written = box
    if box is not None and image.upright is not image.entry:
        written = raw_box(box, image.header)
    is_removed = one.action is Action.remove
    edit = ObjectEdit(index=index, is_removed=is_removed, name=None if is_removed else label, box=written)
    planned.edits.setdefault((image.entry.origin, image.entry.image_id), []).append(edit)
    after = None
    if not is_removed:
        name = label if label is not None or before is None else before.name
        place = box if box is not None or before is None else before.box
        assert name is not None  # an added object has both
        assert place is not None
        after = Label(label=name, box=place)
    planned.changes.append(
        Change(
            image=image.entry.image_id,
            split=image.split.value,
            action=one.action,
            object=None if index is None else image.objects.index(index),
            id=None if before is None else before.id,
            before=None if before is None else Label(label=before.name, box=before.box),
            after=after,
        )
    )


class _Finder:
    """Finds images and objects by what a correction says of them."""

    def __init__(self, source: DatasetSource, splits: Mapping[Split, Dataset]) -> None:
        self._source, self._splits = source, splits
        self._entries: dict[str, list[tuple[Split, Entry]]] = {}
        for split, dataset in splits.items():
            there = {record.image_id for record in dataset.records}
            for entry in source.entries(split):
                if entry.image_id in there:
                    self._entries.setdefault(str(entry.image_id), []).append((split, entry))
        self._images: dict[tuple[Split, ImageId], _Image] = {}

    def has(self, image: ImageId) -> bool:
        """Whether the data set has an image with this id."""
        return str(image) in self._entries

    def image(self, one: Correction) -> _Image:
        """The image of a correction. Raises ValueError."""
        found = self._entries.get(str(one.image), [])
        if not found:
            near = difflib.get_close_matches(str(one.image), self._entries, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"{UNKNOWN}{hint}")
        of_split = [(split, entry) for split, entry in found if one.split in (None, split.value)]
        if not of_split:
            there = ", ".join(split.value for split, _ in found)
            raise ValueError(f"split: expected {there}, where the image is, got {one.split!r}")
        if len({(entry.origin, entry.image_id) for _, entry in of_split}) > 1:
            there = ", ".join(split.value for split, _ in of_split)
            raise ValueError(f"split: expected one of {there}, which all have an image of this id, got null")
        split, entry = of_split[0]
        if self._splits[split].ground_truth is None:
            raise ValueError(f"split {split.value}: expected images with annotations, got a split without any")
        if (split, entry.image_id) not in self._images:
            self._images[split, entry.image_id] = self._opened(split, entry)
        return self._images[split, entry.image_id]

    def _opened(self, split: Split, entry: Entry) -> _Image:
        header = usable_header(entry, self._source.read_options)
        if isinstance(header, Finding):  # the file has changed since the data set was loaded
            raise ValueError(header.detail)
        turned = are_raw_boxes(entry, header, self._source.exif_boxes)
        upright = upright_entry(entry, header) if turned else entry
        classes = set(self._splits[split].classes)
        chosen = tuple(index for index, one in enumerate(entry.objects) if one.name in classes)
        return _Image(split, entry, upright, header, chosen)

    def index(self, one: Correction, image: _Image) -> int:
        """The index in `Entry.objects` of the object of a correction. Raises ValueError."""
        by_id = None
        if one.id is not None:
            by_id = [index for index in image.objects if image.entry.objects[index].id == one.id]
            if len(by_id) != 1:
                raise ValueError(f"id: expected one annotation of the image with id {one.id}, got {len(by_id)}")
        if one.object is None:
            assert by_id is not None  # Correction checks that one of them is given
            return by_id[0]
        if one.object >= len(image.objects):
            raise ValueError(f"object: expected one of {len(image.objects)} objects, from 0, got {one.object}")
        index = image.objects[one.object]
        if by_id is not None and by_id[0] != index:
            raise ValueError(
                f"expected the object with id {one.id}, got object {one.object}, which has id "
                f"{image.entry.objects[index].id}"
            )
        return index


def _class(one: Correction, known: Sequence[str], planned: PlannedEdits, *, allow_new_classes: bool) -> str | None:
    if one.label is None or one.action is Action.remove:
        return None
    name = one.label.strip()
    if name in known or name in planned.new_classes:
        return name
    if not name or not name.isprintable() or len(name) > LONGEST_CLASS:
        raise ValueError(f"label: expected the name of a class, got {one.label[:LONGEST_CLASS]!r}")
    if not allow_new_classes:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(
            f"label: expected one of {', '.join(known)}, got {name!r}; {hint}For a new class, give "
            "allow_new_classes=true"
        )
    planned.new_classes.append(name)
    return name


def _clipped(box: Box, image_size: tuple[int, int]) -> Box:
    """The part of a box in an image of (height, width). Raises ValueError if there is none."""
    height, width = image_size
    x1, y1, x2, y2 = box
    clipped = (max(0.0, x1), max(0.0, y1), min(float(width), x2), min(float(height), y2))
    if clipped[0] >= clipped[2] or clipped[1] >= clipped[3]:
        raise ValueError(
            f"box: expected a box in the image, which is {width} wide and {height} high, got {_box_text(box)}"
        )
    return clipped


def _equal(one: Box, other: Box) -> bool:
    """Whether two boxes are the same in float32, in which a data set has its boxes."""
    return list(map(decimal, one)) == list(map(decimal, other))


def _box_text(box: Sequence[float]) -> str:
    return f"[{', '.join(f'{value:g}' for value in box)}]"
