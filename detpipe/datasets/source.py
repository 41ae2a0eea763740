"""A source of data: how a format becomes a Dataset, and the rules that all formats share.

A format says which images a split has and what its files say of them (`entries`), good or bad. What can be used, which
boxes are made sound, and how much may be bad, is decided here, once, for all formats; `check` sees the same entries.
"""

from __future__ import annotations

import abc
import logging
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import numpy as np

from detpipe import boxes as box_ops
from detpipe.datasets.findings import Finding, finding
from detpipe.datasets.image_file import BrokenImageError, ImageHeader, TruncatedImageError, read_header
from detpipe.structures import Dataset, GroundTruth, ImageId, ImageRecord, LeftOut

logger = logging.getLogger(__name__)


class Split(Enum):
    """A part of a data set."""

    train = "train"
    val = "val"
    test = "test"


class TooManyBadError(ValueError):
    """More images of a split can't be used than `max_bad` allows."""


@dataclass(frozen=True)
class RawObject:
    """One object as its file says, before it is made sound.

    box: x1 y1 x2 y2, half-open, pixels; it may leave the image or be empty. area: pixels; None is the box's.
    """

    name: str
    box: tuple[float, float, float, float]
    difficult: bool = False
    crowd: bool = False
    area: float | None = None


@dataclass(frozen=True)
class Entry:
    """One image of a split as the files say.

    image: its file; None where there is none. origin: the annotation or list that names it. stated_size: (height,
    width) in the annotation, true or not. fault: why it can't be used, where that is known without a look at the
    image. notes: faults of the annotation that don't hinder.
    """

    image_id: ImageId
    image: Path | None
    origin: Path
    objects: tuple[RawObject, ...] = ()
    stated_size: tuple[int, int] | None = None
    fault: Finding | None = None
    notes: tuple[Finding, ...] = ()


@dataclass(kw_only=True)
class DatasetSource(abc.ABC):
    """Where images and their objects come from. The base of one dataclass a format."""

    classes: list[str] | None = None
    """Names of the classes to use, in label order; objects of others are dropped. Default: all in the data, sorted."""
    max_bad: float = 0.01
    """The share of a split's images that may be unusable; above it, loading fails."""

    def __post_init__(self) -> None:
        if not 0 <= self.max_bad <= 1:
            raise ValueError(f"max_bad: expected a share from 0 to 1, got {self.max_bad}")
        if self.classes is not None and (not self.classes or len(set(self.classes)) != len(self.classes)):
            raise ValueError(f"classes: expected names, each once, got {self.classes}; leave it out to use all")

    @abc.abstractmethod
    def has(self, split: Split) -> bool:
        """Whether there is such a split to load."""

    @abc.abstractmethod
    def entries(self, split: Split) -> Sequence[Entry]:
        """What the files say of each image of a split that is there, in the order of the records."""

    @abc.abstractmethod
    def known_classes(self) -> list[str]:
        """The names of all classes in the data, over all splits, in label order."""

    @abc.abstractmethod
    def title(self, split: Split) -> str:
        """A name for messages and reports."""

    def annotated(self, split: Split) -> bool:  # noqa: ARG002
        """Whether the images of the split have annotations at all."""
        return True

    def strays(self) -> list[Finding]:
        """Findings on files that belong to no split."""
        return []

    def category_ids(self, split: Split, names: Sequence[str]) -> list[int]:  # noqa: ARG002
        """The number that result files give to each of the classes `names`: 1..K unless the format has its own."""
        return list(range(1, len(names) + 1))

    def class_names(self) -> list[str]:
        """The classes in label order, the same for each split: `classes`, or all that the data know.

        Raises ValueError where the data know none of `classes`; one that has no object is only logged.
        """
        known = self.known_classes()
        if self.classes is None:
            return known
        absent = [name for name in self.classes if name not in known]
        if known and len(absent) == len(self.classes):
            raise ValueError(f"classes: none of {self.classes} is in the data, which have {known}")
        if known and absent:
            logger.warning("no object in the data has one of the classes %s; they have %s", absent, known)
        return list(self.classes)

    def load(self, split: Split) -> Dataset:
        """The split as a Dataset: sizes from the image headers, boxes clipped to the image, empty ones dropped.

        Images that can't be used are left out and listed in `bad`. Raises ValueError where the split is not there,
        TooManyBadError where more than `max_bad` of its images are bad, FileNotFoundError for a missing folder or file.
        """
        if not self.has(split):
            there = ", ".join(one.value for one in Split if self.has(one)) or "none"
            raise ValueError(f"{self.title(split)}: expected a {split.value} split, but the settings name {there}")
        entries = self.entries(split)
        if not entries:
            raise ValueError(f"{self.title(split)}: expected images, but the split has none")
        names = self.class_names()
        labels = {name: label for label, name in enumerate(names, start=1)}
        records: list[ImageRecord] = []
        truths: dict[ImageId, GroundTruth] = {}
        bad: list[LeftOut] = []
        dropped: Counter[str] = Counter()
        for entry in entries:
            header = usable_header(entry)
            if isinstance(header, Finding):
                bad.append(LeftOut(header.file, header.detail))
                continue
            assert entry.image is not None  # usable_header gives a header only where there is an image
            truth = sound_truth(entry.objects, labels, header.image_size)
            lost = sum(one.name in labels for one in entry.objects) - len(truth)
            if lost:
                dropped[str(entry.origin)] += lost
            records.append(ImageRecord(entry.image_id, entry.image, header.image_size))
            truths[entry.image_id] = truth
        title = self.title(split)
        self._hold_max_bad(title, bad, len(entries))
        _log_dropped(title, dropped)
        return Dataset(
            name=title,
            classes=tuple(names),
            category_ids=tuple(self.category_ids(split, names)),
            records=tuple(records),
            ground_truth=truths if self.annotated(split) else None,
            bad=tuple(bad),
        )

    def _hold_max_bad(self, title: str, bad: Sequence[LeftOut], total: int) -> None:
        if bad:
            first = "; ".join(map(str, bad[:3]))
            more = f"; and {len(bad) - 3} more" if len(bad) > 3 else ""
            summary = f"{title}: {len(bad)} of {total} images can't be used: {first}{more}"
            if len(bad) > self.max_bad * total:
                raise TooManyBadError(f"{summary}. That is more than max_bad={self.max_bad:g}; mend them or raise it")
            logger.warning("%s", summary)


def usable_header(entry: Entry) -> ImageHeader | Finding:
    """The header of an entry's image, or the finding that says why the image can't be used."""
    if entry.fault is not None:
        return entry.fault
    if entry.image is None:
        return finding("missing_image", entry.origin, f"no image file for {entry.image_id}")
    try:
        return read_header(entry.image)
    except (FileNotFoundError, IsADirectoryError):
        return finding("missing_image", entry.image, f"no such file, named in {entry.origin.name}")
    except BrokenImageError as error:
        return image_fault(entry.image, error)


def image_fault(path: Path, error: BrokenImageError) -> Finding:
    """The finding for an image that didn't open."""
    kind = "truncated_image" if isinstance(error, TruncatedImageError) else "broken_image"
    return finding(kind, path, str(error).removeprefix(f"{path}: "))


def sound_truth(objects: Sequence[RawObject], labels: dict[str, int], image_size: tuple[int, int]) -> GroundTruth:
    """The objects whose class has a label, boxes clipped to the image, those without area there dropped.

    labels: from class name to 1..K. image_size: (height, width). No objects: an empty GroundTruth.
    """
    known = [one for one in objects if one.name in labels]
    corners = np.array([one.box for one in known], dtype=np.float64).reshape(-1, 4)
    # A negative width or height is an empty box; so it has no area, whatever it means.
    corners[:, 2:] = np.maximum(corners[:, 2:], corners[:, :2])
    limit = np.finfo(np.float32).max
    clipped = box_ops.clip(np.clip(corners, -limit, limit).astype(np.float32), image_size)
    own_areas = box_ops.area(clipped)
    truth = GroundTruth(
        boxes=clipped,
        labels=np.array([labels[one.name] for one in known], dtype=np.int64),
        difficult=np.array([one.difficult for one in known], dtype=np.bool_),
        crowd=np.array([one.crowd for one in known], dtype=np.bool_),
        areas=np.array(
            [own if one.area is None else one.area for one, own in zip(known, own_areas, strict=True)],
            dtype=np.float32,
        ),
    )
    return truth[own_areas > 0]


def read_number(value: object, what: str) -> float:
    """A finite number from a file. Raises ValueError that says `what`."""
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{what}: expected a number, got {value!r}") from error
    if not math.isfinite(number):
        raise ValueError(f"{what}: expected a finite number, got {value!r}")
    return number


def _log_dropped(title: str, dropped: Counter[str]) -> None:
    if dropped:
        files = ", ".join(list(dropped)[:3]) + (", ..." if len(dropped) > 3 else "")
        logger.warning("%s: %d boxes without area in the image are left out (%s)", title, dropped.total(), files)


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
