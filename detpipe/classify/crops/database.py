"""The database of crops: an LMDB of Datum messages, shuffled once when it is written.

A record's key is "<shuffled index>_<image id>" ("00000042_2007_000027"). So reading in key order is reading in random
order, here and in Caffe.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from detpipe.classify.crops.crop import crop_regions
from detpipe.classify.crops.settings import CropConfig, Encoding
from detpipe.classify.labeling import BACKGROUND, Regions
from detpipe.datasets.image_file import file_digest, read_image
from detpipe.storage import sharded_lmdb
from detpipe.storage.datum import CorruptDatumError, pack_image, parse_datum, unpack_image
from detpipe.storage.lmdb_store import DatabaseError
from detpipe.structures import PLAIN_READING, Float32Array, ImageId, Int64Array, ReadOptions


class ChangedImageError(ValueError):
    """An image file that has changed since its proposals were made."""


@dataclass(frozen=True)
class CropTask:
    """What a worker needs to make the records of one image's crops.

    digest: of the file that the proposals were made from. regions: R labelled boxes. keys: R keys, in the same order.
    options: how the file is read.
    """

    image_id: ImageId
    path: Path
    digest: bytes
    regions: Regions
    keys: tuple[bytes, ...]
    config: CropConfig
    options: ReadOptions = PLAIN_READING


def shuffled_keys(image_ids: Sequence[ImageId], seed: int) -> list[bytes]:
    """Keys of N crops with these image ids. Their indices are a random permutation of 0..N-1. N = 0 gives []."""
    return sharded_lmdb.shuffled_keys([_name(image_id) for image_id in image_ids], seed)


def ordered_keys(image_ids: Sequence[ImageId]) -> list[bytes]:
    """Keys of N crops of a shard, with the indices 0..N-1 in this order. N = 0 gives []."""
    return [sharded_lmdb.numbered_key(index, _name(image_id)) for index, image_id in enumerate(image_ids)]


def _name(image_id: ImageId) -> bytes:
    return str(image_id).encode("utf-8", "surrogateescape")


def make_records(task: CropTask) -> list[tuple[bytes, bytes]]:
    """Crop, encode and serialise the regions of one image. Returns (key, Datum) pairs in the order of the regions.

    Raises ChangedImageError if the file has changed since its proposals were made.
    """
    verify_image(task.path, task.digest)
    crops = crop_regions(read_image(task.path, task.options), task.regions.boxes, task.config)
    quality = task.config.jpeg_quality if task.config.encoding is Encoding.jpeg else None
    records = []
    for key, crop, box, label, iou, deltas in zip(
        task.keys,
        crops,
        task.regions.boxes,
        task.regions.labels,
        task.regions.ious,
        task.regions.deltas,
        strict=True,
    ):
        datum = pack_image(crop, jpeg_quality=quality)
        datum.label = int(label)
        datum.iou = float(iou)
        # Protobuf strings must be UTF-8, but file names may not be. The key holds the exact bytes.
        datum.image_id = str(task.image_id).encode("utf-8", "backslashreplace").decode()
        datum.box.extend(box.tolist())
        if label > BACKGROUND:
            datum.box_target.extend(deltas.tolist())
        records.append((key, datum.SerializeToString(deterministic=True)))
    return records


def verify_image(path: Path, digest: bytes) -> None:
    """Raise ChangedImageError if the file has another digest."""
    if file_digest(path) != digest:
        raise ChangedImageError(f"{path}: changed since its proposals were made; run propose with overwrite=true")


@dataclass(frozen=True, eq=False)
class CropBatch:
    """crops: (N, S, S, 3) uint8 RGB. labels: (N,) int64, 0 is background. deltas: (N, 4) float32, 0 for background."""

    crops: npt.NDArray[np.uint8]
    labels: Int64Array
    deltas: Float32Array


class CropsReader:
    """Random and sequential access to a database of crops by index 0..N-1, in key order.

    labels: (N,) int64. ious: (N,) float32. Opening reads every record once. This verifies all checksums and loads
    a database that fits into the page cache. Raises CorruptDatumError, which names the record, and DatabaseError.
    """

    def __init__(self, path: Path) -> None:
        self._store = sharded_lmdb.open_lmdb(path)
        places, keys, labels, ious = [], [], [], []
        try:
            for place, key, record in self._store.stored():
                datum = parse_datum(bytes(record), self._where(key))
                places.append(place)
                keys.append(key)
                labels.append(datum.label)
                ious.append(datum.iou)
        except (CorruptDatumError, DatabaseError):
            self._store.close()  # The caller gets no reader to close, and a database that is open cannot be written.
            raise
        order = np.argsort(places)
        self._keys = [keys[at] for at in order.tolist()]
        self.labels: Int64Array = np.array(labels, dtype=np.int64)[order]
        self.ious: Float32Array = np.array(ious, dtype=np.float32)[order]

    def __len__(self) -> int:
        return len(self._keys)

    def read(self, indices: Sequence[int] | Int64Array) -> CropBatch:
        """The crops at these indices. No indices give a batch of shapes (0, 0, 0, 3), (0,), (0, 4)."""
        images = []
        deltas = np.zeros((len(indices), 4), dtype=np.float32)
        for row, index in enumerate(indices):
            key = self._keys[index]
            datum = parse_datum(self._store.get(key), self._where(key))
            images.append(unpack_image(datum, self._where(key)))
            if datum.box_target:
                if len(datum.box_target) != 4:
                    raise CorruptDatumError(f"{self._where(key)}: expected 4 deltas, got {len(datum.box_target)}")
                deltas[row] = datum.box_target
        crops = np.stack(images) if images else np.zeros((0, 0, 0, 3), dtype=np.uint8)
        return CropBatch(crops, self.labels[np.asarray(indices, dtype=np.int64)], deltas)

    def close(self) -> None:
        """Close the database."""
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _where(self, key: bytes) -> str:
        return f"{self._store.path}, record {key.decode(errors='replace')}"
