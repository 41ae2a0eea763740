"""Inspect a database of labelled images in one pass over all records. Unreadable records are counted and named.

Memory use: 38 bytes per record. C: channels of an image, 3 (BGR) or 1 (grey).
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from detpipe.classify.images.database import stored_label, stored_paths
from detpipe.datasets.image_file import BrokenImageError, parse_header
from detpipe.progress import progress
from detpipe.storage.content_digest import ContentDigest
from detpipe.storage.datum import CorruptDatumError, parse_datum, unpack_planes
from detpipe.storage.lmdb_store import DatabaseError
from detpipe.storage.shard_index import data_files
from detpipe.storage.sharded_lmdb import open_lmdb
from detpipe.structures import Float32Array, Int64Array

KINDS = ("raw", "JPEG", "PNG", "other")
"""Storage formats of pixels. RECORD's `kind` is an index into this tuple."""
RECORD = np.dtype(
    [
        ("place", "<u8"),
        ("label", "<i4"),
        ("height", "<u4"),
        ("width", "<u4"),
        ("channels", "u1"),
        ("kind", "u1"),
        ("digest", "<u8", (2,)),
    ]
)
"""Information about one record. place: its index in key order, over all shards. digest: BLAKE2b-128 of its data."""
_PACK = struct.Struct("<QiIIBB16s")
MAX_NAMED = 1000
"""At most this many faults are kept by name; further ones are only counted."""
MAX_MEAN_PIXELS = 1 << 22
"""No mean image is computed for images with more pixels: its sums would take more than 100 MB."""


@dataclass(frozen=True)
class Fault:
    """An unreadable record or a damaged file. where: key of the record, or path of the file. reason: what is wrong."""

    where: str
    reason: str


@dataclass
class PixelStatistics:
    """Mean and standard deviation of each channel, over all pixels of the images with this number of channels."""

    pixels: int = 0
    sums: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    squares: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))

    def add(self, planes: npt.NDArray[np.uint8]) -> None:
        """Take an image (C, H, W)."""
        moments = [cv2.meanStdDev(np.ascontiguousarray(plane)) for plane in planes]
        means = np.array([float(mean[0, 0]) for mean, _ in moments])
        deviations = np.array([float(deviation[0, 0]) for _, deviation in moments])
        count = planes.shape[1] * planes.shape[2]
        if not self.pixels:
            self.sums, self.squares = np.zeros(len(planes)), np.zeros(len(planes))
        self.pixels += count
        self.sums += count * means
        self.squares += count * (deviations**2 + means**2)

    @property
    def mean(self) -> list[float]:
        """Mean of each channel, 0..255. Empty without images."""
        return [float(value) for value in self.sums / max(self.pixels, 1)]

    @property
    def std(self) -> list[float]:
        """Standard deviation of each channel, over pixels. Empty without images."""
        means = self.sums / max(self.pixels, 1)
        return [float(value) for value in np.sqrt(np.maximum(self.squares / max(self.pixels, 1) - means**2, 0))]


@dataclass
class MeanPicture:
    """The mean of all images, if all have the same size and at most MAX_MEAN_PIXELS pixels."""

    total: npt.NDArray[np.uint64] | None = None
    images: int = 0
    is_over: bool = False

    def add(self, planes: npt.NDArray[np.uint8]) -> None:
        """Take an image (C, H, W)."""
        if self.is_over:
            return
        if self.total is None and planes.shape[1] * planes.shape[2] <= MAX_MEAN_PIXELS:
            self.total = np.zeros(planes.shape, dtype=np.uint64)
        if self.total is None or self.total.shape != planes.shape:
            self.total, self.is_over = None, True
            return
        self.total += planes
        self.images += 1

    @property
    def mean(self) -> Float32Array | None:
        """(C, H, W), 0..255; None if sizes differ or are too large, and without images."""
        return None if self.total is None else (self.total / self.images).astype(np.float32)


@dataclass(frozen=True, kw_only=True, eq=False)
class DatabaseContents:
    """The contents of a database.

    shards: the LMDB folders that were read. bytes: the size of their files. records: (N,) RECORD, the readable records
    in order. faults: the first MAX_NAMED of all fault_count faults. unreadable: the number of unreadable records,
    without the records of damaged files. pixels: statistics by C. mean: (C, H, W), 0..255, None if sizes differ.
    digest: of all keys and records, as in make-db.
    """

    path: Path
    shards: tuple[Path, ...]
    bytes: int
    records: npt.NDArray[np.void]
    faults: tuple[Fault, ...]
    fault_count: int
    unreadable: int
    pixels: dict[int, PixelStatistics]
    mean: Float32Array | None
    digest: str

    @property
    def labels(self) -> Int64Array:
        """Labels (N,), in the order of `records`."""
        return self.records["label"].astype(np.int64)

    def label_counts(self) -> dict[int, int]:
        """Number of records with each label, in label order."""
        values, counts = np.unique(self.records["label"], return_counts=True)
        return dict(zip(values.tolist(), counts.tolist(), strict=True))

    def kind_counts(self) -> dict[str, int]:
        """Number of records in each storage format that occurs."""
        counts = np.bincount(self.records["kind"], minlength=len(KINDS)).tolist()
        return {kind: count for kind, count in zip(KINDS, counts, strict=True) if count}

    def size_counts(self) -> dict[tuple[int, int, int], int]:
        """Number of records with each (height, width, channels), the most frequent first."""
        columns = np.stack([self.records[name].astype(np.int64) for name in ("height", "width", "channels")], axis=1)
        sizes, counts = np.unique(columns, axis=0, return_counts=True)
        order = np.argsort(-counts, kind="stable").tolist()
        return {(int(sizes[i, 0]), int(sizes[i, 1]), int(sizes[i, 2])): int(counts[i]) for i in order}

    def repeats(self) -> list[Int64Array]:
        """Groups of records with identical data: ascending indices into `records`, groups with several labels first."""
        if not len(self.records):
            return []
        digests = np.ascontiguousarray(self.records["digest"]).view("<u8,<u8").ravel()
        order = np.argsort(digests, kind="stable")
        begins = np.flatnonzero(np.concatenate([[True], digests[order][1:] != digests[order][:-1]]))
        groups = [group.astype(np.int64) for group in np.split(order, begins[1:]) if len(group) > 1]
        return sorted(groups, key=lambda group: (not self.is_contradiction(group), int(group[0])))

    def is_contradiction(self, group: Int64Array) -> bool:
        """Whether these records have several labels."""
        return len(np.unique(self.records["label"][group])) > 1


def read_contents(path: Path) -> DatabaseContents:
    """Read and decode every record of a database or its shards, as training would.

    Unreadable records and damaged shards are skipped and reported as faults. An empty database gives no records. Raises
    DatabaseError if there is no database, or if all its files are damaged.
    """
    faults, shards = _Faults(), stored_paths(path)
    sound = _sound(shards, faults)
    rows, digest = bytearray(), ContentDigest()
    pixels: dict[int, PixelStatistics] = {}
    mean = MeanPicture()
    found = progress(_records(sound, faults), "inspect", total=sum(sound.values()), unit="records")
    for index, (key, record) in enumerate(found):
        digest.add(key, record)
        try:
            label, kind, data, planes = _read(record)
        except (CorruptDatumError, BrokenImageError) as error:
            faults.add_record(key, str(error).removeprefix(": "))
            continue
        content = hashlib.blake2b(data, digest_size=16).digest()
        channels, height, width = planes.shape
        rows += _PACK.pack(index, label, height, width, channels, kind, content)
        pixels.setdefault(channels, PixelStatistics()).add(planes)
        mean.add(planes)
    return DatabaseContents(
        path=path,
        shards=tuple(sound),
        bytes=sum(file.stat().st_size for shard in sound for file in data_files(shard)),
        records=np.frombuffer(bytes(rows), dtype=RECORD),
        faults=tuple(faults.named),
        fault_count=faults.count,
        unreadable=faults.records,
        pixels=pixels,
        mean=mean.mean,
        digest=digest.hexdigest(),
    )


@dataclass
class _Faults:
    """The faults found so far. count: number of all faults. records: number of unreadable records among them."""

    named: list[Fault] = field(default_factory=list)
    count: int = 0
    records: int = 0

    def add_record(self, key: bytes, reason: str) -> None:
        self.records += 1
        self.add(f"record {key.decode(errors='replace')}", reason)

    def add(self, where: str, reason: str) -> None:
        self.count += 1
        if len(self.named) < MAX_NAMED:
            self.named.append(Fault(where, reason))


def _sound(shards: Sequence[Path], faults: _Faults) -> dict[Path, int]:
    """The undamaged shards with their numbers of records. Damaged shards are added to the faults.

    Raises DatabaseError if all shards are damaged.
    """
    sound, errors = {}, []
    for shard in shards:
        try:
            with open_lmdb(shard) as store:
                sound[shard] = len(store)
        except DatabaseError as error:
            faults.add(str(shard), str(error).removeprefix(f"{shard}/"))
            errors.append(error)
    if not sound:
        raise errors[0]
    return sound


def _records(shards: Iterable[Path], faults: _Faults) -> Iterator[tuple[bytes, memoryview]]:
    """Keys and values of all shards, without copying. An LMDB error ends its shard and is added to the faults."""
    for shard in shards:
        try:
            with open_lmdb(shard) as store:
                yield from store.views()
        except DatabaseError as error:
            faults.add(str(shard), str(error).removeprefix(f"{shard}: "))


def _read(record: memoryview) -> tuple[int, int, bytes, npt.NDArray[np.uint8]]:
    """Label, kind, data and planes (C, H, W). Raises CorruptDatumError or BrokenImageError, which begin with ": "."""
    label = stored_label(record, "")
    datum = parse_datum(bytes(record), "")
    kind = "raw"
    if datum.encoded:
        # The header first: it reveals a truncated file, and a size that does not fit into memory.
        kind = parse_header(datum.data, "").format
    planes = unpack_planes(datum, "")
    return label, KINDS.index(kind if kind in KINDS else "other"), datum.data or planes.tobytes(), planes
