"""Reader of IDX files, MNIST's format: one file of grey images and one of labels, plain or compressed by gzip.

The format (LeCun, "The MNIST database of handwritten digits"): two zero bytes, a byte for the data type (8: uint8), a
byte for the number of dimensions; the dimensions as big-endian uint32; the data in C order (last dimension fastest).
"""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from detpipe.datasets.labelled_images import ImageListError, LabelledImage, LabelledImages
from detpipe.storage.input_file import open_input
from detpipe.storage.stored_file import exists

UINT8 = 8
GZIP = b"\x1f\x8b"
MAX_BYTES = 1 << 30
"""Limit on the data bytes of one file: 1.5 times the largest known file (EMNIST, 814,255 images)."""
CHUNK = 1 << 20


class IdxError(ImageListError):
    """A file is not in IDX format, or does not have the expected content."""


def read_idx_images(images: Path, labels: Path, classes: tuple[str, ...] | None) -> LabelledImages:
    """Read an image file and its label file, in their order. Image number 42 is named "00000042".

    classes: K names in label order, or None. Files without images give no images. Raises FileNotFoundError, and
    IdxError, which names the file, for another format, for different numbers of labels and images, and for a label
    without a class name.
    """
    pixels, numbers = read_idx(images, 3), read_idx(labels, 1)
    if len(pixels) != len(numbers):
        raise IdxError(
            f"{labels}: expected the labels of the {len(pixels)} images in {images}, got {len(numbers)}; "
            "give the two files of one set"
        )
    if classes is not None and len(numbers) and numbers.max() >= len(classes):
        raise IdxError(f"{labels}: expected labels below the number of classes, {len(classes)}, got {numbers.max()}")
    pairs = zip(numbers.tolist(), pixels, strict=True)
    found = (LabelledImage(f"{number:08d}", label, grey) for number, (label, grey) in enumerate(pairs))
    return LabelledImages(images, tuple(found), classes)


def read_idx(file: Path, dimensions: int) -> npt.NDArray[np.uint8]:
    """The uint8 data of a file as a read-only array: images (N, H, W) with dimensions=3, labels (N,) with 1.

    Memory is allocated for the data that exist, not for the size in the header. Raises FileNotFoundError, and IdxError
    for another format, data type or size.
    """
    if not exists(file):
        raise FileNotFoundError(f"{file}: expected an IDX file such as train-images-idx3-ubyte.gz, got no such file")
    with open_input(file, "an IDX file such as train-images-idx3-ubyte.gz") as raw:
        packed = raw.read(2) == GZIP
        raw.seek(0)
        try:
            return _parse(gzip.GzipFile(fileobj=raw) if packed else raw, dimensions, str(file))
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise IdxError(
                f"{file}: expected a complete gzip file, got a damaged one ({error}); download it again"
            ) from error


def _parse(file: BinaryIO | gzip.GzipFile, dimensions: int, where: str) -> npt.NDArray[np.uint8]:
    head, wanted = file.read(4), bytes([0, 0, UINT8, dimensions])
    if head != wanted:
        raise IdxError(
            f"{where}: expected an IDX file of uint8 with {dimensions} dimensions (images have 3, labels 1), which "
            f"begins with {wanted.hex(' ')}, got {head.hex(' ')}"
        )
    lengths = file.read(4 * dimensions)
    if len(lengths) < 4 * dimensions:
        raise IdxError(f"{where}: expected {dimensions} dimensions, got a file that ends before them")
    shape = tuple(int(length) for length in np.frombuffer(lengths, dtype=">u4"))
    size = math.prod(shape)
    if size > MAX_BYTES or 0 in shape[1:]:
        raise IdxError(f"{where}: expected no side of 0 and at most {MAX_BYTES} bytes in all, got shape {shape}")
    data = bytearray()
    while len(data) <= size and (chunk := file.read(min(CHUNK, size + 1 - len(data)))):
        data += chunk
    if len(data) != size:
        more = "more" if len(data) > size else len(data)
        raise IdxError(
            f"{where}: expected {size} bytes after the header of shape {shape}, got {more}; download it again"
        )
    return np.frombuffer(bytes(data), dtype=np.uint8).reshape(shape)
