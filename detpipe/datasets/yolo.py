"""Reader of YOLO data sets: images, a text file of labels for each, and mostly a YAML file. See `yolo_layout`."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from detpipe.datasets.entry import Entry, RawObject
from detpipe.datasets.findings import Finding, finding
from detpipe.datasets.folder_scan import FolderScan, is_image, is_inside, real_folders, scan
from detpipe.datasets.image_finder import ImageFinder
from detpipe.datasets.object_edits import NewImage, ObjectEdit
from detpipe.datasets.parted_source import Part, PartedSource, found_image, name_below, size_of_shares
from detpipe.datasets.source import Recognised, Split, passed_over_findings
from detpipe.datasets.text_file import read_text
from detpipe.datasets.yolo_layout import YoloLayout, find_layout, recognised_layout
from detpipe.datasets.yolo_text import YoloObject, edited_yolo_text, parse_yolo_text
from detpipe.progress import progress
from detpipe.storage.stored_file import children, is_existing_folder, is_file, list_once, stored_size

logger = logging.getLogger(__name__)

_IMAGES = ("images", "jpegimages")
"""Names in lower case of folders of images that have labels/ in their place; the second is Darknet's for VOC."""
_LABELS = ("labels", "Labels")
_NO_LABELS = frozenset({"classes.txt", "train.txt", "val.txt", "valid.txt", "test.txt", "notes.txt", "labels.txt"})


@dataclass(kw_only=True)
class YoloSource(PartedSource):
    """A YOLO data set: images with label files, as Ultralytics, Roboflow, Darknet, CVAT and labelImg write it.

    An image without a label file has no objects. Outlines and rotated boxes become the upright boxes around them.
    """

    PATHS: ClassVar[tuple[str, ...]] = ("root", *PartedSource.PATHS)

    root: str
    """The folder of the data set, or its YAML file: data.yaml."""

    @classmethod
    def recognise(cls, root: Path) -> Recognised | None:
        """See `DatasetSource`. A YAML file with names or splits is one, or a label file with the name of an image."""
        found = recognised_layout(root)
        return None if found is None else Recognised({"root": str(root)}, f"YOLO: {found}")

    @property
    def name(self) -> str:
        path = Path(self.root)
        return path.name or self.root

    @functools.cached_property
    def layout(self) -> YoloLayout:
        """Where images, labels and names are."""
        layout = find_layout(Path(self.root), outside=self.outside)
        logger.info("%s: %s", self.root, layout.description)
        return layout

    def declared_classes(self) -> Sequence[str]:
        return self.layout.names or ()

    def known_classes(self) -> list[str]:
        if self.layout.names is not None:
            return list(dict.fromkeys(self.layout.names))
        # Without names the classes are called by their numbers, which sort as numbers.
        return sorted(super().known_classes(), key=int)

    def annotated(self, split: Split) -> bool:
        """False if no image of the split has a label file: such a split is only for detection."""
        return split in self._labelled

    def named_folders(self) -> list[Path]:
        """The folder of the data set, and the folders of images that the layout names."""
        folders = [path for paths in self.layout.splits.values() for path in paths if is_existing_folder(path)]
        return [self.layout.folder, *folders]

    def strays(self) -> list[Finding]:
        """Findings on label files without an image, and on pictures that are not read."""
        entries = [entry for split in Split if self.has(split) for entry in self.entries(split)]
        claimed = {entry.origin for entry in entries}
        found = []
        for folder in sorted({path.parent for path in claimed if is_existing_folder(path.parent)}):
            for path in children(folder):
                name = path.name.lower()
                if path.suffix == ".txt" and path not in claimed and name not in _NO_LABELS and "readme" not in name:
                    found.append(finding("orphan_annotation", path, "label file without an image; not used"))
        return [*found, *(one for folder in self._scans.values() for one in passed_over_findings(folder))]

    def read_parts(self) -> list[Part]:
        list_once(self.layout.folder)  # which has a label file for each image
        images = {split: list(self._images(paths)) for split, paths in self.layout.splits.items()}
        total = sum(map(len, images.values()))
        if not total:
            passed_over = "; ".join(text for one in self._scans.values() if (text := one.passed_over_text()))
            raise FileNotFoundError(
                f"{self.root}: expected images with label files, got no images ({self.layout.description}"
                f"{'; ' if passed_over else ''}{passed_over}); set dataset.root"
            )
        for folder, found in self._scans.items():
            if text := found.passed_over_text():
                logger.warning("%s: %s", folder, text)
        rows = [(split, one) for split, some in images.items() for one in some]
        parts: dict[Split | None, list[Entry]] = {split: [] for split in images}
        for split, one in progress(iter(rows), "read labels", total=total, unit="images"):
            parts[split].append(self._entry(one))
        for split, entries in parts.items():
            self._log_missing(split, entries)
        return [Part(split, tuple(entries)) for split, entries in parts.items()]

    def read_objects(self, label: Path) -> tuple[str, list[YoloObject]]:
        """The text of a label file, and its objects; "" and none if there is no file or it is empty.

        Raises ValueError, which says what is wrong, and OSErrors.
        """
        if not is_file(label) or not stored_size(label):
            return "", []
        text = read_text(label, "a label file of YOLO")
        names = self.layout.names
        keypoints = self.layout.keypoints
        return text, parse_yolo_text(text, None if names is None else len(names), keypoints=keypoints)

    def edited_label(self, entry: Entry, edits: Sequence[ObjectEdit]) -> str:
        """The text of the label file of an entry with the edits. Raises ValueError for a class without a number."""
        size = size_of_shares(entry.image, None, self.read_options, self.exif_boxes)
        if size is None:
            raise ValueError(f"{entry.image}: expected an image that can be read, to write shares of it")
        text, objects = self.read_objects(entry.origin)
        try:
            return edited_yolo_text(text, objects, edits, self._numbered_names, size)
        except ValueError as error:
            raise ValueError(f"{entry.origin}: {error}") from error

    def new_label(self, new: NewImage) -> str:
        """The text of the label file of a new image. Raises ValueError for a class without a number."""
        try:
            return edited_yolo_text("", [], new.objects, self._numbered_names, new.image_size)
        except ValueError as error:
            raise ValueError(f"{new.path}: {error}") from error

    def place_of_new(self, new: NewImage) -> tuple[Path, Path, Path | None]:
        """Where a new training image, its label file and its line in a list belong; None if no list is used.

        Raises ValueError if there are no training images.
        """
        paths = self.layout.splits.get(Split.train) or self.layout.splits.get(None)
        if not paths:
            raise ValueError(f"{self.root}: expected training images, to which new ones can be added, got none")
        name = f"{new.name}{new.path.suffix}"
        if is_existing_folder(paths[0]):
            image, listed = paths[0] / name, None
        else:
            first = next((entry.image for entry in self.entries(Split.train) if entry.image is not None), paths[0])
            image, listed = first.with_name(name), paths[0]
        return image, next(_label_places(image, self.layout.folder)), listed

    @property
    def _numbered_names(self) -> Sequence[str]:
        """The name of each class number."""
        if self.layout.names is not None:
            return self.layout.names
        known = [int(name) for name in self.known_classes()]
        return [str(number) for number in range(max(known, default=-1) + 1)]

    def _images(self, paths: Sequence[Path]) -> Iterator[Entry]:
        """The images of a split, each once, without their labels."""
        seen: set[Path] = set()
        for path in paths:
            for entry in self._images_of(path):
                if entry.image is None or entry.image not in seen:
                    seen.update([entry.image] if entry.image is not None else [])
                    yield entry

    def _images_of(self, path: Path) -> Iterator[Entry]:
        if is_existing_folder(path):
            for image in self._scan(path).images:
                yield Entry(name_below(image, self.layout.folder), image, path)
        elif is_image(path.name):
            yield Entry(name_below(path, self.layout.folder), path, path)
        else:
            finder = ImageFinder(self.layout.folder, beside=path.parent, outside=self.outside)
            for line in read_text(path, "a list of images").splitlines() if stored_size(path) else ():
                if line.strip():
                    name, found, fault = found_image(finder, line.strip(), path)
                    yield Entry(name, found, path, fault=fault)

    @functools.cached_property
    def _labelled(self) -> set[Split]:
        """The splits with a label file."""
        splits = [split for split in Split if self.has(split)]
        return {split for split in splits if any(one.image and is_file(one.origin) for one in self.entries(split))}

    @functools.cached_property
    def _scans(self) -> dict[Path, FolderScan]:
        return {}

    def _scan(self, folder: Path) -> FolderScan:
        if folder not in self._scans:
            self._scans[folder] = scan(folder, outside=self.outside, real=real_folders([self.layout.folder, folder]))
        return self._scans[folder]

    def _entry(self, entry: Entry) -> Entry:
        """The entry with its objects. Its origin is the label file, which may be missing."""
        if entry.image is None:
            return entry
        label = self._label_file(entry.image)
        entry = replace(entry, origin=label)
        if not self._may_read(label):
            detail = "is a link that leaves the folder; to read it anyway, give dataset.outside=true"
            return replace(entry, fault=finding("broken_annotation", label, detail))
        try:
            objects = self.read_objects(label)[1]
        except (ValueError, OSError) as error:
            return replace(entry, fault=finding("broken_annotation", label, str(error).removeprefix(f"{label}: ")))
        size = size_of_shares(entry.image, None, self.read_options, self.exif_boxes) if objects else None
        if size is None:  # no objects, or an image that can't be used
            return entry
        names = self.layout.names
        return replace(entry, objects=tuple(_raw_object(one, names, size) for one in objects))

    def _label_file(self, image: Path) -> Path:
        """The label file of an image: the first that exists, else the first of the possible ones."""
        places = list(_label_places(image, self.layout.folder))
        return next((path for path in places if is_file(path)), places[0])

    @functools.cached_property
    def _folders_inside(self) -> dict[Path, bool]:
        return {}

    def _may_read(self, label: Path) -> bool:
        """Whether a label file is inside of the user's folders, with all links resolved."""
        if self.outside:
            return True
        folder = label.parent
        if folder not in self._folders_inside:
            self._folders_inside[folder] = is_inside(folder, self._real)
        return self._folders_inside[folder] and (not label.is_symlink() or is_inside(label, self._real))

    @functools.cached_property
    def _real(self) -> tuple[str, ...]:
        """The folders that label files may be in. The folders of labels may be links, as the folders of images may."""
        folders = self.named_folders()
        top = self.layout.folder
        near = dict.fromkeys(one for folder in folders for one in (folder, folder.parent) if one.is_relative_to(top))
        return real_folders([*folders, *(folder / name for folder in near for name in _LABELS)])

    def _log_missing(self, split: Split | None, entries: Sequence[Entry]) -> None:
        missing = [entry for entry in entries if entry.image is not None and not is_file(entry.origin)]
        if not missing:
            return
        what = f"{self.name}{f' {split.value}' if split else ''}"
        if len(missing) == len(entries):
            logger.warning(
                "%s: none of the %d images has a label file, as %s; it is a split to detect on",
                *(what, len(entries), missing[0].origin),
            )
        else:
            logger.info(
                "%s: %d of %d images have no label file and so no objects, first %s",
                *(what, len(missing), len(entries), missing[0].image),
            )


def _label_places(image: Path, folder: Path) -> Iterator[Path]:
    """Where the label file of an image may be, the likeliest place first."""
    name = f"{image.stem}.txt"
    parts = image.relative_to(folder).parent.parts if image.is_relative_to(folder) else image.parent.parts
    base = folder if image.is_relative_to(folder) else Path()
    last = max((number for number, part in enumerate(parts) if part.lower() in _IMAGES), default=-1)
    if last >= 0:
        for labels in _LABELS:
            yield Path(base, *parts[:last], labels, *parts[last + 1 :], name)
    yield image.with_name(name)
    yield image.parent / "labels" / name


def _raw_object(one: YoloObject, names: Sequence[str] | None, size: tuple[int, int]) -> RawObject:
    height, width = size
    x, y, w, h = (share * side for share, side in zip(one.shares, (width, height, width, height), strict=True))
    name = str(one.number) if names is None else names[one.number]
    return RawObject(name, (x, y, x + w, y + h), written=(x, y, w, h))
