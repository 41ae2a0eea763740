"""Features of regions on disk, computed once: float16 rows, memory-mapped, beside the columns that say what each is.

One folder a store: features.f16 (N, D) as it lies in memory, columns.safetensors, images.json and the manifest.
Nothing is pickled. A store has its full size from the start and is filled image by image, so a killed one goes on, and
ends with the same bytes. A row is known by the digest of its image and its box: a store of other regions takes over
those rows.

N: regions of all images, in the images' order. R: of one image. D: feature width. K: classes.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from detpipe.classify.crops.database import verify_image
from detpipe.classify.features.geometry import COLUMNS as GEOMETRY
from detpipe.classify.features.geometry import region_geometry
from detpipe.classify.labeling import Regions
from detpipe.datasets.image_file import read_image
from detpipe.progress import progress
from detpipe.storage.atomic import replaced, write_json
from detpipe.storage.interrupt import StopRequest
from detpipe.storage.manifest import Manifest, read_manifest
from detpipe.structures import Float32Array, Image, ImageId, ImageRecord, Int64Array

Float16Array = npt.NDArray[np.float16]

FEATURES, COLUMNS, IMAGES, DONE = "features.f16", "columns.safetensors", "images.json", "done.json"
GROUP = 8
"""Images whose regions share batches, and that are committed together: what a killed run does again, at most."""
KEY_BYTES = 16
_CHECKED_ROWS = 8192
_ZEROS = 1 << 24
"""Bytes that are written at once, where the system can't take room by itself."""
_EXPONENT = np.uint16(0x7C00)
"""The bits of a float16's exponent."""
_COLUMNS: Mapping[str, tuple[tuple[str | int, ...], str]] = {
    "boxes": (("N", 4), "float32"),
    "geometry": (("N", GEOMETRY), "float32"),
    "labels": (("N",), "int64"),
    "ious": (("N",), "float32"),
    "deltas": (("N", 4), "float32"),
    "class_ious": (("N", "K"), "float16"),
}
"""Shape and type of each column of numbers."""


class FeatureStoreError(ValueError):
    """A store that is not whole: files missing, of the wrong size, or with numbers that are none."""


class Extractor(Protocol):
    """What makes features of regions: a frozen network. width: D."""

    @property
    def width(self) -> int:
        """D, the length of a feature vector."""
        ...

    def features(self, images: Iterable[tuple[Image, Float32Array]]) -> Iterator[Float32Array]:
        """(R, D) float32 for the boxes (R, 4) of each image, in order; R may be 0."""
        ...


@dataclass(frozen=True, eq=False)
class ImageRegions:
    """The regions of one image that a store holds. digest: of the image's file. class_ious: (R, K) float32.

    places: (R,) int64, of each among the image's proposals; of one that is none, of the proposal that is most like it.
    """

    record: ImageRecord
    digest: bytes
    regions: Regions
    class_ious: Float32Array
    places: Int64Array

    @cached_property
    def keys(self) -> list[bytes]:
        """What each region is known by: a digest of the image's and of the box."""
        return [
            hashlib.blake2b(self.digest + box.tobytes(), digest_size=KEY_BYTES).digest()
            for box in self.regions.boxes.astype("<f4")
        ]


@dataclass(frozen=True, eq=False)
class FeatureStore:
    """A complete store, opened and checked.

    features: (N, D) float16, on disk until it is read. boxes: (N, 4). geometry: (N, G), see `region_geometry`.
    labels: (N,) int64, 0 background. ious: (N,) with the nearest object. deltas: (N, 4) onto it, 0 for background.
    class_ious: (N, K) float16, the best overlap with an object of each class. images: (N,) int64, the place of each
    row's image. spans: of each image's rows, by its id. keys: of each row.
    """

    path: Path
    manifest: Manifest
    features: Float16Array
    boxes: Float32Array
    geometry: Float32Array
    labels: Int64Array
    ious: Float32Array
    deltas: Float32Array
    class_ious: Float16Array
    images: Int64Array
    spans: Mapping[ImageId, slice]
    keys: Sequence[bytes]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names in label order."""
        return tuple(self.manifest.settings["classes"])

    @property
    def category_ids(self) -> tuple[int, ...]:
        """The number of each class in a result file."""
        return tuple(self.manifest.settings["category_ids"])


def open_store(path: Path) -> FeatureStore:
    """Open and check: sizes, types, shapes, and that every number is one; a pass over the file.

    Raises ArtefactError where it is missing or unfinished, FeatureStoreError naming what is wrong.
    """
    manifest = read_manifest(path)
    try:
        columns = load_file(path / COLUMNS)
        images = json.loads((path / IMAGES).read_text(encoding="utf-8"))
        counts = [int(one["regions"]) for one in images]
        ids: list[ImageId] = [one["image_id"] for one in images]
        rows, width = int(manifest.summary["regions"]), int(manifest.summary["width"])
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise FeatureStoreError(f"{path}: wanted a feature store, got: {error}; {_REMEDY}") from error
    _check_columns(path, columns, rows, len(manifest.settings["classes"]))
    if min(counts, default=0) < 0 or sum(counts) != rows:
        raise FeatureStoreError(f"{path / IMAGES}: wanted {rows} regions in all, got {sum(counts)}; {_REMEDY}")
    ends = np.cumsum([0, *counts])
    return FeatureStore(
        path=path,
        manifest=manifest,
        features=_mapped(path / FEATURES, rows, width),
        **{name: columns[name] for name in _COLUMNS},
        images=np.repeat(np.arange(len(counts)), counts).astype(np.int64),
        spans={image_id: slice(int(a), int(b)) for image_id, a, b in zip(ids, ends[:-1], ends[1:], strict=True)},
        keys=[key.tobytes() for key in columns["keys"]],
    )


_REMEDY = "make it anew: detpipe features overwrite=true"


def _check_columns(path: Path, columns: Mapping[str, npt.NDArray[np.generic]], rows: int, classes: int) -> None:
    sizes = {"N": rows, "K": classes}
    wanted = {
        name: (tuple(sizes[n] if isinstance(n, str) else n for n in shape), kind)
        for name, (shape, kind) in _COLUMNS.items()
    }
    wanted["keys"] = ((rows, KEY_BYTES), "uint8")
    for name, (shape, kind) in wanted.items():
        column = columns.get(name)
        if column is None or column.shape != shape or column.dtype != kind:
            found = "none" if column is None else f"{column.shape} {column.dtype}"
            raise FeatureStoreError(f"{path / COLUMNS}: wanted {name} as {shape} {kind}, got {found}; {_REMEDY}")
        if column.dtype.kind == "f" and not np.isfinite(column).all():
            raise FeatureStoreError(f"{path / COLUMNS}: {name} has a number that is none; {_REMEDY}")


def _mapped(path: Path, rows: int, width: int) -> Float16Array:
    """The file as an array; every number looked at, a piece at a time."""
    size = path.stat().st_size if path.is_file() else -1
    if size != rows * width * 2:
        raise FeatureStoreError(f"{path}: wanted {rows} x {width} float16, {rows * width * 2} bytes, got {size}")
    if not size:  # nothing can be mapped
        return np.zeros((rows, width), dtype=np.float16)
    features = np.memmap(path, dtype=np.float16, mode="r", shape=(rows, width))
    for start in range(0, rows, _CHECKED_ROWS):
        # Infinities and NaN have all bits of the exponent; looked at as integers, it takes a third of the time.
        bits = features[start : start + _CHECKED_ROWS].view(np.uint16) & _EXPONENT
        if (bits == _EXPONENT).any():
            raise FeatureStoreError(f"{path}: a number that is none after row {start}; {_REMEDY}")
    return features


def fill_store(
    path: Path,
    plan: Sequence[ImageRegions],
    extractor: Extractor,
    *,
    before: FeatureStore | None,
    stop: StopRequest,
    classes: int,
) -> dict[str, int] | None:
    """Write the features of all regions of `plan`; goes on after the images that an earlier run finished.

    classes: K. before: an earlier store by the same extractor, whose rows are taken over where image and box are the
    same.
    Returns the summary for the manifest, or None after a signal.
    Raises ChangedImageError for an image that is not the one that was proposed on.
    """
    rows, width = sum(len(one.regions) for one in plan), extractor.width
    known = {} if before is None else {key: row for row, key in enumerate(before.keys)}
    summary = {
        "regions": rows,
        "width": width,
        "images": len(plan),
        "taken_over": sum(key in known for one in plan for key in one.keys),
        "megabytes": round(rows * width * 2 / 1e6),
    }
    if before is not None and [key for one in plan for key in one.keys] == list(before.keys):
        _same_file(before.path / FEATURES, path / FEATURES)
        _write_columns(path, plan, classes)
        return summary
    done = _images_done(path) if _has_room(path / FEATURES, rows, width) else 0
    features = _room(path / FEATURES, rows, width)
    row = sum(len(one.regions) for one in plan[:done])
    groups = [plan[start : start + GROUP] for start in range(done, len(plan), GROUP)]
    for group in progress(groups, "features", total=len(groups), unit=f"batch of {GROUP} image"):
        for values in _group_features(group, extractor, before, known):
            features[row : row + len(values)] = values
            row += len(values)
        done += len(group)
        if isinstance(features, np.memmap):
            features.flush()
        write_json(path / DONE, done)
        if stop:
            return None
    _write_columns(path, plan, classes)
    (path / DONE).unlink(missing_ok=True)
    return summary


def missing_regions(plan: Sequence[ImageRegions], before: FeatureStore | None) -> list[ImageRegions]:
    """The part of a plan whose features `before` doesn't have; images without such a region are left out."""
    known = set() if before is None else set(before.keys)
    left = [(one, np.flatnonzero([key not in known for key in one.keys])) for one in plan]
    return [
        ImageRegions(one.record, one.digest, one.regions[rows], one.class_ious[rows], one.places[rows])
        for one, rows in left
        if len(rows)
    ]


def _group_features(
    group: Sequence[ImageRegions], extractor: Extractor, before: FeatureStore | None, known: Mapping[bytes, int]
) -> Iterator[Float16Array]:
    """The rows of each image: read from `before` where they are there, computed where they are not."""
    lacking = [np.array([row for row, key in enumerate(one.keys) if key not in known], dtype=np.int64) for one in group]

    def unseen() -> Iterator[tuple[Image, Float32Array]]:
        for one, rows in zip(group, lacking, strict=True):
            if len(rows):
                verify_image(one.record.path, one.digest)
                yield read_image(one.record.path), one.regions.boxes[rows]

    computed = extractor.features(unseen())
    for one, rows in zip(group, lacking, strict=True):
        values = np.zeros((len(one.regions), extractor.width), dtype=np.float16)
        if before is not None:
            for row, key in enumerate(one.keys):
                if key in known:
                    values[row] = before.features[known[key]]
        if len(rows):
            values[rows] = _half(next(computed), one.record)
        yield values


def _half(values: Float32Array, record: ImageRecord) -> Float16Array:
    """Float16, which ends at 65504. Raises FeatureStoreError where that is not enough, or a number is none."""
    with np.errstate(over="ignore"):
        half = values.astype(np.float16)
    if not np.isfinite(half).all():
        raise FeatureStoreError(
            f"{record.path}: features beyond float16's 65504, or no numbers; other weights, perhaps?"
        )
    return half


def _same_file(source: Path, target: Path) -> None:
    """The same rows under another name: nobody writes to a finished store, so nothing is copied where links can be."""
    target.unlink(missing_ok=True)
    try:
        target.hardlink_to(source)
    except OSError:  # a file system without links
        with replaced(target) as scratch:
            shutil.copyfile(source, scratch)


def _room(path: Path, rows: int, width: int) -> Float16Array:
    """The file at its full size, mapped for writing; one of the right size keeps what is in it."""
    if not rows * width:
        path.write_bytes(b"")
        return np.zeros((rows, width), dtype=np.float16)
    _take_room(path, rows * width * 2, new=not _has_room(path, rows, width))
    features: np.memmap[tuple[int, int], np.dtype[np.float16]] = np.memmap(
        path, dtype=np.float16, mode="r+", shape=(rows, width)
    )
    return features


def _take_room(path: Path, size: int, *, new: bool) -> None:
    """The file's bytes on the disk, zeros where it is new: a full disk is no error of a map, but a fatal signal.

    Raises OSError where there is not so much room; a new file is gone then.
    """
    try:
        with path.open("wb" if new else "rb+") as file:
            if not _allocated(file.fileno(), size) and new:
                for start in range(0, size, _ZEROS):
                    file.write(bytes(min(_ZEROS, size - start)))
    except OSError as error:
        if new:
            path.unlink(missing_ok=True)
        raise OSError(
            error.errno,
            f"wanted {size / 1e6:.0f} MB of disk for the features, got: {error.strerror}; make room, or ask for fewer "
            "regions (sampling.regions_per_image, detect.max_proposals)",
            str(path),
        ) from error


def _allocated(descriptor: int, size: int) -> bool:
    """Whether the system could take the room by itself. Raises OSError where there is not so much."""
    if not hasattr(os, "posix_fallocate"):
        return False
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):  # a file system that doesn't know how
            return False
        raise
    return True


def _has_room(path: Path, rows: int, width: int) -> bool:
    """Whether the file is there at its full size: what an earlier run wrote into it counts."""
    return path.is_file() and path.stat().st_size == rows * width * 2


def _images_done(path: Path) -> int:
    if not (path / DONE).is_file():
        return 0
    return int(json.loads((path / DONE).read_text(encoding="utf-8")))


def _write_columns(path: Path, plan: Sequence[ImageRegions], classes: int) -> None:
    regions = [one.regions for one in plan]
    columns: dict[str, npt.NDArray[np.generic]] = {
        "boxes": np.concatenate([np.zeros((0, 4), np.float32), *(one.boxes for one in regions)]),
        "geometry": np.concatenate(
            [
                np.zeros((0, GEOMETRY), np.float32),
                *(region_geometry(one.regions.boxes, one.record.image_size, one.places) for one in plan),
            ]
        ),
        "labels": np.concatenate([np.zeros(0, np.int64), *(one.labels for one in regions)]),
        "ious": np.concatenate([np.zeros(0, np.float32), *(one.ious for one in regions)]),
        "deltas": np.concatenate([np.zeros((0, 4), np.float32), *(one.deltas for one in regions)]),
        "class_ious": np.concatenate(
            [np.zeros((0, classes), np.float16), *(one.class_ious.astype(np.float16) for one in plan)]
        ),
        "keys": np.frombuffer(b"".join(key for one in plan for key in one.keys), np.uint8).reshape(-1, KEY_BYTES),
    }
    with replaced(path / COLUMNS) as scratch:
        save_file({name: np.ascontiguousarray(column) for name, column in columns.items()}, scratch)
    write_json(path / IMAGES, [{"image_id": one.record.image_id, "regions": len(one.regions)} for one in plan])
