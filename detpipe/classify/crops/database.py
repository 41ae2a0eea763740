"""The database of crops: an LMDB of Datum messages, shuffled once when it is written.

A record's key is its place in the shuffled order and its image's id ("00000042_2007_000027"), so that reading in
order is reading in random order, for us as for Caffe.
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
from detpipe.storage.datum import CorruptDatumError, pack_image, parse_datum, unpack_image
from detpipe.storage.lmdb_pages import check_pages
from detpipe.storage.lmdb_store import MAX_KEY, LmdbReader
from detpipe.structures import Float32Array, ImageId, Int64Array


class ChangedImageError(ValueError):
    """An image file that is not the one the proposals were made on."""


@dataclass(frozen=True)
class CropTask:
    """The crops of one image: what a worker needs to make their records.

    digest: of the file that the proposals were made on. regions: R labelled boxes. keys: R keys, in the same order.
    """

    image_id: ImageId
    path: Path
    digest: bytes
    regions: Regions
    keys: tuple[bytes, ...]
    config: CropConfig


def shuffled_keys(image_ids: Sequence[ImageId], seed: int) -> list[bytes]:
    """A key for each of N crops, given by the ids of their images; a permutation of places 0..N-1. N = 0 gives []."""
    places = np.random.default_rng(seed).permutation(len(image_ids))
    return [
        f"{place:08d}_{image_id}".encode("utf-8", "surrogateescape")[:MAX_KEY]
        for place, image_id in zip(places, image_ids, strict=True)
    ]


def make_records(task: CropTask) -> list[tuple[bytes, bytes]]:
    """Cut, encode and serialise the crops of one image: (key, Datum) for each, in the order of its regions.

    Raises ChangedImageError where the file is not the one that the proposals were made on.
    """
    verify_image(task.path, task.digest)
    crops = crop_regions(read_image(task.path), task.regions.boxes, task.config)
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
        # A protobuf's text must be UTF-8, which a file's name need not be; the key has its very bytes.
        datum.image_id = str(task.image_id).encode("utf-8", "backslashreplace").decode()
        datum.box.extend(box.tolist())
        if label > BACKGROUND:
            datum.box_target.extend(deltas.tolist())
        records.append((key, datum.SerializeToString(deterministic=True)))
    return records


def verify_image(path: Path, digest: bytes) -> None:
    """Raise ChangedImageError where the file's digest is another."""
    if file_digest(path) != digest:
        raise ChangedImageError(f"{path}: changed since its proposals were made; run propose with overwrite=true")


@dataclass(frozen=True, eq=False)
class CropBatch:
    """crops: (N, S, S, 3) uint8 RGB. labels: (N,) int64, 0 background. deltas: (N, 4) float32, 0 for background."""

    crops: npt.NDArray[np.uint8]
    labels: Int64Array
    deltas: Float32Array


class CropsReader:
    """Random and sequential access to a database of crops, by place 0..N-1 in key order.

    labels: (N,) int64. ious: (N,) float32. Opening reads every record once, which verifies all checksums and brings a
    database that fits into memory there. Raises CorruptDatumError naming the record.
    """

    def __init__(self, path: Path) -> None:
        self._store = LmdbReader(path)
        check_pages(path)
        keys, labels, ious = [], [], []
        try:
            for key, record in self._store.items():
                datum = parse_datum(record, self._where(key))
                keys.append(key)
                labels.append(datum.label)
                ious.append(datum.iou)
        except CorruptDatumError:
            self._store.close()  # Nobody gets this reader to close it, and an open database can't be made again.
            raise
        self._keys = keys
        self.labels: Int64Array = np.array(labels, dtype=np.int64)
        self.ious: Float32Array = np.array(ious, dtype=np.float32)

    def __len__(self) -> int:
        return len(self._keys)

    def read(self, places: Sequence[int] | Int64Array) -> CropBatch:
        """The crops at these places. No places give a batch of shapes (0, 0, 0, 3), (0,), (0, 4)."""
        images = []
        deltas = np.zeros((len(places), 4), dtype=np.float32)
        for row, place in enumerate(places):
            key = self._keys[place]
            datum = parse_datum(self._store.get(key), self._where(key))
            images.append(unpack_image(datum, self._where(key)))
            if datum.box_target:
                if len(datum.box_target) != 4:
                    raise CorruptDatumError(f"{self._where(key)}: expected 4 deltas, got {len(datum.box_target)}")
                deltas[row] = datum.box_target
        crops = np.stack(images) if images else np.zeros((0, 0, 0, 3), dtype=np.uint8)
        return CropBatch(crops, self.labels[np.asarray(places, dtype=np.int64)], deltas)

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
