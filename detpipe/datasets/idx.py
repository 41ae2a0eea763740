"""IDX, the files of MNIST: grey images in one, their labels in another, as they are or packed by gzip.

The form (LeCun, "The MNIST database of handwritten digits"): 0, 0, the type of the numbers (8: uint8), the number of
dimensions; the dimensions as big-endian uint32; the numbers, the last dimension fastest.
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

UINT8 = 8
GZIP = b"\x1f\x8b"
MAX_BYTES = 1 << 30
"""Pixels of one file: a half more than the largest that are known (EMNIST's 814,255 images)."""
CHUNK = 1 << 20


class IdxError(ImageListError):
    """A file that is no IDX, or not the one that is wanted."""


def read_idx_images(images: Path, labels: Path, classes: tuple[str, ...] | None) -> LabelledImages:
    """The images of one file with the labels of the other, in their order; "00000042" is the name of number 42.

    classes: K names in label order, None where nobody named them. Files of no images give none. Raises
    FileNotFoundError, and IdxError naming the file for another form, another number of labels than of images, and a
    label without a name.
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
    """The numbers of a file of uint8 with so many dimensions: images (N, H, W), labels (N,). Read only.

    Memory is taken for what is there, not for what the head claims. Raises FileNotFoundError, and IdxError for another
    form, type or size.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file; expected an IDX file, as train-images-idx3-ubyte.gz")
    with file.open("rb") as raw:
        packed = raw.read(2) == GZIP
        raw.seek(0)
        try:
            return _parse(gzip.GzipFile(fileobj=raw) if packed else raw, dimensions, str(file))
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise IdxError(f"{file}: expected a whole gzip file, got a spoilt one ({error}); fetch it again") from error


def _parse(file: BinaryIO | gzip.GzipFile, dimensions: int, where: str) -> npt.NDArray[np.uint8]:
    head, wanted = file.read(4), bytes([0, 0, UINT8, dimensions])
    if head != wanted:
        raise IdxError(
            f"{where}: expected IDX of uint8 in {dimensions} dimensions (images have 3, labels 1), which begins with "
            f"{wanted.hex(' ')}, got {head.hex(' ') or 'nothing'}"
        )
    lengths = file.read(4 * dimensions)
    if len(lengths) < 4 * dimensions:
        raise IdxError(f"{where}: expected {dimensions} dimensions, got a file that ends before them")
    shape = tuple(int(length) for length in np.frombuffer(lengths, dtype=">u4"))
    size = math.prod(shape)
    if size > MAX_BYTES or 0 in shape[1:]:
        raise IdxError(f"{where}: expected images of at least a pixel, at most {MAX_BYTES} in all, got {shape}")
    data = bytearray()
    while len(data) <= size and (chunk := file.read(min(CHUNK, size + 1 - len(data)))):
        data += chunk
    if len(data) != size:
        more = "more" if len(data) > size else len(data)
        raise IdxError(
            f"{where}: expected {size} bytes after the head, which claims {shape}, got {more}; fetch it again"
        )
    return np.frombuffer(bytes(data), dtype=np.uint8).reshape(shape)
