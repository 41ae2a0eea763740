"""Caffe's Datum: an image with its label, as Caffe's own databases hold it (BGR, C x H x W, or an encoded file).

Images are uint8 (H, W, 3) RGB outside of this file; grey ones are (H, W) where they are written.
"""

from __future__ import annotations

import zlib

import cv2
import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError

from detpipe.storage.messages_pb2 import Datum
from detpipe.structures import Image

REDUCED = {1: 0, 2: 16, 4: 32, 8: 64}
"""OpenCV's flags IMREAD_REDUCED_*, without the colour."""


class CorruptDatumError(ValueError):
    """A record that is no Datum, or not the one that was written."""


def pack_image(image: Image, *, jpeg_quality: int | None) -> Datum:
    """A Datum of an (H, W, 3) RGB image, raw or as JPEG, with its checksum; label and the rest are the caller's."""
    height, width = image.shape[:2]
    datum = Datum(channels=3, height=height, width=width)
    bgr = np.ascontiguousarray(image[:, :, ::-1])
    if jpeg_quality is None:
        datum.data = bgr.transpose(2, 0, 1).tobytes()
    else:
        datum.data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, jpeg_quality])[1].tobytes()
        datum.encoded = True
    datum.crc = zlib.crc32(datum.data)
    return datum


def caffe_datum(image: npt.NDArray[np.uint8], label: int) -> Datum:
    """A raw Datum of an (H, W, 3) RGB or (H, W) grey image: serialised, the very bytes that convert_imageset writes.

    So `encoded` is there and false, as Caffe's CVMatToDatum leaves it, and no field of ours is.
    """
    height, width = image.shape[:2]
    planes = image[None] if image.ndim == 2 else image[:, :, ::-1].transpose(2, 0, 1)
    return Datum(channels=len(planes), height=height, width=width, data=planes.tobytes(), label=label, encoded=False)


def caffe_encoded_datum(data: bytes, image: npt.NDArray[np.uint8], label: int) -> Datum:
    """A Datum of an encoded file `data` that decodes to `image`. Its size and checksum are more than Caffe writes.

    Caffe passes over both: it takes the size from the file.
    """
    height, width = image.shape[:2]
    channels = 1 if image.ndim == 2 else 3
    return Datum(
        channels=channels, height=height, width=width, data=data, label=label, encoded=True, crc=zlib.crc32(data)
    )


def parse_datum(record: bytes, where: str) -> Datum:
    """The message in a record, its checksum verified. Raises CorruptDatumError, which begins with `where`.

    A database that Caffe wrote has no checksums; then only the message's form is verified.
    """
    datum = Datum()
    try:
        datum.ParseFromString(record)
    except DecodeError as error:
        raise CorruptDatumError(
            f"{where}: expected a Datum, got {len(record)} other bytes; make the database again"
        ) from error
    if datum.HasField("crc") and datum.crc != zlib.crc32(datum.data):
        raise CorruptDatumError(f"{where}: the data doesn't fit its checksum; make the database again")
    return datum


def stored_size(datum: Datum) -> tuple[int, int] | None:
    """The (height, width) that a Datum claims; None where it doesn't, as Caffe's encoded ones. Decoding checks it."""
    return (datum.height, datum.width) if datum.HasField("height") and datum.HasField("width") else None


def is_jpeg(datum: Datum) -> bool:
    """Whether the data is a JPEG file, by its first bytes."""
    return datum.encoded and datum.data[:2] == b"\xff\xd8"


def unpack_image(datum: Datum, where: str, *, reduction: int = 1) -> npt.NDArray[np.uint8]:
    """The (H, W, 3) RGB image in a Datum, a grey one repeated; errors as `unpack_planes`.

    reduction: of a JPEG (`is_jpeg`): 2, 4 or 8 decodes it at that part of its size, rounded up, which costs less.
    """
    if datum.encoded:
        image = _decoded(datum, where, cv2.IMREAD_COLOR, reduction)
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), dtype=np.uint8)
    planes = list(_raw_planes(datum, where))
    # OpenCV interleaves without the interpreter's lock, so that other threads go on.
    return np.asarray(cv2.merge(planes * 3 if len(planes) == 1 else planes[::-1]), dtype=np.uint8)


def unpack_planes(datum: Datum, where: str) -> npt.NDArray[np.uint8]:
    """The planes (C, H, W) in a Datum, C = 3 in the order BGR, or C = 1 grey.

    Raises CorruptDatumError, which begins with `where`, where the data is not of the size that it claims.
    """
    if not datum.encoded:
        return _raw_planes(datum, where)
    image = _decoded(datum, where, cv2.IMREAD_ANYCOLOR, 1)  # grey stays one plane
    return image[None] if image.ndim == 2 else image.transpose(2, 0, 1)


def _decoded(datum: Datum, where: str, flags: int, reduction: int) -> npt.NDArray[np.uint8]:
    """(H, W, 3) BGR, or (H, W) grey where the flags let it."""
    try:
        pixels = np.frombuffer(datum.data, dtype=np.uint8)
        found = cv2.imdecode(pixels, flags | REDUCED[reduction]) if datum.data else None
    except cv2.error as error:  # a header that claims more pixels than OpenCV takes
        raise CorruptDatumError(f"{where}: expected an encoded image, got one that OpenCV refuses") from error
    size = stored_size(datum)
    if found is None or (size is not None and found.shape[:2] != tuple(-(-side // reduction) for side in size)):
        raise CorruptDatumError(f"{where}: expected an encoded image of {size} pixels, got another thing")
    return np.asarray(found, dtype=np.uint8)


def _raw_planes(datum: Datum, where: str) -> npt.NDArray[np.uint8]:
    shape = (datum.channels, datum.height, datum.width)
    if shape[0] not in (1, 3) or min(shape) < 1 or len(datum.data) != shape[0] * shape[1] * shape[2]:
        raise CorruptDatumError(f"{where}: expected 3 x H x W bytes, or 1 x H x W, got {len(datum.data)} for {shape}")
    return np.frombuffer(datum.data, dtype=np.uint8).reshape(shape)
