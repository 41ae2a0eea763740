"""Images with one class each, as ecologists label photos of camera traps, and boxes that a detector found in them.

Every confident box of an image gets the image's class. The boxes come from MegaDetector (see `megadetector`).
"""

from __future__ import annotations

import functools
import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from detpipe.datasets.entry import Entry, RawObject
from detpipe.datasets.exif_boxes import ExifBoxes
from detpipe.datasets.findings import Finding, finding
from detpipe.datasets.folder_scan import is_hidden, suffix_of, without_suffix
from detpipe.datasets.image_file import BrokenImageError, read_header
from detpipe.datasets.image_finder import ImageFinder, ImageNotFoundError, hash_name
from detpipe.datasets.image_label_table import read_image_labels
from detpipe.datasets.megadetector import ANIMAL, FoundImage, MegaDetectorFileError, read_megadetector
from detpipe.datasets.source import Recognised, Split, StoredSplit
from detpipe.datasets.splits import DividedSource
from detpipe.storage.input_file import open_input
from detpipe.storage.stored_file import children, is_existing_folder, is_file

logger = logging.getLogger(__name__)

_START = 1 << 16
"""Bytes of a JSON file that are searched for the keys of MegaDetector."""
_EMPTY = ("empty", "blank", "nothing", "none", "no animal")


@dataclass(kw_only=True)
class ImageLabelsSource(DividedSource):
    """Images with one class each (`labels`) and a detector's boxes (`detections`). The splits are automatic.

    - All boxes of `categories` with at least `confidence` get the image's class, also if there are several.
    - An image whose class is a word of `empty` is background without objects, even if the detector found something.
    - Left out and counted are images with a class but no such box, and images with several classes (with a class and
      empty, too), because nothing says which box has which class.
    - Images without a class are not used.
    """

    PATHS: ClassVar[tuple[str, ...]] = ("root", "labels", "detections", *DividedSource.PATHS)

    root: str
    """Folder of the images, with subfolders."""
    labels: str
    """CSV file with columns for file and class, in any order. The header is optional: file, class."""
    detections: str
    """MegaDetector's JSON file for these images."""
    confidence: float = 0.2
    """Smallest confidence of a box that gets the class. 0.2 is MegaDetector's typical threshold."""
    categories: list[str] = field(default_factory=lambda: [ANIMAL])
    """The detector's categories whose boxes get the class. Boxes of others, such as people, are not used."""
    empty: list[str] = field(default_factory=lambda: list(_EMPTY))
    """Classes that mean an image without objects, in any case."""
    group: int = 0
    """Number of leading folders of an image's path that name its camera. Images of one camera stay in one split. 0:
    each image is assigned by itself, so that almost equal photos of one camera may be in both splits."""
    file_column: str | None = None
    """Column of `labels` with the file. null: file, filename, path, image and the like."""
    class_column: str | None = None
    """Column of `labels` with the class. null: class, species, label and the like."""

    @classmethod
    def recognise(cls, root: Path) -> Recognised | None:
        """See `DatasetSource`. A folder with MegaDetector's JSON file and a table of files and classes is one."""
        if not is_existing_folder(root):
            return None
        files = [path for path in children(root) if is_file(path) and not is_hidden(path.name)]
        found = [path for path in files if suffix_of(path.name) == ".json" and _is_megadetector(path)]
        tables = [path for path in files if suffix_of(path.name) == ".csv" and _is_table(path)] if found else []
        if not found or not tables:
            return None
        if len(found) + len(tables) > 2:
            names = ", ".join(path.name for path in (*found, *tables))
            raise ValueError(
                f"{root}: expected one file of MegaDetector and one table of classes, got {names}; name them: "
                "dataset=image_labels dataset.labels=F.csv dataset.detections=F.json"
            )
        settings: dict[str, object] = {"root": str(root), "labels": str(tables[0]), "detections": str(found[0])}
        return Recognised(settings, f"classes of images in {tables[0].name}, MegaDetector's boxes in {found[0].name}")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.confidence <= 1:
            raise ValueError(f"dataset.confidence: expected a number from 0 to 1, got {self.confidence}")
        if self.group < 0:
            raise ValueError(f"dataset.group: expected a number of folders of 0 or more, got {self.group}")
        if not self.categories:
            raise ValueError("dataset.categories: expected the categories whose boxes get the class, got none")

    def has(self, split: Split) -> bool:
        return split is Split.train or (split is Split.test and self.test_share > 0)

    def title(self, split: Split) -> str:
        return f"{Path(self.root).name or self.root} {split.value}"

    def entries(self, split: Split) -> Sequence[Entry]:
        return [self._images.entries[number] for number in self._sides.get(split, ())]

    def known_classes(self) -> list[str]:
        """The classes that have an object, sorted."""
        return sorted({one.name for entry in self._images.entries for one in entry.objects})

    def named_folders(self) -> list[Path]:
        return [Path(self.root)]

    def strays(self) -> list[Finding]:
        return list(self._images.left_out)

    def automatic_split(self) -> StoredSplit:
        train, test = (
            tuple(sorted({self._images.names[number] for number in self._sides[split]}))
            for split in (Split.train, Split.test)
        )
        return StoredSplit(f"of {'cameras' if self.group else 'images'} in {self.root} {self.rule}", train, test)

    @property
    def _folder(self) -> Path:
        """The root without ".." and ".", as in the paths that ImageFinder returns."""
        return Path(os.path.normpath(self.root))

    @functools.cached_property
    def _sides(self) -> dict[Split, list[int]]:
        """The numbers of the entries of each split."""
        names = self._images.names
        if self.group and self.test_share > 0 and len(set(names)) < 2:
            raise ValueError(
                f"dataset.group={self.group}: expected images of at least two cameras in {self.root}, got "
                f"{', '.join(sorted(set(names))) or 'none'}; set dataset.group=0 or another number of folders"
            )
        train, test = self.divide_by_name(names)
        logger.info("%s: of these %s %s", self.root, "cameras" if self.group else "images", self.rule)
        return {Split.train: train, Split.test: test}

    @functools.cached_property
    def _images(self) -> _Images:
        root = self._folder
        if not is_existing_folder(root):
            raise FileNotFoundError(f"{root}: expected the folder of the images, got no such folder; set dataset.root")
        rows = read_image_labels(Path(self.labels), self.file_column, self.class_column)
        boxes = _boxes_by_file(Path(self.detections), root, outside=self.outside)
        finder = ImageFinder(root, beside=Path(self.labels).parent, outside=self.outside)
        # By file, because the rows of an image may spell it differently; by name where there is no file.
        classes: dict[Path | str, set[str]] = {}
        missing: dict[str, ImageNotFoundError] = {}
        for row in rows:
            key: Path | str = row.name
            try:
                key = finder.find(row.name)
            except ImageNotFoundError as error:
                missing[row.name] = error
            classes.setdefault(key, set()).update([row.label] if row.label else [])
        images = _Images(ids=_ids([key for key in classes if isinstance(key, Path)], root))
        for key, found in classes.items():
            if not found:
                images.unlabelled += 1
            elif isinstance(key, str):
                fault = finding(missing[key].KIND, self.labels, str(missing[key]))
                images.add(Entry(key, None, Path(self.labels), fault=fault), self._split_name(hash_name(key)))
            else:
                self._add(images, key, found, boxes.get(key))
        images.report(self)
        return images

    def _add(self, images: _Images, file: Path, classes: set[str], found: FoundImage | None) -> None:
        """Add the entry of an image with its objects, or the finding why it is left out."""
        label = next(iter(classes))
        if len(classes) > 1:
            detail = f"has several classes ({', '.join(sorted(classes))}), and nothing says which box has which"
            images.left_out.append(finding("several_classes", file, f"{detail}; left out"))
            return
        objects: tuple[RawObject, ...] = ()
        if label.casefold() not in {word.casefold() for word in self.empty}:
            objects = self._objects(file, label, found)
            if not objects:
                images.left_out.append(finding("label_without_box", file, f"{label}: {self._no_box(found)}; left out"))
                return
        images.add(
            Entry(images.ids[file], file, Path(self.labels), objects), self._split_name(_name(file, self._folder))
        )

    def _objects(self, file: Path, label: str, found: FoundImage | None) -> tuple[RawObject, ...]:
        """The confident boxes of an image as objects of one class."""
        chosen = [
            one.box
            for one in (found.boxes if found is not None else ())
            if one.category in self.categories and one.confidence >= self.confidence
        ]
        width, height = 1.0, 1.0
        if chosen and found is not None and found.are_shares:
            try:
                header = read_header(file, self.read_options)
            except (BrokenImageError, OSError):  # named when the image is loaded
                return tuple(RawObject(label, (0, 0, 1, 1)) for _ in chosen)
            height, width = header.raw_size if self.exif_boxes is ExifBoxes.raw else header.image_size
        return tuple(RawObject(label, (x1 * width, y1 * height, x2 * width, y2 * height)) for x1, y1, x2, y2 in chosen)

    def _no_box(self, found: FoundImage | None) -> str:
        if found is None:
            return f"not in {Path(self.detections).name}"
        if found.failure is not None:
            return f"the detector could not read it ({found.failure})"
        return f"no box of {' or '.join(self.categories)} with a confidence of at least {self.confidence:g}"

    def _split_name(self, name: str) -> str:
        """The name by which the automatic split assigns an image: its own, or its camera's."""
        return "/".join(name.split("/")[:-1][: self.group]) if self.group else name


@dataclass
class _Images:
    """The images with classes. ids: of each file. names: of each entry for the automatic split. unlabelled: a count."""

    ids: Mapping[Path, str]
    entries: list[Entry] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    left_out: list[Finding] = field(default_factory=list)
    unlabelled: int = 0

    def add(self, entry: Entry, name: str) -> None:
        self.entries.append(entry)
        self.names.append(name)

    def report(self, source: ImageLabelsSource) -> None:
        """Log the counts. Raises MegaDetectorFileError if no image has an object."""
        with_objects = sum(bool(entry.objects) for entry in self.entries)
        if not with_objects:
            first = f", such as {self.left_out[0]}" if self.left_out else ""
            raise MegaDetectorFileError(
                f"{source.detections}: expected boxes for the images of {source.labels}, got none for a class{first}"
            )
        logger.info(
            "%s: %d images with a class and boxes (%d boxes), %d empty images; %d without a class are not used",
            source.root,
            with_objects,
            sum(len(entry.objects) for entry in self.entries),
            sum(not entry.objects and entry.fault is None for entry in self.entries),
            self.unlabelled,
        )
        for kind, why in (("label_without_box", "no confident box"), ("several_classes", "several classes")):
            found = [one for one in self.left_out if one.kind == kind]
            if found:
                logger.warning("%s: left out %d images with %s: %s", source.root, len(found), why, found[0])


def _is_megadetector(path: Path) -> bool:
    """Whether a JSON file begins as MegaDetector's results."""
    try:
        with open_input(path, "a MegaDetector result file") as file:
            start = file.read(_START)
    except (OSError, ValueError):
        return False
    return b'"detection_categories"' in start or (b'"file"' in start and b'"detections"' in start)


def _is_table(path: Path) -> bool:
    try:
        return bool(read_image_labels(path))
    except (OSError, ValueError):
        return False


def _boxes_by_file(path: Path, root: Path, *, outside: bool) -> dict[Path, FoundImage]:
    """What the detector found in each image file. Images that are not below the root are passed over."""
    found: dict[Path, FoundImage] = {}
    names: dict[Path, str] = {}
    images = read_megadetector(path)
    finder = ImageFinder(root, beside=path.parent, outside=outside)
    for name, image in images.items():
        try:
            file = finder.find(name)
        except ImageNotFoundError:
            continue
        if file in found:
            raise MegaDetectorFileError(
                f"{path}: expected each image once, got {file} as {names[file]!r} and {name!r}; set dataset.root to "
                "the folder that the detector searched"
            )
        found[file], names[file] = image, name
    if images and not found:
        raise MegaDetectorFileError(
            f"{path}: expected images of {root}, got none (the first is {next(iter(images))!r}); set dataset.root to "
            "the folder that the detector searched"
        )
    if len(found) < len(images):
        logger.info("%s: %d of its images are not in %s", path, len(images) - len(found), root)
    return found


def _name(file: Path, root: Path) -> str:
    """The name of an image in splits: its path below the root."""
    return hash_name(file.relative_to(root).as_posix() if file.is_relative_to(root) else file.name)


def _ids(files: Sequence[Path], root: Path) -> dict[Path, str]:
    """The ids of images: their paths below the root, without suffix if these are unique."""
    paths = [file.relative_to(root).as_posix() if file.is_relative_to(root) else str(file) for file in files]
    bare = [without_suffix(path) for path in paths]
    names = bare if max(Counter(bare).values(), default=0) <= 1 else paths
    return dict(zip(files, names, strict=True))
