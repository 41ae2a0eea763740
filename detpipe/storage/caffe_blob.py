"""Caffe's BlobProto: an array of float32 with its shape, read straight from the bytes of a file.

A blob has its shape in `shape`, or, in files of before 2015, in num, channels, height, width.
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
"""Numbers in one blob: Caffe's own limit, an int."""
MAX_AXES = 32
"""Axes of one blob: Caffe's kMaxBlobAxes."""
MAX_HEADER = 4096
"""Bytes of a blob beside its data."""


@dataclass(frozen=True)
class Blob:
    """shape: sizes, outermost first; () is one number. values: (count,) float32, perhaps a view of the file."""

    shape: tuple[int, ...]
    values: npt.NDArray[np.float32]

    @property
    def array(self) -> npt.NDArray[np.float32]:
        """The values in their shape."""
        return self.values.reshape(self.shape)


def read_blob(message: memoryview, where: str) -> Blob:
    """The blob in the bytes of a BlobProto. Gradients in it are passed over; doubles become floats.

    Raises ValueError, beginning with `where`: no blob, a shape that can't be, a shape that its data doesn't fit.
    """
    data, header = [np.empty(0, np.float32)], bytearray()
    for field in read_fields(message, where):
        if field.number in (DATA, DOUBLE_DATA) and field.wire_type == LENGTH:
            data.append(_numbers(field.value, "<f4" if field.number == DATA else "<f8", where))
        elif field.number not in (DIFF, DOUBLE_DIFF):
            header += field.raw
            if len(header) > MAX_HEADER:
                # Numbers that are not packed, which Caffe never wrote, would come here.
                raise ValueError(f"{where}: expected a blob's shape in {MAX_HEADER} bytes, got more")
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
        raise ValueError(f"{where}: the blob claims {math.prod(shape)} numbers, {shape}, and holds {values.size}")
    return Blob(shape, values)


def write_blob(array: npt.NDArray[np.float32]) -> bytes:
    """The bytes of a BlobProto with that shape and data."""
    shape = BlobShape(dim=array.shape).SerializeToString()
    data = np.ascontiguousarray(array, dtype="<f4").tobytes()
    return write_length(DATA, data) + write_length(SHAPE, shape)


def check_shape(shape: tuple[int, ...], where: str) -> int:
    """How many numbers a blob of that shape has. Raises ValueError where Caffe would have none of it."""
    if len(shape) > MAX_AXES or any(size < 0 for size in shape):
        raise ValueError(f"{where}: expected at most {MAX_AXES} sizes of 0 or more, got {_short(shape)}")
    count = math.prod(shape)
    if count > MAX_COUNT:
        raise ValueError(f"{where}: expected a blob of at most {MAX_COUNT} numbers, got {_short(shape)}")
    return count


def same_shape(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Whether two shapes differ at most in ones at the front, as old files' four sizes do from new ones."""
    return _without_ones(one) == _without_ones(other)


def _numbers(data: memoryview, kind: str, where: str) -> npt.NDArray[np.float32]:
    size = np.dtype(kind).itemsize
    if len(data) % size:
        raise ValueError(f"{where}: expected numbers of {size} bytes, got {len(data)} bytes")
    return np.frombuffer(data, dtype=kind).astype(np.float32, copy=False)


def _shape(proto: BlobProto) -> tuple[int, ...]:
    old = ("num", "channels", "height", "width")
    if proto.HasField("shape") or not any(proto.HasField(name) for name in old):
        return tuple(proto.shape.dim)
    # Files without `num` are in the wild; their makers meant one.
    return tuple(getattr(proto, name) if proto.HasField(name) else 1 for name in old)


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    first = next((i for i, size in enumerate(shape) if size != 1), len(shape))
    return shape[first:]


def _short(shape: tuple[int, ...]) -> str:
    return f"{shape}" if len(shape) <= 8 else f"{len(shape)} sizes from {shape[:4]} on"
