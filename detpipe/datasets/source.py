"""The base class of the data set formats, and the rules that all formats share.

Each format lists the images of a split with the raw content of their files (`entries`), valid or not. The rules for
unusable images, invalid boxes and the `max_bad` limit are here, once for all formats. `check` reads the same entries.
"""

from __future__ import annotations

import abc
import logging
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import ClassVar

import numpy as np

from detpipe.datasets import box_units

# A format of a plug-in imports Entry and RawObject from here (docs/plugins.md).
from detpipe.datasets.entry import Entry as Entry
from detpipe.datasets.entry import RawObject as RawObject
from detpipe.datasets.entry import sound_truth, usable_header
from detpipe.datasets.exif_boxes import ExifBoxes, are_raw_boxes, upright_entry
from detpipe.datasets.findings import Finding, finding
from detpipe.datasets.folder_scan import FolderScan, is_inside, real_folders
from detpipe.structures import (
    MAX_PIXELS,
    Dataset,
    GroundTruth,
    ImageId,
    ImageRecord,
    LeftOut,
    ReadOptions,
    Stretch,
)

logger = logging.getLogger(__name__)


class Split(Enum):
    """A part of a data set: train, val or test."""

    train = "train"
    val = "val"
    test = "test"


class TooManyBadError(ValueError):
    """A split has more unusable images than `max_bad` allows."""


@dataclass(frozen=True)
class StoredSplit:
    """The content of split.json. rule: how the split was made, in words. train, test: names of images, sorted."""

    rule: str
    train: tuple[str, ...]
    test: tuple[str, ...]


@dataclass(frozen=True)
class Recognised:
    """How a format reads a folder or file that `dataset=auto` was given.

    settings: of the format's class that read it, by name: {"root": "photos"}; paths as text. why: what was found,
    a phrase of one line that begins with the format's name: "YOLO: data.yaml with 3 classes, train and val".
    """

    settings: dict[str, object]
    why: str


@dataclass(kw_only=True)
class DatasetSource(abc.ABC):
    """Base class of the data set formats. Each format is a dataclass of its settings."""

    OUTSIDE: ClassVar[str] = "dataset.outside"
    """The full name of the setting `outside`, for messages."""
    PATHS: ClassVar[tuple[str, ...]] = ()
    """The settings that are paths of files or folders."""
    GENERATED: ClassVar[bool] = False
    """Whether the files are generated if they do not exist."""

    classes: list[str] | None = None
    """Names of the classes to use, in label order; objects of other classes are dropped. Default: all, sorted."""
    max_bad: float = 0.01
    """Largest allowed share of unusable images in a split, 0 to 1; with more, loading fails."""
    max_pixels: int = MAX_PIXELS
    """Limit on height x width of an image, taken from its header. A larger one can't be used: it is not decoded."""
    stretch: Stretch = Stretch.none
    """How dark or deep images are spread over 0..255. none: 8 bits stay, the upper 8 of 16 are kept; bits: for 12-bit
    data in 16-bit files; percentile: from the 0.5th to the 99.5th percentile of each image."""
    outside: bool = False
    """Also read images outside the folders of the data set: names with ../, absolute paths, and links to elsewhere."""
    exif_boxes: ExifBoxes = ExifBoxes.auto
    """The pixels that boxes were drawn on, for images that EXIF rotates: auto, upright or raw."""

    def __post_init__(self) -> None:
        if not 0 <= self.max_bad <= 1:
            raise ValueError(f"max_bad: expected a share from 0 to 1, got {self.max_bad}")
        if self.classes is not None and (not self.classes or len(set(self.classes)) != len(self.classes)):
            raise ValueError(f"classes: expected unique names, got {self.classes}; leave it out to use all classes")
        if self.max_pixels < 1:
            raise ValueError(f"max_pixels: expected at least 1, got {self.max_pixels}")
        if self.stretch not in [*Stretch, *(one.value for one in Stretch)]:
            names = ", ".join(one.value for one in Stretch)
            raise ValueError(f"stretch: expected one of {names}, got {self.stretch!r}")
        self.stretch = Stretch(self.stretch)  # Python code may give its name

    @property
    def read_options(self) -> ReadOptions:
        """How the image files are read."""
        return ReadOptions(self.max_pixels, self.stretch)

    @classmethod
    def recognise(cls, root: Path) -> Recognised | None:  # noqa: ARG003
        """The settings that read this folder or file, for `dataset=auto`; None if it is not in this format.

        root: an existing path. Only names of files and the beginning of few files are read, so that it takes well under
        a second. It never raises for a damaged file: that is recognised, and reading it says what is wrong. Raises
        ValueError, with what to give, if the folder is in this format but can be read in more than one way.
        """
        return None

    @abc.abstractmethod
    def has(self, split: Split) -> bool:
        """Whether the split exists."""

    @abc.abstractmethod
    def entries(self, split: Split) -> Sequence[Entry]:
        """The raw entries of an existing split, one per image, in the order of the records."""

    @abc.abstractmethod
    def known_classes(self) -> list[str]:
        """The names of all classes in all splits, in label order."""

    @abc.abstractmethod
    def title(self, split: Split) -> str:
        """The name of a split in messages and reports."""

    def annotated(self, split: Split) -> bool:  # noqa: ARG002
        """Whether the images of the split have annotations at all."""
        return True

    def strays(self) -> list[Finding]:
        """Findings on files that belong to no split."""
        return []

    def named_folders(self) -> list[Path]:
        """The folders with images that the settings name. Images outside of them are read with `outside` only."""
        return []

    def images_outside(self, images: Iterable[Path]) -> list[Path]:
        """Those of the images that are outside of the named folders: none, unless `outside` is set."""
        if not self.outside:
            return []
        real = real_folders(self.named_folders())
        return [path for path in images if not is_inside(path, real)]

    def automatic_split(self) -> StoredSplit | None:
        """The names of the images of each split, if a hash of the names divides them; None if the data set does."""
        return None

    def category_ids(self, split: Split, names: Sequence[str]) -> list[int]:  # noqa: ARG002
        """The ids of the classes `names` in result files: 1..K unless the format has its own ids."""
        return list(range(1, len(names) + 1))

    def class_names(self) -> list[str]:
        """The classes in label order, the same for each split: `classes` if set, else all classes in the data.

        Raises ValueError if none of `classes` is in the data. If only some are missing, logs a warning.
        """
        known = self.known_classes()
        if self.classes is None:
            return known
        absent = [name for name in self.classes if name not in known]
        if known and len(absent) == len(self.classes):
            raise ValueError(
                f"classes: expected some of {known}, as in the data, got {self.classes}; correct the names"
            )
        if known and absent:
            logger.warning("classes %s have no objects in the data, which have classes %s", absent, known)
        return list(self.classes)

    def load(self, split: Split, *, needs_images: bool = True) -> Dataset:
        """Load a split: sizes from the image headers, boxes clipped to the image, empty and tiny boxes dropped.

        Evaluation uses the boxes of the files (`Dataset.measured_truth`). With needs_images=False, an image whose file
        is missing is not bad if its annotation states its size: that is enough to measure detections.
        Unusable images are left out and listed in `bad`. Raises ValueError if the split does not exist or has no
        images, and if the boxes of the train split are shares of the image; TooManyBadError if more than `max_bad` of
        its images are unusable, FileNotFoundError for a missing folder or file.
        """
        if not self.has(split):
            there = ", ".join(one.value for one in Split if self.has(one)) or "none"
            raise ValueError(
                f"{self.title(split)}: expected a {split.value} split, got settings of these splits: {there}; set it"
            )
        begun = time.perf_counter()
        entries = self.entries(split)
        if not entries:
            raise ValueError(f"{self.title(split)}: expected images, got an empty split; check the settings of dataset")
        names = self.class_names()
        labels = {name: label for label, name in enumerate(names, start=1)}
        records: list[ImageRecord] = []
        truths: dict[ImageId, GroundTruth] = {}
        bad: list[LeftOut] = []
        dropped: Counter[str] = Counter()
        turned: list[Path] = []
        for entry in entries:
            header = usable_header(entry, self.read_options)
            if isinstance(header, Finding):
                record = None if needs_images else _record_without_file(entry, header)
                if record is None:
                    bad.append(LeftOut(header.file, header.detail))
                else:
                    records.append(record)
                    truths[entry.image_id] = sound_truth(entry.objects, labels, record.image_size)
                continue
            if are_raw_boxes(entry, header, self.exif_boxes):
                turned.append(entry.origin)
                entry = upright_entry(entry, header)
            assert entry.image is not None  # usable_header gives a header only if there is an image
            truth = sound_truth(entry.objects, labels, header.image_size)
            n_dropped = sum(one.name in labels for one in entry.objects) - len(truth)
            if n_dropped:
                dropped[str(entry.origin)] += n_dropped
            records.append(ImageRecord(entry.image_id, entry.image, header.image_size, self.read_options))
            truths[entry.image_id] = truth
        title = self.title(split)
        logger.debug(
            "%s: read %d of %d images, %d objects, %d classes, in %.2f s",
            *(title, len(records), len(entries), sum(map(len, truths.values())), len(names)),
            time.perf_counter() - begun,
        )
        boxes = np.array([one.box for entry in entries for one in entry.objects], dtype=np.float64).reshape(-1, 4)
        # Other splits may be evaluated on: detections may be shares, too.
        if split is Split.train and box_units.are_shares(boxes):
            raise ValueError(f"{title}: {box_units.SHARES.format(len(boxes))}")
        self._check_max_bad(title, bad, len(entries))
        _log_without_files(title, [record for record in records if not record.has_file], len(entries))
        _log_dropped(title, dropped)
        _log_turned(title, turned)
        _log_outside(title, self.images_outside(record.path for record in records), self.OUTSIDE)
        _log_left_out_objects(title, entries)
        return Dataset(
            name=title,
            classes=tuple(names),
            category_ids=tuple(self.category_ids(split, names)),
            records=tuple(records),
            ground_truth=truths if self.annotated(split) else None,
            bad=tuple(bad),
        )

    def _check_max_bad(self, title: str, bad: Sequence[LeftOut], total: int) -> None:
        if bad:
            first = "; ".join(map(str, bad[:3]))
            more = f"; and {len(bad) - 3} more" if len(bad) > 3 else ""
            summary = f"{title}: {len(bad)} of {total} images can't be used: {first}{more}"
            if len(bad) > self.max_bad * total:
                raise TooManyBadError(
                    f"{summary}. This is more than dataset.max_bad={self.max_bad:g}; correct the images or raise it"
                )
            logger.warning("%s", summary)


def _record_without_file(entry: Entry, fault: Finding) -> ImageRecord | None:
    """The record of an image whose file is missing; None for another fault, and if no size is stated."""
    if fault.kind != "missing_image" or entry.stated_size is None or min(entry.stated_size) < 1:
        return None
    return ImageRecord(entry.image_id, entry.image or Path(fault.file), entry.stated_size, has_file=False)


def passed_over_findings(scan: FolderScan) -> list[Finding]:
    """A finding for each reason why pictures in a folder are not read, with their number."""
    return [
        finding("passed_over", paths[0], f"{len(paths)} {'file' if len(paths) == 1 else 'files'}: {reason}")
        for reason, paths in scan.passed_over()
    ]


def _log_dropped(title: str, dropped: Counter[str]) -> None:
    if dropped:
        files = ", ".join(list(dropped)[:3]) + (", ..." if len(dropped) > 3 else "")
        logger.warning(
            "%s: dropped %d boxes that are empty within the image, or under a pixel, from training (%s)",
            title,
            dropped.total(),
            files,
        )


def _log_without_files(title: str, records: Sequence[ImageRecord], total: int) -> None:
    if records:
        logger.warning(
            "%s: %d of %d images have no file (%s%s): sizes are taken from the annotations, and there are no pictures "
            "of them",
            title,
            len(records),
            total,
            records[0].path,
            ", ..." if len(records) > 1 else "",
        )


def _log_turned(title: str, turned: Sequence[Path]) -> None:
    if turned:
        logger.warning(
            "%s: the boxes of %d images were drawn before EXIF's rotation and are rotated, too (%s%s); if they were "
            "right, give dataset.exif_boxes=upright",
            title,
            len(turned),
            ", ".join(str(one) for one in turned[:3]),
            ", ..." if len(turned) > 3 else "",
        )


def _log_outside(title: str, paths: Sequence[Path], setting: str) -> None:
    if paths:
        first = ", ".join(map(str, paths[:3])) + (", ..." if len(paths) > 3 else "")
        logger.warning("%s: read %d images outside of its folders, as %s allows: %s", title, len(paths), setting, first)


def _log_left_out_objects(title: str, entries: Sequence[Entry]) -> None:
    notes = [note for entry in entries for note in entry.notes if note.kind == "object_without_box"]
    if notes:
        first = "; ".join(map(str, notes[:3])) + (f"; and {len(notes) - 3} more" if len(notes) > 3 else "")
        logger.warning("%s: objects without a box are left out: %s", title, first)


def hold_max_bad(bad: Sequence[LeftOut], total: int, max_bad: float, setting: str) -> None:
    """Name the images that have no record; raise TooManyBadError where their share is above max_bad.

    total: images, bad ones too; none are fine. setting: what the command calls the limit.
    """
    for one in bad:
        logger.warning("left out: %s", one)
    if len(bad) > max_bad * total:
        first = "; ".join(map(str, bad[:3]))
        raise TooManyBadError(
            f"{len(bad)} of {total} images can't be read, more than {setting}={max_bad:g}: {first}. "
            "Mend or remove them, or raise it"
        )
