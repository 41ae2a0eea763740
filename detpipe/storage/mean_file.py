"""Mean images: Caffe's .binaryproto (a BlobProto, as compute_image_mean writes it) and .npy files.

A mean is float32 (C, H, W), 0..255, C = 3 in the order BGR or C = 1 grey.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tokenize import TokenError

import numpy as np

from detpipe.storage.atomic import replaced, write_bytes
from detpipe.storage.caffe_blob import read_blob
from detpipe.storage.caffe_blob_pb2 import BlobProto
from detpipe.structures import Float32Array

SUFFIXES = (".binaryproto", ".npy")
MAX_BYTES = 1 << 28
"""A larger file is no mean image: this is one of 4,700 x 4,700 pixels."""

NPY_ERRORS = (
    ValueError,
    OSError,
    EOFError,
    OverflowError,
    SyntaxError,
    TypeError,
    TokenError,
    RecursionError,
    MemoryError,
)
"""What numpy raises for a damaged .npy file, whose header it reads as a Python expression."""


class MeanFileError(ValueError):
    """A file that is no mean image."""


def check_suffix(path: Path) -> None:
    """Raise MeanFileError unless the path ends in one of SUFFIXES."""
    if path.suffix not in SUFFIXES:
        raise MeanFileError(f"{path}: expected a name that ends in {' or '.join(SUFFIXES)}")


def write_mean(path: Path, mean: Float32Array) -> None:
    """Write a mean (C, H, W) as its suffix says. A .binaryproto has compute_image_mean's fields, and its very bytes."""
    check_suffix(path)
    mean = np.ascontiguousarray(mean, dtype=np.float32)
    if path.suffix == ".npy":
        with replaced(path) as scratch, scratch.open("wb") as file:
            np.save(file, mean, allow_pickle=False)
        return
    channels, height, width = mean.shape
    blob = BlobProto(num=1, channels=channels, height=height, width=width, data=mean.ravel().tolist())
    write_bytes(path, blob.SerializeToString(deterministic=True))


def read_mean(path: Path) -> Float32Array:
    """A mean (C, H, W). Raises FileNotFoundError, or MeanFileError where the file is another thing.

    A .npy file is an array, any other a blob, since many are called otherwise than .binaryproto. A first axis of length
    1 may be there. One number a channel, (C,), is a mean of 1 x 1. Nothing is unpickled, and no size is believed before
    the data are seen to have it.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no such file of a mean: {path}")
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise MeanFileError(f"{path}: expected a mean image of at most {MAX_BYTES} bytes, got {size}")
    values = _read_npy(path) if path.suffix == ".npy" else _read_blob(path)
    if not np.isfinite(values).all():
        raise MeanFileError(f"{path}: expected numbers, got infinity or NaN among them")
    return values


def _read_npy(path: Path) -> Float32Array:
    try:
        # Mapped: a header that claims more than the file has is an error before anything is allocated.
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except NPY_ERRORS as error:
        raise MeanFileError(f"{path}: expected an array of numbers, got: {error}") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
        raise MeanFileError(f"{path}: expected an array of real numbers, got {getattr(array, 'dtype', type(array))}")
    shape = _image_shape(array.shape, path)
    with np.errstate(over="ignore"):  # found later, as infinity
        return np.array(array, dtype=np.float32).reshape(shape)


def _read_blob(path: Path) -> Float32Array:
    try:
        array = read_blob(memoryview(path.read_bytes()), str(path)).array
    except ValueError as error:
        raise MeanFileError(str(error)) from error
    return array.reshape(_image_shape(array.shape, path))


def _image_shape(dims: Sequence[int], path: Path) -> tuple[int, int, int]:
    """(C, H, W) of the axes of a file."""
    shown = list(dims[:5])
    if len(dims) == 4 and dims[0] == 1:
        of_image = dims[1:]
    else:
        of_image = (*dims, 1, 1) if len(dims) == 1 else dims
    if len(of_image) != 3 or min(of_image) < 1 or of_image[0] not in (1, 3):
        raise MeanFileError(f"{path}: expected the axes of one image, C x H x W with C = 1 or 3, got {shown}")
    channels, height, width = (int(length) for length in of_image)
    return channels, height, width
