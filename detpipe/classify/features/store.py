"""Region features on disk, computed once: float16 rows in features.npy, and their labels and boxes in other .npy files.

A store is a folder with features.npy (N, D), one file for each entry of COLUMNS, images.json and the manifest. Nothing
is pickled. features.npy has its full size from the start and is filled image by image. So an interrupted run resumes
and produces identical bytes. A row is identified by its box and the digest of its image: a store of other regions
reuses the rows of the regions that it shares.

N: regions of all images, in the images' order. R: of one image. D: feature width. K: classes.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from numpy.lib.format import open_memmap, write_array_header_1_0

from detpipe.classify.crops.database import verify_image
from detpipe.classify.features.geometry import COLUMNS as GEOMETRY
from detpipe.classify.features.geometry import region_geometry
from detpipe.classify.labeling import Regions
from detpipe.datasets.image_file import read_image
from detpipe.progress import counted
from detpipe.storage.atomic import replaced, write_json
from detpipe.storage.dataclass_json import DataclassJsonError, read_value
from detpipe.storage.input_file import check_input
from detpipe.storage.interrupt import Interrupted, stop_on_signal
from detpipe.storage.manifest import Manifest, read_manifest
from detpipe.storage.npy_file import NPY_ERRORS
from detpipe.structures import Float32Array, Image, ImageId, ImageRecord, Int64Array

Float16Array = npt.NDArray[np.float16]

FEATURES, IMAGES, DONE = "features.npy", "images.json", "done.json"
GROUP = 8
"""Number of images that share batches and are saved together. An interrupted run repeats at most this many."""
KEY_BYTES = 16
_ROWS_AT_ONCE = 8192
"""Number of rows that are written or checked at once."""
COLUMNS: Mapping[str, tuple[tuple[str | int, ...], str]] = {
    "boxes": (("N", 4), "float32"),
    "geometry": (("N", GEOMETRY), "float32"),
    "labels": (("N",), "int64"),
    "ious": (("N",), "float32"),
    "deltas": (("N", 4), "float32"),
    "class_ious": (("N", "K"), "float16"),
    "keys": (("N", KEY_BYTES), "uint8"),
}
"""Shape and dtype of each column; its file is NAME.npy."""
_REMEDY = "run detpipe features overwrite=true"


class FeatureStoreError(ValueError):
    """A damaged store: a file is missing, truncated or of the wrong shape, or contains NaN or infinity."""


@dataclass(frozen=True)
class StoredImage:
    """An entry of images.json: an image with its number of rows."""

    image_id: ImageId
    regions: int


class Extractor(Protocol):
    """Computes region features with a frozen network. width: D."""

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

    places: (R,) int64, rank of each region among the image's proposals; for a region that is not a proposal, the rank
    of the most similar proposal.
    """

    record: ImageRecord
    digest: bytes
    regions: Regions
    class_ious: Float32Array
    places: Int64Array

    @cached_property
    def keys(self) -> list[bytes]:
        """The key of each region: a digest of the image's digest and the box."""
        return [
            hashlib.blake2b(self.digest + box.tobytes(), digest_size=KEY_BYTES).digest()
            for box in self.regions.boxes.astype("<f4")
        ]


@dataclass(frozen=True, eq=False)
class FeatureStore:
    """A complete store, opened and checked.

    features: (N, D) float16, on disk until it is read. boxes: (N, 4). geometry: (N, G), see `region_geometry`.
    labels: (N,) int64, 0 is background. ious: (N,), IoU with the best-matching object. deltas: (N, 4) to this object, 0
    for background. class_ious: (N, K) float16, the highest IoU with an object of each class. images: (N,) int64, index
    of the image of each row. spans: the rows of each image, by image id. keys: the key of each row.
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
        """The class names in label order."""
        return tuple(self.manifest.settings["classes"])

    @property
    def category_ids(self) -> tuple[int, ...]:
        """The category id of each class in result files."""
        return tuple(self.manifest.settings["category_ids"])


def open_store(path: Path) -> FeatureStore:
    """Open a store and check sizes, dtypes, shapes, and that all numbers are finite. This reads all files once.

    Raises ArtefactError if the store is missing or unfinished, and FeatureStoreError, which names the fault.
    """
    manifest = read_manifest(path)
    try:
        images = read_value(path / IMAGES, list[StoredImage])
    except (OSError, DataclassJsonError) as error:
        raise FeatureStoreError(f"{path}: expected a feature store, got: {error}; {_REMEDY}") from error
    counts, ids = [one.regions for one in images], [one.image_id for one in images]
    rows, width = manifest.summary["regions"], manifest.summary["width"]
    if min(counts, default=0) < 0 or sum(counts) != rows:
        raise FeatureStoreError(f"{path / IMAGES}: expected {rows} regions in all, got {sum(counts)}; {_REMEDY}")
    columns: dict[str, Any] = {  # read into memory: they are small
        name: np.array(_mapped(path / f"{name}.npy", shape, kind))
        for name, (shape, kind) in _columns(rows, len(manifest.settings["classes"])).items()
    }
    ends = np.cumsum([0, *counts])
    return FeatureStore(
        path=path,
        manifest=manifest,
        features=_mapped(path / FEATURES, (rows, width), "float16"),
        **{**columns, "keys": [key.tobytes() for key in columns["keys"]]},
        images=np.repeat(np.arange(len(counts)), counts).astype(np.int64),
        spans={image_id: slice(int(a), int(b)) for image_id, a, b in zip(ids, ends[:-1], ends[1:], strict=True)},
    )


def _columns(rows: int, classes: int) -> dict[str, tuple[tuple[int, ...], str]]:
    """COLUMNS with numbers for N and K."""
    sizes = {"N": rows, "K": classes}
    return {
        name: (tuple(sizes[n] if isinstance(n, str) else n for n in shape), kind)
        for name, (shape, kind) in COLUMNS.items()
    }


def _mapped(path: Path, shape: tuple[int, ...], kind: str) -> npt.NDArray[Any]:
    """The memory-mapped array of a .npy file.

    Raises FeatureStoreError for another shape or dtype, and for NaN or infinity.
    """
    try:
        check_input(path, "an array")
        array = open_memmap(path, mode="r")
        extra = path.stat().st_size - array.offset - array.nbytes
    except NPY_ERRORS as error:
        raise FeatureStoreError(f"{path}: expected {shape} {kind}, got: {error}; {_REMEDY}") from error
    if array.shape != shape or array.dtype != kind or extra or not array.flags.c_contiguous:
        raise FeatureStoreError(
            f"{path}: expected {shape} {kind}, got {array.shape} {array.dtype} and {extra} more bytes; {_REMEDY}"
        )
    for start in range(0, len(array) if array.dtype.kind == "f" else 0, _ROWS_AT_ONCE):
        if not np.isfinite(array[start : start + _ROWS_AT_ONCE]).all():
            raise FeatureStoreError(
                f"{path}: expected finite numbers, got NaN or infinity in or after row {start}; {_REMEDY}"
            )
    return array


def fill_store(
    path: Path,
    plan: Sequence[ImageRegions],
    extractor: Extractor,
    *,
    before: Sequence[FeatureStore],
    classes: int,
) -> dict[str, int]:
    """Write the features of all regions of `plan`. An interrupted run continues after its last finished images.

    classes: K. before: other stores by the same extractor; rows with the same image and box are copied from the first
    that has them.
    Returns the summary for the manifest.
    Raises ChangedImageError if an image has changed since its proposals were made, Interrupted after a signal.
    """
    rows, width = sum(len(one.regions) for one in plan), extractor.width
    known = _known_rows(before)
    summary = {
        "regions": rows,
        "width": width,
        "images": len(plan),
        "taken_over": sum(key in known for one in plan for key in one.keys),
        "megabytes": round(rows * width * 2 / 1e6),
    }
    features, done = _resumed(path, (rows, width), len(plan)) or _new(path, (rows, width))
    row = sum(len(one.regions) for one in plan[:done])
    groups = [plan[start : start + GROUP] for start in range(done, len(plan), GROUP)]
    with stop_on_signal() as stop, counted("features", total=len(plan) - done, unit="images") as count:
        for group in groups:
            for values in _group_features(group, extractor, known):
                features[row : row + len(values)] = values
                row += len(values)
                count.advance()
            done += len(group)
            features.flush()
            write_json(path / DONE, done)
            if stop:
                raise Interrupted(f"features so far are in {path}; run the same command again, it continues from there")
    _write_columns(path, plan, classes)
    (path / DONE).unlink(missing_ok=True)
    return summary


def merge_stores(path: Path, stores: Sequence[FeatureStore], classes: int) -> dict[str, int]:
    """Write the stores of parts of a plan, in order, as one store: the files that `fill_store` writes for the plan.

    classes: K. Returns the summary for the manifest. No stores give an error of numpy; there is at least one.
    """
    rows = sum(map(len, stores))
    width = stores[0].features.shape[1]
    for name in (DONE, FEATURES):  # of an unfinished run of one process
        (path / name).unlink(missing_ok=True)
    features, _ = _new(path, (rows, width))
    row = 0
    with counted("merge", total=len(stores), unit="stores") as count:
        for store in stores:
            for start in range(0, len(store), _ROWS_AT_ONCE):
                values = store.features[start : start + _ROWS_AT_ONCE]
                features[row : row + len(values)] = values
                row += len(values)
            count.advance()
    features.flush()
    names = ("boxes", "geometry", "labels", "ious", "deltas", "class_ious")
    columns = {name: [getattr(store, name) for store in stores] for name in names}
    keys = [np.frombuffer(b"".join(store.keys), np.uint8).reshape(-1, KEY_BYTES) for store in stores]
    images = [
        {"image_id": image_id, "regions": span.stop - span.start}
        for store in stores
        for image_id, span in store.spans.items()
    ]
    _write_arrays(path, {**columns, "keys": keys}, images, classes)
    return {
        "regions": rows,
        "width": width,
        "images": len(images),
        "taken_over": sum(store.manifest.summary["taken_over"] for store in stores),
        "megabytes": round(rows * width * 2 / 1e6),
    }


def _known_rows(stores: Sequence[FeatureStore]) -> dict[bytes, tuple[FeatureStore, int]]:
    """The store and the row of each key. Of several stores with a key, the first counts."""
    return {key: (store, row) for store in reversed(stores) for row, key in enumerate(store.keys)}


def missing_regions(plan: Sequence[ImageRegions], before: Sequence[FeatureStore]) -> list[ImageRegions]:
    """The regions of a plan whose features are in no store of `before`. Images without such regions are left out."""
    known = {key for store in before for key in store.keys}
    left = [(one, np.flatnonzero([key not in known for key in one.keys])) for one in plan]
    return [
        ImageRegions(one.record, one.digest, one.regions[rows], one.class_ious[rows], one.places[rows])
        for one, rows in left
        if len(rows)
    ]


def _group_features(
    group: Sequence[ImageRegions], extractor: Extractor, known: Mapping[bytes, tuple[FeatureStore, int]]
) -> Iterator[Float16Array]:
    """The rows of each image: read from another store if they are known, else computed."""
    missing = [np.array([row for row, key in enumerate(one.keys) if key not in known], dtype=np.int64) for one in group]

    def to_compute() -> Iterator[tuple[Image, Float32Array]]:
        for one, rows in zip(group, missing, strict=True):
            if len(rows):
                verify_image(one.record.path, one.digest)
                yield read_image(one.record.path, one.record.options), one.regions.boxes[rows]

    computed = extractor.features(to_compute())
    for one, rows in zip(group, missing, strict=True):
        values = np.zeros((len(one.regions), extractor.width), dtype=np.float16)
        for row, key in enumerate(one.keys):
            if key in known:
                store, known_row = known[key]
                values[row] = store.features[known_row]
        if len(rows):
            values[rows] = _half(next(computed), one.record)
        yield values


def _half(values: Float32Array, record: ImageRecord) -> Float16Array:
    """Convert to float16. Raises FeatureStoreError for NaN, and for numbers beyond float16's 65504."""
    with np.errstate(over="ignore"):
        half = values.astype(np.float16)
    if not np.isfinite(half).all():
        raise FeatureStoreError(
            f"{record.path}: expected features within float16's 65504, got larger ones or NaN; check the weights"
        )
    return half


def _resumed(path: Path, shape: tuple[int, int], images: int) -> tuple[np.memmap[Any, Any], int] | None:
    """The features of an interrupted run, mapped for writing, and its number of finished images; None if none.

    images: number of all images.
    """
    try:
        done = read_value(path / DONE, int)
        check_input(path / FEATURES, "an array")
        before = open_memmap(path / FEATURES, mode="r")  # mapped for writing, a file that is too short would grow
    except NPY_ERRORS:
        return None
    if before.shape != shape or before.dtype != np.float16 or not before.flags.c_contiguous or not 0 <= done <= images:
        return None
    return open_memmap(path / FEATURES, mode="r+"), done


def _new(path: Path, shape: tuple[int, int]) -> tuple[np.memmap[Any, Any], int]:
    """New features (zeros), mapped for writing, and 0 finished images.

    The zeros are written to disk, so that a full disk raises OSError here. If a memory map later finds no space, the
    system kills the process.
    """
    (path / DONE).unlink(missing_ok=True)
    rows, width = shape
    try:
        with replaced(path / FEATURES) as scratch, scratch.open("wb") as file:
            write_array_header_1_0(file, {"descr": "<f2", "fortran_order": False, "shape": shape})
            for start in range(0, rows, _ROWS_AT_ONCE):
                file.write(bytes(2 * width * min(_ROWS_AT_ONCE, rows - start)))
    except OSError as error:
        raise OSError(
            error.errno,
            f"expected {rows * width * 2 / 1e6:.0f} MB of disk for the features, got: {_cause(error)}; free disk "
            "space, or use fewer regions (sampling.regions_per_image, detect.max_proposals)",
            str(path / FEATURES),
        ) from error
    return open_memmap(path / FEATURES, mode="r+"), 0


def _cause(error: OSError) -> str:
    """The system's own words: a message that names a file and a remedy would be said twice."""
    return os.strerror(error.errno) if error.errno else str(error)


def _write_columns(path: Path, plan: Sequence[ImageRegions], classes: int) -> None:
    parts: dict[str, list[npt.NDArray[Any]]] = {
        "boxes": [one.regions.boxes for one in plan],
        "geometry": [region_geometry(one.regions.boxes, one.record.image_size, one.places) for one in plan],
        "labels": [one.regions.labels for one in plan],
        "ious": [one.regions.ious for one in plan],
        "deltas": [one.regions.deltas for one in plan],
        "class_ious": [one.class_ious for one in plan],
        "keys": [np.frombuffer(b"".join(one.keys), np.uint8).reshape(-1, KEY_BYTES) for one in plan],
    }
    images = [{"image_id": one.record.image_id, "regions": len(one.regions)} for one in plan]
    _write_arrays(path, parts, images, classes)


def _write_arrays(
    path: Path,
    parts: Mapping[str, Sequence[npt.NDArray[Any]]],
    images: Sequence[Mapping[str, ImageId | int]],
    classes: int,
) -> None:
    for name, (empty, kind) in _columns(0, classes).items():
        with replaced(path / f"{name}.npy") as scratch, scratch.open("wb") as file:
            np.save(file, np.concatenate([np.zeros(empty, kind), *parts[name]]).astype(kind))
    write_json(path / IMAGES, images)
