"""The check of a data set: finds faults in the raw files, including those that loading corrects."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, combinations, groupby
from pathlib import Path
from typing import Any

import numpy as np

from detpipe.console import amount
from detpipe.datasets import box_units
from detpipe.datasets.entry import Entry, RawObject, sound_truth, usable_header
from detpipe.datasets.exif_boxes import are_raw_boxes, upright_entry
from detpipe.datasets.findings import SEVERITY, Finding, Severity, finding
from detpipe.datasets.image_file import (
    FORMAT_SUFFIXES,
    ImageHeader,
    file_digest,
    read_header,
    read_image_and_header,
)
from detpipe.datasets.source import DatasetSource, Split
from detpipe.datasets.stretch import darkness
from detpipe.parallel import ordered_map
from detpipe.progress import progress
from detpipe.storage.stored_file import stored_size
from detpipe.structures import ReadOptions

__all__ = ["CheckReport", "Finding", "Severity", "check_source"]


@dataclass(frozen=True)
class CheckReport:
    """The result of a check.

    findings: errors first, then by kind, in the order of the data. images: number of checked images of each split.
    objects: for each split, the number of usable objects of each class.
    """

    findings: tuple[Finding, ...]
    images: Mapping[str, int]
    objects: Mapping[str, Mapping[str, int]]

    @property
    def counts(self) -> dict[str, int]:
        """Number of findings of each kind, errors first. Kinds without findings are absent."""
        return dict(Counter(one.kind for one in self.findings))

    def at_least(self, severity: Severity) -> list[Finding]:
        """The findings of this severity or worse."""
        worst_first = list(Severity)
        return [one for one in self.findings if worst_first.index(one.severity) <= worst_first.index(severity)]

    def to_json(self) -> dict[str, Any]:
        """{"findings": [{"kind", "severity", "file", "detail"}], "counts": {kind: n}}, ready for json.dumps."""
        findings = [
            {"kind": one.kind, "severity": one.severity.value, "file": one.file, "detail": one.detail}
            for one in self.findings
        ]
        return {"findings": findings, "counts": self.counts}

    def to_text(self, files_per_kind: int = 5) -> str:
        """A readable summary: images and objects of each split, then each kind with its count and first files."""
        lines = []
        for split, count in self.images.items():
            classes = ", ".join(f"{name} {n}" for name, n in self.objects[split].items())
            lines.append(f"{split}: {amount(count, 'images')}" + (f"; objects: {classes}" if classes else ""))
        for kind, group in groupby(self.findings, key=lambda one: one.kind):
            found = list(group)
            lines.append(f"{found[0].severity.value}: {kind}: {len(found)}")
            lines += [f"  {one}" for one in found[:files_per_kind]]
            if len(found) > files_per_kind:
                lines.append(f"  ... and {len(found) - files_per_kind} more")
        if not self.findings:
            lines.append("nothing found")
        return "\n".join(lines)


@dataclass(frozen=True)
class _Checked:
    """One entry of a split with the header of its image, or with the reason why the image can't be used.

    dark: what is found in its pixels.
    """

    split: Split
    entry: Entry
    header: ImageHeader | Finding
    dark: Finding | None


def check_source(source: DatasetSource, *, full: bool = True, workers: int = 0) -> CheckReport:
    """Check all files of all splits of a source.

    full: also decode each image. Otherwise read only headers, file ends, annotations, and digests of files that have
    the same length. workers: number of processes (see `detpipe.parallel.ordered_map`); it does not change the report.
    Raises the errors of the source where lists, folders or JSON files can't be read at all.
    """
    entries = all_entries(source)
    return report_of(source, entries, check_images(source, entries, full=full, workers=workers))


def all_entries(source: DatasetSource) -> list[tuple[Split, Entry]]:
    """The entries of all splits of a source, in order. Raises the errors of the source."""
    return [(split, entry) for split in Split if source.has(split) for entry in source.entries(split)]


@dataclass(frozen=True)
class CheckedImage:
    """What is found in an image file: its header, or the fault why it can't be used. dark: a fault of its pixels."""

    header: ImageHeader | None
    fault: Finding | None
    dark: Finding | None


def check_images(
    source: DatasetSource, entries: Sequence[tuple[Split, Entry]], *, full: bool, workers: int
) -> list[CheckedImage]:
    """Read the images of some entries; see `check_source`. No entries give []."""
    check_image = partial(_check_image, full=full, options=source.read_options)
    results = ordered_map(
        check_image, (entry for _, entry in entries), workers=workers, describe=lambda entry: str(entry.image)
    )
    return list(progress(results, "check", total=len(entries), unit="images"))


def report_of(
    source: DatasetSource, entries: Sequence[tuple[Split, Entry]], read: Sequence[CheckedImage]
) -> CheckReport:
    """The report on all entries of a source. read: what was found in their images, in the same order."""
    checked = [
        _Checked(split, _upright(source, entry, header), header, image.dark)
        for (split, entry), image in zip(entries, read, strict=True)
        if (header := image.header or image.fault) is not None
    ]
    names = source.class_names()
    images = Counter(one.split for one in checked)
    objects = _count_objects(source, checked, names)
    found = [
        *chain.from_iterable(_findings_of(one, source.annotated(one.split)) for one in checked),
        *_bad_shares(source, checked, images),
        *source.strays(),
        *_read_outside(source, checked),
        *_unknown_classes(checked, names),
        *_untrained_classes(objects),
        *_similar_classes(source.known_classes()),
        *_wrong_units(source, checked),
        *_overlaps(checked),
        *_duplicates(checked),
    ]
    order = {kind: index for index, kind in enumerate(SEVERITY)}
    return CheckReport(
        findings=tuple(sorted(found, key=lambda one: order[one.kind])),
        images={split.value: count for split, count in images.items()},
        objects={split.value: dict(counts) for split, counts in objects.items()},
    )


def _upright(source: DatasetSource, entry: Entry, header: ImageHeader | Finding) -> Entry:
    """The entry with its boxes as loading takes them."""
    if isinstance(header, ImageHeader) and are_raw_boxes(entry, header, source.exif_boxes):
        return upright_entry(entry, header)
    return entry


def _check_image(entry: Entry, *, full: bool, options: ReadOptions) -> CheckedImage:
    dark: list[Finding] = []

    def read(path: Path, options: ReadOptions) -> ImageHeader:
        pixels, header = read_image_and_header(path, options)
        fault = darkness(pixels)
        if fault is not None:
            dark.append(finding("dark_image", path, fault))
        return header

    header = usable_header(entry, options, read if full else read_header)
    found = dark[0] if dark else None
    return CheckedImage(None, header, found) if isinstance(header, Finding) else CheckedImage(header, None, found)


def _findings_of(one: _Checked, annotated: bool) -> Iterator[Finding]:
    yield from one.entry.notes
    if isinstance(one.header, Finding):
        yield one.header
        return
    if one.dark is not None:
        yield one.dark
    yield from _image_findings(one.entry, one.header)
    if annotated:
        yield from _object_findings(one.entry, one.header.image_size)


def _image_findings(entry: Entry, header: ImageHeader) -> Iterator[Finding]:
    path = entry.image
    assert path is not None  # because it has a header
    if path.suffix.lower() not in FORMAT_SUFFIXES.get(header.format, (path.suffix.lower(),)):
        yield finding(
            "wrong_extension", path, f"{header.format} data in a file named {path.suffix}; read by its content"
        )
    if header.has_alpha:
        yield finding("alpha_channel", path, "transparency is ignored")
    if header.is_grey:
        yield finding("greyscale", path, "the single channel is repeated three times")
    if header.orientation != 1 and not any(note.kind == "turned_boxes" for note in entry.notes):
        yield finding(
            "exif_rotation",
            path,
            f"orientation {header.orientation} is applied; check that the boxes were drawn on the rotated image",
        )
    if entry.stated_size is not None and entry.stated_size != header.image_size:
        stated, true = (f"{width} x {height}" for height, width in (entry.stated_size, header.image_size))
        yield finding("size_mismatch", entry.origin, f"says {stated}, {path.name} has {true}; the image's size is used")


def _object_findings(entry: Entry, image_size: tuple[int, int]) -> Iterator[Finding]:
    file = _annotated_file(entry)
    if not entry.objects:
        yield finding("empty_image", file, "no objects; the whole image is background")
    repeated = len(entry.objects) - len({(one.name, one.box, one.crowd) for one in entry.objects})
    if repeated:
        yield finding("duplicate_object", file, f"{repeated} objects have the class and box of another; remove them")
    crowds = sum(one.crowd for one in entry.objects)
    if crowds:
        yield finding("crowd", file, f"{crowds} crowds, ignored by training and metrics")
    outside = []
    for one in entry.objects:
        x1, y1, x2, y2 = one.box
        if x2 <= x1 or y2 <= y1:
            yield finding("zero_area_box", file, f"{one.name} at x {x1:g}, y {y1:g} has no area; dropped from training")
        else:
            outside.append(_pixels_outside(one, image_size))
    excesses = [excess for excess in outside if excess > _ROUNDING]
    if excesses:
        height, width = image_size
        detail = (
            f"{len(excesses)} boxes extend up to {max(excesses):g} pixels beyond the {width} x {height} image; clipped "
            "for training"
        )
        yield finding("box_out_of_bounds", file, detail)


def _annotated_file(entry: Entry) -> Path | None:
    """The annotation, if it is of this image alone, else the image."""
    return entry.origin if entry.origin.stem == entry.image_id else entry.image


_ROUNDING = 0.5
"""Boxes may extend this many pixels beyond the image without a finding, because files round their numbers."""


def _pixels_outside(one: RawObject, image_size: tuple[int, int]) -> float:
    x1, y1, x2, y2 = one.box
    height, width = image_size
    return max(-x1, -y1, x2 - width, y2 - height)


def _count_objects(
    source: DatasetSource, checked: Sequence[_Checked], names: Sequence[str]
) -> dict[Split, Counter[str]]:
    """Number of usable objects of each class in each split."""
    labels = {name: label for label, name in enumerate(names, start=1)}
    objects: dict[Split, Counter[str]] = {}
    for one in checked:
        counts = objects.setdefault(one.split, Counter(dict.fromkeys(names, 0)))
        if isinstance(one.header, ImageHeader) and source.annotated(one.split):
            truth = sound_truth(one.entry.objects, labels, one.header.image_size)
            counts.update(names[label - 1] for label in truth.labels)
    return objects


def _bad_shares(source: DatasetSource, checked: Sequence[_Checked], images: Mapping[Split, int]) -> Iterator[Finding]:
    bad = Counter(one.split for one in checked if isinstance(one.header, Finding))
    for split, count in bad.items():
        if count > source.max_bad * images[split]:
            detail = f"{count} of {images[split]} images can't be used, more than max_bad={source.max_bad:g}"
            yield finding("too_many_bad", source.title(split), detail)


def _read_outside(source: DatasetSource, checked: Sequence[_Checked]) -> Iterator[Finding]:
    """A finding for each image outside of the folders of the data set."""
    for path in source.images_outside(one.entry.image for one in checked if one.entry.image is not None):
        yield finding("read_outside", path, "outside of the folders of the data set; read, as dataset.outside=true")


def _unknown_classes(checked: Sequence[_Checked], names: Sequence[str]) -> Iterator[Finding]:
    unknown = Counter(item.name for one in checked for item in one.entry.objects if item.name not in names)
    for name, count in sorted(unknown.items()):
        file = next(one.entry.origin for one in checked if any(item.name == name for item in one.entry.objects))
        yield finding("unknown_class", file, f"{count} objects of {name!r}, which is not among the classes; dropped")


def _untrained_classes(objects: Mapping[Split, Counter[str]]) -> Iterator[Finding]:
    train = objects.get(Split.train)
    for split, counts in objects.items():
        for name, count in counts.items():
            if train is not None and count and not train[name]:
                yield finding("untrained_class", name, f"{count} objects in {split.value}, none in train")


def _similar_classes(names: Sequence[str]) -> Iterator[Finding]:
    """A finding for each class that differs from another only in case, spaces, hyphens or plural."""
    spellings: dict[str, str] = {}
    for name in names:
        spellings.setdefault(re.sub(r"[\s_-]+", "", name).casefold(), name)
    for name in names:
        bare = re.sub(r"[\s_-]+", "", name).casefold()
        singulars = (bare, bare.removesuffix("s"), bare.removesuffix("es"), re.sub("ies$", "y", bare))
        other = next((spellings[one] for one in singulars if spellings.get(one, name) != name), None)
        if other is not None:
            detail = f"is nearly the name of class {other!r}; if they are one class, give them one name"
            yield finding("similar_classes", name, detail)


def _wrong_units(source: DatasetSource, checked: Sequence[_Checked]) -> Iterator[Finding]:
    """Findings for boxes and areas of a split that can't be pixels."""
    for split in dict.fromkeys(one.split for one in checked if source.annotated(one.split)):
        own = [(one.entry, one.header) for one in checked if one.split is split and isinstance(one.header, ImageHeader)]
        objects = [(item, header.image_size) for entry, header in own for item in entry.objects]
        boxes = np.array([item.box for item, _ in objects], dtype=np.float64).reshape(-1, 4)
        areas = np.array([np.nan if item.area is None else item.area for item, _ in objects], dtype=np.float64)
        written = np.array([item.written or (0, 0, 0, 0) for item, _ in objects], dtype=np.float64).reshape(-1, 4)
        sizes = np.array([size for _, size in objects], dtype=np.float64).reshape(-1, 2)
        title = source.title(split)
        if box_units.are_shares(boxes):
            yield finding("relative_boxes", title, box_units.SHARES.format(len(boxes)))
            continue
        if box_units.are_corners(written, sizes, areas):
            detail = (
                f"the {len(boxes)} boxes are corners [x1, y1, x2, y2], but COCO's are [x, y, width, height]; write "
                "x2 - x1 and y2 - y1 in place of x2 and y2"
            )
            yield finding("corner_boxes", title, detail)
        if box_units.are_shares_of_area(areas, boxes):
            detail = "all areas are at most 1, so they are shares of the image; COCO's areas are square pixels"
            yield finding("relative_areas", title, detail)
        yield from _tiny_boxes(own, title, source.max_bad)


def _tiny_boxes(own: Sequence[tuple[Entry, ImageHeader]], title: str, max_bad: float) -> Iterator[Finding]:
    """Findings for boxes of one split under a pixel. own: its usable images."""
    n_images = 0
    for entry, _ in own:
        boxes = np.array([item.box for item in entry.objects], dtype=np.float64).reshape(-1, 4)
        tiny = int(box_units.under_a_pixel(boxes).sum())
        if tiny:
            n_images += 1
            file = _annotated_file(entry)
            yield finding("tiny_box", file, f"{tiny} boxes are narrower and lower than a pixel; dropped from training")
    if n_images > max_bad * len(own):
        detail = (
            f"{n_images} of {len(own)} images have boxes under a pixel, more than max_bad={max_bad:g}; correct their "
            "unit (pixels, not shares of the image), or raise dataset.max_bad to train without them"
        )
        yield finding("too_many_tiny", title, detail)


def _overlaps(checked: Sequence[_Checked]) -> Iterator[Finding]:
    """A finding for each pair of splits that share image files."""
    files: dict[Split, list[Path]] = {}
    for one in checked:
        if one.entry.image is not None:
            files.setdefault(one.split, []).append(one.entry.image)
    for first, second in combinations(files, 2):
        shared = sorted(set(files[first]) & set(files[second]))
        if shared:
            detail = f"{len(shared)} images are in both {first.value} and {second.value}; scores on them are misleading"
            yield finding("split_overlap", shared[0], detail)


def _duplicates(checked: Sequence[_Checked]) -> Iterator[Finding]:
    """Findings for files with equal bytes under two names, and for files that two entries of a split share."""
    splits: dict[Path, Split] = {}
    for one in checked:
        path = one.entry.image
        if path is None or isinstance(one.header, Finding):
            continue
        if splits.get(path) is one.split:
            yield finding("duplicate_image", path, f"two annotations of {one.split.value} name this image")
        splits.setdefault(path, one.split)
    first: dict[bytes, Path] = {}
    lengths = {path: stored_size(path) for path in splits}
    # Only files of the same length can be identical, so most files need not be read.
    common = {length for length, count in Counter(lengths.values()).items() if count > 1}
    for path, split in splits.items():
        if lengths[path] not in common:
            continue
        original = first.setdefault(file_digest(path), path)
        if original != path:
            if splits[original] is split:
                where = f"both are in {split.value}"
            else:
                where = (
                    f"that one is in {splits[original].value}, this one in {split.value}; scores on it are misleading"
                )
            yield finding("duplicate_image", path, f"identical to {original.name}; {where}")
