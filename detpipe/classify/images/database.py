"""The database of labelled images: an LMDB of Caffe's Datum messages, or several shards, as in convert_imageset.

A record's key is "<index>_<image name>" ("00000042_n01440764/a.JPEG"), as in Caffe. Raw records equal Caffe's byte for
byte. So classes, seed and digests are not in the records but in the manifest.
"""

from __future__ import annotations

import enum
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import cv2
import numpy as np
import numpy.typing as npt

from detpipe.datasets.image_file import BrokenImageError, read_grey, read_header, read_image
from detpipe.resize import Interpolation, resize
from detpipe.storage.datum import (
    CorruptDatumError,
    caffe_datum,
    caffe_encoded_datum,
    parse_datum,
    unpack_image,
    unpack_planes,
)
from detpipe.storage.encoded_image import JPEG_SIDE
from detpipe.storage.input_file import read_input
from detpipe.storage.lmdb_store import MAX_KEY, DatabaseError
from detpipe.storage.messages_pb2 import Datum
from detpipe.storage.shard_index import is_lmdb
from detpipe.storage.sharded_lmdb import open_lmdb
from detpipe.storage.wire import VARINT, read_fields, read_varint
from detpipe.structures import MAX_PIXELS, Image, Int64Array, ReadOptions

logger = logging.getLogger(__name__)

SHARD = "shard_{:05d}"
SMALL = 1 << 14
"""Records up to this many bytes are parsed whole: most of their data is read with the first page anyway."""
RECORD_BYTES = (1 << 31) - 1024
"""Limit of protobuf on the size of a message, less the other fields."""
RUNS_FROM = 8
"""Fewer records than this are not checked for runs of equal labels: they may occur by chance."""


class Encode(enum.Enum):
    """How pixels are stored. none: raw, lossless, no decoding. jpg, png: records contain JPEG or PNG files."""

    none = "none"
    jpg = "jpg"
    png = "png"


_FORMAT = {Encode.jpg: "JPEG", Encode.png: "PNG"}


@dataclass(frozen=True)
class Resize:
    """How images are resized.

    size: (height, width); the aspect ratio is not kept. short: length of the shorter side; the aspect ratio is kept.
    At most one of them is given. Both None: no resizing.
    """

    size: tuple[int, int] | None = None
    short: int | None = None

    @classmethod
    def parse(cls, text: str) -> Resize:
        """Parse HEIGHTxWIDTH, short:SIDE or none. Raises ValueError for any other text."""
        if text == "none":
            return cls()
        kind, _, side = text.rpartition(":")
        height, _, width = text.partition("x")
        if kind == "short" and _is_side(side):
            return cls(short=int(side))
        if _is_side(height) and _is_side(width):
            return cls(size=(int(height), int(width)))
        raise ValueError(f"resize: expected HEIGHTxWIDTH (256x256), short:SIDE (short:256) or none, got {text!r}")

    def __call__(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Resize (H, W, 3) or (H, W) to the new size.

        `size` uses bilinear interpolation without antialiasing, as convert_imageset does. `short` uses antialiasing,
        which avoids false edges in a smaller image.
        """
        if self.size is not None:
            return resize(image, self.size, Interpolation.bilinear, antialias=False)
        new = self.resized((image.shape[0], image.shape[1]))
        return image if new == image.shape[:2] else resize(image, new)

    def resized(self, size: tuple[int, int]) -> tuple[int, int]:
        """The (height, width) that an image of this size is resized to."""
        if self.size is not None or self.short is None:
            return self.size or size
        height, width = size
        scale = self.short / min(height, width)
        return max(self.short, round(height * scale)), max(self.short, round(width * scale))


def _is_side(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 5 and int(text) > 0


@dataclass(frozen=True)
class ImageForm:
    """How images are stored.

    grey: convert to one channel. quality: JPEG quality, 1 to 100. max_pixels: limit on height x width of an image, both
    in its file and as it is stored.
    """

    resize: Resize
    encode: Encode
    grey: bool
    quality: int
    max_pixels: int = MAX_PIXELS

    def check(self, size: tuple[int, int]) -> None:
        """Raise ValueError unless an image of this (height, width) can be stored."""
        height, width = size
        # An encoded record with more pixels than MAX_PIXELS is refused when it is read.
        most = self.max_pixels if self.encode is Encode.none else min(self.max_pixels, MAX_PIXELS)
        if height * width > most:
            raise ValueError(
                f"expected an image of at most {most:,} pixels after resizing, got {width} x {height}; give a smaller "
                "resize, or raise max_pixels"
            )
        if self.encode is Encode.jpg and max(size) > JPEG_SIDE:
            raise ValueError(
                f"expected sides of at most {JPEG_SIDE:,} pixels for a JPEG, got {width} x {height}; give a smaller "
                "resize, or encode=png"
            )
        if 3 * height * width > RECORD_BYTES:
            raise ValueError(
                f"expected at most {RECORD_BYTES:,} bytes, got {width} x {height} pixels; give a smaller resize"
            )


@dataclass(frozen=True)
class ImageTask:
    """What a worker needs to make the record of one image. grey: its pixels (H, W), if it has no file."""

    path: Path
    label: int
    key: bytes
    form: ImageForm
    grey: npt.NDArray[np.uint8] | None = None


@dataclass(frozen=True)
class ImageRecord:
    """A record. size: (height, width) of the stored image."""

    key: bytes
    value: bytes
    size: tuple[int, int]


@dataclass(frozen=True)
class BrokenImage:
    """An image that could not be read, and why."""

    reason: str


def image_key(index: int, name: str) -> bytes:
    """Caffe's key of an image: "%08d_name" with its index in the order, truncated to the maximum of LMDB."""
    return os.fsencode(f"{index:08d}_{name}")[:MAX_KEY]


def image_order(count: int, *, shuffle: bool, seed: int) -> Int64Array:
    """The order in which `count` images are stored: (count,) image indices, ascending or shuffled with the seed."""
    if not shuffle:
        return np.arange(count, dtype=np.int64)
    return np.random.default_rng(seed).permutation(count).astype(np.int64)


def make_image_record(task: ImageTask) -> ImageRecord | BrokenImage:
    """Read, resize, encode and serialise one image. Returns BrokenImage if it cannot be read."""
    read = read_grey if task.form.grey else read_image
    try:
        pixels = task.grey if task.grey is not None else read(task.path, ReadOptions(task.form.max_pixels))
    except (BrokenImageError, OSError) as error:
        return BrokenImage(str(error))
    try:
        task.form.check(task.form.resize.resized((pixels.shape[0], pixels.shape[1])))
        image = task.form.resize(pixels)
    except ValueError as error:
        return BrokenImage(f"{task.path}: {error}")
    if task.form.encode is Encode.none:
        datum = caffe_datum(image, task.label)
    else:
        datum = caffe_encoded_datum(_encoded(task, image, resized=image is not pixels), image, task.label)
    height, width = image.shape[:2]
    return ImageRecord(task.key, datum.SerializeToString(deterministic=True), (height, width))


def _encoded(task: ImageTask, image: npt.NDArray[np.uint8], *, resized: bool) -> bytes:
    """Encode an image. A file that already has the format, and is not resized, is stored unchanged, as Caffe does."""
    encode = task.form.encode
    if not resized and task.grey is None:
        header = read_header(task.path, ReadOptions(task.form.max_pixels))
        # Readers of the record ignore EXIF, so a rotated image is stored in its displayed orientation.
        if header.format == _FORMAT[encode] and header.orientation == 1 and header.is_grey >= task.form.grey:
            return read_input(task.path, "an image file")
    options = [cv2.IMWRITE_JPEG_QUALITY, task.form.quality] if encode is Encode.jpg else []
    pixels = image if image.ndim == 2 else image[:, :, ::-1]
    return cv2.imencode(f".{encode.value}", pixels, options)[1].tobytes()


def shard_paths(path: Path, shards: int) -> list[Path]:
    """The LMDB folders of a new database: `path` itself, or one subfolder for each shard."""
    return [path] if shards == 1 else [path / SHARD.format(number) for number in range(shards)]


def stored_paths(path: Path) -> list[Path]:
    """The LMDB folders of an existing database, in order, for `open_lmdb`.

    Raises DatabaseError if the database does not exist.
    """
    if is_lmdb(path):
        return [path]
    shards = sorted(folder.parent for folder in path.glob(f"{SHARD.partition('{')[0]}*/data.mdb"))
    if not shards:
        raise DatabaseError(f"{path}: expected an LMDB folder with data.mdb, or its shards, got none; run make-db")
    return shards


class ImagesReader:
    """Reads images of a database by index 0..N-1, in key order, shard after shard. Also reads databases made by Caffe.

    labels: (N,) int64. Opening reads the labels and skips the pixels. A checksum is verified when its record is read.
    Raises CorruptDatumError, which names the record, and DatabaseError if there is no database.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        shards = stored_paths(path)
        self._stores = [open_lmdb(shard) for shard in shards]
        self._keys: list[tuple[int, bytes]] = []
        labels = []
        try:
            for number, store in enumerate(self._stores):
                read = (
                    (place, key, stored_label(view, self._where(number, key))) for place, key, view in store.stored()
                )
                for _, key, label in sorted(read):
                    labels.append(label)
                    self._keys.append((number, key))
        except (CorruptDatumError, DatabaseError):
            self.close()  # The caller gets no reader to close, and a database that is open cannot be written.
            raise
        self.labels: Int64Array = np.array(labels, dtype=np.int64)
        runs = describe_runs(self.labels)
        if runs:
            logger.warning("%s: %s", path, runs)

    def __len__(self) -> int:
        return len(self._keys)

    def key(self, index: int) -> bytes:
        """The key of a record."""
        return self._keys[index][1]

    def datum(self, index: int) -> Datum:
        """The Datum of a record. Verifies its checksum. Raises CorruptDatumError."""
        number, key = self._keys[index]
        return parse_datum(self._stores[number].get(key), self.where(index))

    def image(self, index: int) -> Image:
        """(H, W, 3) uint8 RGB; a grey image is repeated to three channels. Raises CorruptDatumError."""
        return unpack_image(self.datum(index), self.where(index))

    def planes(self, index: int) -> npt.NDArray[np.uint8]:
        """(C, H, W) uint8 in Caffe's layout: BGR, or one grey channel. Raises CorruptDatumError."""
        return unpack_planes(self.datum(index), self.where(index))

    def where(self, index: int) -> str:
        """The database and the record's key, for messages."""
        return self._where(*self._keys[index])

    def close(self) -> None:
        """Close the database."""
        for store in self._stores:
            store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _where(self, number: int, key: bytes) -> str:
        return f"{self._stores[number].path}, record {key.decode(errors='replace')}"


def stored_label(record: memoryview, where: str) -> int:
    """The label in a record, without reading its pixels. A record without a label has label 0, as in Caffe.

    Raises CorruptDatumError, which begins with `where`, for bytes that are not a Datum and for a negative label.
    """
    if len(record) <= SMALL:  # parsing it whole is faster than field by field
        label = parse_datum(bytes(record), where).label
        if label < 0:
            raise CorruptDatumError(f"{where}: expected a label of 0 or more, got {label}")
        return label
    label = 0
    try:
        for field in read_fields(record, where):
            if field.number == Datum.LABEL_FIELD_NUMBER and field.wire_type == VARINT:
                label = read_varint(field.value, 0, where)[0]  # the last one counts, as in protobuf
    except ValueError as error:
        raise CorruptDatumError(
            f"{where}: expected a Datum, got {len(record)} other bytes; make the database again"
        ) from error
    if label >= 1 << 31:
        signed = label - (1 << 64) if label >= 1 << 63 else label
        raise CorruptDatumError(f"{where}: expected a label of 0 or more, got {signed}")
    return label


def describe_runs(labels: Int64Array | Sequence[int]) -> str:
    """A warning about runs of equal labels, as in a database that was not shuffled; "" without such runs.

    labels: (N,). There are runs if neighbours differ less than half as often as expected in a random order, which is
    (N - 1) x (1 - sum of squared class shares). Fewer than RUNS_FROM labels, or one class, give "".
    """
    values = np.asarray(labels, dtype=np.int64)
    if len(values) < RUNS_FROM:
        return ""
    shares = np.unique(values, return_counts=True)[1] / len(values)
    changes = np.flatnonzero(np.diff(values))
    expected = (len(values) - 1) * (1 - float((shares**2).sum()))
    if len(changes) >= expected / 2:
        return ""
    lengths = np.diff(np.concatenate([[-1], changes, [len(values) - 1]]))
    longest = int(lengths.argmax())
    label = values[int(np.concatenate([[-1], changes])[longest]) + 1]
    return (
        f"the labels come in runs, the longest has {lengths[longest]} records of label {label}: it was not shuffled. "
        "detpipe shuffles in training, but Caffe does not; make it again with make-db shuffle=true"
    )
