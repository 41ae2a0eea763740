"""Reader and writer of Caffe's BlobProto: a float32 array with its shape, read directly from the bytes of a file.

A blob has its shape in `shape` or, in files from before 2015, in num, channels, height and width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError

from detpipe.storage.caffe_blob_pb2 import BlobProto, BlobShape
from detpipe.storage.wire import LENGTH, read_fields, write_length

DATA, DIFF, SHAPE, DOUBLE_DATA, DOUBLE_DIFF = 5, 6, 7, 8, 9
MAX_COUNT = 2**31 - 1
"""Limit on the values of one blob, as in Caffe (int32)."""
MAX_AXES = 32
"""Limit on the axes of one blob, Caffe's kMaxBlobAxes."""
MAX_HEADER = 4096
"""Limit on the bytes of a blob without its data."""


@dataclass(frozen=True)
class Blob:
    """An array. shape: () is a scalar. values: (count,) float32 in C order, which may be a view of the file."""

    shape: tuple[int, ...]
    values: npt.NDArray[np.float32]

    @property
    def array(self) -> npt.NDArray[np.float32]:
        """The values as an array of `shape`."""
        return self.values.reshape(self.shape)


def read_blob(message: memoryview, where: str) -> Blob:
    """Parse the bytes of a BlobProto. Gradients are ignored; doubles are converted to float32.

    Raises ValueError, which begins with `where`, for other bytes, an invalid shape, and data that don't fit the shape.
    """
    data, header = [np.empty(0, np.float32)], bytearray()
    for field in read_fields(message, where):
        if field.number in (DATA, DOUBLE_DATA) and field.wire_type == LENGTH:
            data.append(_numbers(field.value, "<f4" if field.number == DATA else "<f8", where))
        elif field.number not in (DIFF, DOUBLE_DIFF):
            header += field.raw
            if len(header) > MAX_HEADER:
                # Only unpacked values, which Caffe never wrote, reach this limit.
                raise ValueError(f"{where}: expected a blob's shape in at most {MAX_HEADER} bytes, got more")
    proto = BlobProto()
    try:
        proto.ParseFromString(bytes(header))
    except DecodeError as error:
        raise ValueError(f"{where}: expected a blob, got other bytes") from error
    data.append(np.array([*proto.data, *proto.double_data], dtype=np.float32))
    filled = [part for part in data if part.size]
    values = filled[0] if len(filled) == 1 else np.concatenate(data)
    shape = _shape(proto)
    if check_shape(shape, where) != values.size:
        raise ValueError(
            f"{where}: expected a blob of {math.prod(shape)} values with shape {shape}, got {values.size} values"
        )
    return Blob(shape, values)


def write_blob(array: npt.NDArray[np.float32]) -> bytes:
    """Serialise an array as a BlobProto."""
    shape = BlobShape(dim=array.shape).SerializeToString()
    data = np.ascontiguousarray(array, dtype="<f4").tobytes()
    return write_length(DATA, data) + write_length(SHAPE, shape)


def check_shape(shape: tuple[int, ...], where: str) -> int:
    """The number of values of a blob of this shape. Raises ValueError for a shape that Caffe would refuse."""
    if len(shape) > MAX_AXES or any(size < 0 for size in shape):
        raise ValueError(f"{where}: expected at most {MAX_AXES} sizes of 0 or more, got {_short(shape)}")
    count = math.prod(shape)
    if count > MAX_COUNT:
        raise ValueError(f"{where}: expected a blob of at most {MAX_COUNT} values, got shape {_short(shape)}")
    return count


def same_shape(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Whether two shapes are equal except for leading ones, as the four sizes of old files have."""
    return _without_ones(one) == _without_ones(other)


def _numbers(data: memoryview, kind: str, where: str) -> npt.NDArray[np.float32]:
    size = np.dtype(kind).itemsize
    if len(data) % size:
        raise ValueError(f"{where}: expected values of {size} bytes each, got {len(data)} bytes")
    return np.frombuffer(data, dtype=kind).astype(np.float32, copy=False)


def _shape(proto: BlobProto) -> tuple[int, ...]:
    old = ("num", "channels", "height", "width")
    if proto.HasField("shape") or not any(proto.HasField(name) for name in old):
        return tuple(proto.shape.dim)
    # Some files have no `num`; it means 1.
    return tuple(getattr(proto, name) if proto.HasField(name) else 1 for name in old)


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    first = next((i for i, size in enumerate(shape) if size != 1), len(shape))
    return shape[first:]


def _short(shape: tuple[int, ...]) -> str:
    return f"{shape}" if len(shape) <= 8 else f"{len(shape)} sizes that begin with {shape[:4]}"
