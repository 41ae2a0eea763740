"""The data gate: what is wrong with a data set, from the raw files, also where loading mends it in passing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, combinations, groupby
from pathlib import Path
from typing import Any

from detpipe.datasets.findings import SEVERITY, Finding, Severity, finding
from detpipe.datasets.image_file import BrokenImageError, ImageHeader, file_digest, read_image
from detpipe.datasets.source import DatasetSource, Entry, RawObject, Split, image_fault, sound_truth, usable_header
from detpipe.parallel import ordered_map

__all__ = ["CheckReport", "Finding", "Severity", "check_source"]

_SUFFIXES: Mapping[str, Sequence[str]] = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png",),
    "BMP": (".bmp", ".dib"),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "GIF": (".gif",),
}


@dataclass(frozen=True)
class CheckReport:
    """What a check found.

    findings: errors first, then by kind, in the order of the data. images: by split, how many were looked at.
    objects: by split, the number of usable objects of each class.
    """

    findings: tuple[Finding, ...]
    images: Mapping[str, int]
    objects: Mapping[str, Mapping[str, int]]

    @property
    def counts(self) -> dict[str, int]:
        """The number of findings of each kind that there is, errors first."""
        return dict(Counter(one.kind for one in self.findings))

    def at_least(self, severity: Severity) -> list[Finding]:
        """The findings of this severity or a worse one."""
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
        """A page for people: images and objects by split, then each kind with its count and its first files."""
        lines = []
        for split, count in self.images.items():
            classes = ", ".join(f"{name} {n}" for name, n in self.objects[split].items())
            lines.append(f"{split}: {count} images" + (f"; objects: {classes}" if classes else ""))
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
class _Looked:
    """One entry of a split and the header of its image, or why it can't be used."""

    split: Split
    entry: Entry
    header: ImageHeader | Finding


def check_source(source: DatasetSource, *, full: bool = True, workers: int = 0) -> CheckReport:
    """Look at all files of all splits of a source.

    full: decode each image; else only headers, ends of files, annotations, and the digests of equally long files.
    workers: processes, as `detpipe.parallel.ordered_map` takes it; the report doesn't depend on it.
    Raises what the source raises where lists, folders or JSON files can't be read at all.
    """
    entries = [(split, entry) for split in Split if source.has(split) for entry in source.entries(split)]
    headers = ordered_map(partial(_look, full=full), (entry for _, entry in entries), workers=workers)
    looked = [_Looked(split, entry, header) for (split, entry), header in zip(entries, headers, strict=True)]
    names = source.class_names()
    images = Counter(one.split for one in looked)
    objects = _count_objects(source, looked, names)
    found = [
        *chain.from_iterable(_findings_of(one, source.annotated(one.split)) for one in looked),
        *_bad_shares(source, looked, images),
        *source.strays(),
        *_unknown_classes(looked, names),
        *_untrained_classes(objects),
        *_overlaps(looked),
        *_duplicates(looked),
    ]
    order = {kind: place for place, kind in enumerate(SEVERITY)}
    return CheckReport(
        findings=tuple(sorted(found, key=lambda one: order[one.kind])),
        images={split.value: count for split, count in images.items()},
        objects={split.value: dict(counts) for split, counts in objects.items()},
    )


def _look(entry: Entry, *, full: bool) -> ImageHeader | Finding:
    header = usable_header(entry)
    if full and entry.image is not None and isinstance(header, ImageHeader):
        try:
            read_image(entry.image)
        except BrokenImageError as error:
            return image_fault(entry.image, error)
    return header


def _findings_of(one: _Looked, annotated: bool) -> Iterator[Finding]:
    yield from one.entry.notes
    if isinstance(one.header, Finding):
        yield one.header
        return
    yield from _image_findings(one.entry, one.header)
    if annotated:
        yield from _object_findings(one.entry, one.header.image_size)


def _image_findings(entry: Entry, header: ImageHeader) -> Iterator[Finding]:
    path = entry.image
    assert path is not None  # there is a header
    if path.suffix.lower() not in _SUFFIXES.get(header.format, (path.suffix.lower(),)):
        yield finding("wrong_extension", path, f"{header.format} data in a file named {path.suffix}; read by content")
    if header.has_alpha:
        yield finding("alpha_channel", path, "transparency is dropped")
    if header.is_grey:
        yield finding("greyscale", path, "one channel is repeated into three")
    if header.orientation != 1:
        yield finding(
            "exif_rotation", path, f"orientation {header.orientation} is applied; were the boxes made upright?"
        )
    if entry.stated_size is not None and entry.stated_size != header.image_size:
        stated, true = (f"{width} x {height}" for height, width in (entry.stated_size, header.image_size))
        yield finding("size_mismatch", entry.origin, f"says {stated}, {path.name} has {true}; the image is believed")


def _object_findings(entry: Entry, image_size: tuple[int, int]) -> Iterator[Finding]:
    place = entry.origin if entry.origin.stem == entry.image_id else entry.image
    if not entry.objects:
        yield finding("empty_image", place, "no objects; all of it is background")
    crowds = sum(one.crowd for one in entry.objects)
    if crowds:
        yield finding("crowd", place, f"{crowds} crowds, ignored by training and metrics")
    outside = []
    for one in entry.objects:
        x1, y1, x2, y2 = one.box
        if x2 <= x1 or y2 <= y1:
            yield finding("zero_area_box", place, f"{one.name} at x {x1:g}, y {y1:g} has no area; dropped")
        else:
            outside.append(_reach_outside(one, image_size))
    leaving = [reach for reach in outside if reach > _ROUNDING]
    if leaving:
        height, width = image_size
        detail = f"{len(leaving)} boxes leave the image of {width} x {height} by up to {max(leaving):g} pixels; clipped"
        yield finding("box_out_of_bounds", place, detail)


_ROUNDING = 0.5
"""Pixels that a box may leave the image by without a word: files round their numbers."""


def _reach_outside(one: RawObject, image_size: tuple[int, int]) -> float:
    x1, y1, x2, y2 = one.box
    height, width = image_size
    return max(-x1, -y1, x2 - width, y2 - height)


def _count_objects(source: DatasetSource, looked: Sequence[_Looked], names: Sequence[str]) -> dict[Split, Counter[str]]:
    """Usable objects of each class by split."""
    labels = {name: label for label, name in enumerate(names, start=1)}
    objects: dict[Split, Counter[str]] = {}
    for one in looked:
        counts = objects.setdefault(one.split, Counter(dict.fromkeys(names, 0)))
        if isinstance(one.header, ImageHeader) and source.annotated(one.split):
            truth = sound_truth(one.entry.objects, labels, one.header.image_size)
            counts.update(names[label - 1] for label in truth.labels)
    return objects


def _bad_shares(source: DatasetSource, looked: Sequence[_Looked], images: Mapping[Split, int]) -> Iterator[Finding]:
    bad = Counter(one.split for one in looked if isinstance(one.header, Finding))
    for split, count in bad.items():
        if count > source.max_bad * images[split]:
            detail = f"{count} of {images[split]} images can't be used, more than max_bad={source.max_bad:g}"
            yield finding("too_many_bad", source.title(split), detail)


def _unknown_classes(looked: Sequence[_Looked], names: Sequence[str]) -> Iterator[Finding]:
    strangers = Counter(item.name for one in looked for item in one.entry.objects if item.name not in names)
    for name, count in sorted(strangers.items()):
        place = next(one.entry.origin for one in looked if any(item.name == name for item in one.entry.objects))
        yield finding("unknown_class", place, f"{count} objects of {name!r}, which is not among the classes; dropped")


def _untrained_classes(objects: Mapping[Split, Counter[str]]) -> Iterator[Finding]:
    train = objects.get(Split.train)
    for split, counts in objects.items():
        for name, count in counts.items():
            if train is not None and count and not train[name]:
                yield finding("untrained_class", name, f"{count} objects in {split.value}, none in train")


def _overlaps(looked: Sequence[_Looked]) -> Iterator[Finding]:
    """Pairs of splits that have image files in common."""
    files: dict[Split, list[Path]] = {}
    for one in looked:
        if one.entry.image is not None:
            files.setdefault(one.split, []).append(one.entry.image)
    for first, second in combinations(files, 2):
        shared = sorted(set(files[first]) & set(files[second]))
        if shared:
            detail = f"{len(shared)} images are in {first.value} and in {second.value}; scores on them mislead"
            yield finding("split_overlap", shared[0], detail)


def _duplicates(looked: Sequence[_Looked]) -> Iterator[Finding]:
    """Files with the same bytes, under two names, and files that two entries of a split share."""
    places: dict[Path, Split] = {}
    for one in looked:
        path = one.entry.image
        if path is None or isinstance(one.header, Finding):
            continue
        if places.get(path) is one.split:
            yield finding("duplicate_image", path, f"two annotations of {one.split.value} name this image")
        places.setdefault(path, one.split)
    first: dict[bytes, Path] = {}
    lengths = {path: path.stat().st_size for path in places}
    # Only files of one length can be identical: most need not be read.
    common = {length for length, count in Counter(lengths.values()).items() if count > 1}
    for path, split in places.items():
        if lengths[path] not in common:
            continue
        original = first.setdefault(file_digest(path), path)
        if original != path:
            where = (
                f"both in {split.value}"
                if places[original] is split
                else (f"that is in {places[original].value}, this in {split.value}: scores on it mislead")
            )
            yield finding("duplicate_image", path, f"identical to {original.name}; {where}")
