"""Reader and writer of mean images: Caffe's .binaryproto (BlobProto, as compute_image_mean writes it) and .npy files.

A mean is float32 (C, H, W), 0..255, C = 3 in the order BGR or C = 1 grey.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from detpipe.storage.atomic import write_bytes
from detpipe.storage.caffe_blob import read_blob
from detpipe.storage.caffe_blob_pb2 import BlobProto
from detpipe.storage.input_file import check_input, read_input
from detpipe.storage.npy_file import read_npy
from detpipe.structures import Float32Array

SUFFIXES = (".binaryproto", ".npy")
MAX_BYTES = 1 << 28
"""Limit on the file size, which is a mean image of 4,700 x 4,700 pixels."""
_EXPECTED = "a mean image"


class MeanFileError(ValueError):
    """A file is not a mean image."""


def check_suffix(path: Path) -> None:
    """Raise MeanFileError unless the path ends in one of SUFFIXES."""
    if path.suffix not in SUFFIXES:
        raise MeanFileError(f"{path}: expected a name that ends in {' or '.join(SUFFIXES)}, got {path.name}; rename it")


def write_mean(path: Path, mean: Float32Array) -> None:
    """Write a mean (C, H, W) in the format of the suffix. A .binaryproto has the same bytes as compute_image_mean's."""
    check_suffix(path)
    mean = np.ascontiguousarray(mean, dtype=np.float32)
    if path.suffix == ".npy":
        file = io.BytesIO()  # numpy's own error for a full disk names neither the disk nor the file
        np.save(file, mean, allow_pickle=False)
        write_bytes(path, file.getvalue())
        return
    channels, height, width = mean.shape
    blob = BlobProto(num=1, channels=channels, height=height, width=width, data=mean.ravel().tolist())
    write_bytes(path, blob.SerializeToString(deterministic=True))


def read_mean(path: Path) -> Float32Array:
    """Read a mean (C, H, W).

    A .npy file is read as an array, any other as a blob, because blobs often have other suffixes than .binaryproto. The
    file may have a first axis of length 1. One value per channel, (C,), gives a mean of 1 x 1 pixels. Nothing is
    unpickled, and sizes are checked against the data before memory is allocated.

    Raises FileNotFoundError, MeanFileError for any other content, and InputFileError, NpyFileError for a file that is
    none of the two kinds.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: expected a mean image, got no such file; check the path")
    check_input(path, "a mean image (.binaryproto or .npy)")
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise MeanFileError(f"{path}: expected a mean image of at most {MAX_BYTES} bytes, got {size}")
    values = _read_npy(path) if path.suffix == ".npy" else _read_blob(path)
    if not np.isfinite(values).all():
        raise MeanFileError(f"{path}: expected finite numbers, got NaN or infinity")
    return values


def _read_npy(path: Path) -> Float32Array:
    array = read_npy(path, _EXPECTED)
    shape = _image_shape(array.shape, path)
    with np.errstate(over="ignore"):  # the caller refuses infinity
        return array.astype(np.float32).reshape(shape)


def _read_blob(path: Path) -> Float32Array:
    try:
        array = read_blob(memoryview(read_input(path, _EXPECTED)), str(path)).array
    except ValueError as error:
        raise MeanFileError(str(error)) from error
    return array.reshape(_image_shape(array.shape, path))


def _image_shape(dims: Sequence[int], path: Path) -> tuple[int, int, int]:
    """(C, H, W) from the shape in a file."""
    if len(dims) == 4 and dims[0] == 1:
        shape = dims[1:]
    else:
        shape = (*dims, 1, 1) if len(dims) == 1 else dims
    if len(shape) != 3 or min(shape) < 1 or shape[0] not in (1, 3):
        raise MeanFileError(f"{path}: expected the axes of one image, C x H x W with C = 1 or 3, got {list(dims[:5])}")
    channels, height, width = (int(length) for length in shape)
    return channels, height, width
