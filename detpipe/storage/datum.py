"""Caffe's Datum: an image with its label, as Caffe's own databases hold it (BGR, C x H x W, or an encoded file).

Images are uint8 (H, W, 3) RGB outside of this file.
"""

from __future__ import annotations

import zlib

import cv2
import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError

from detpipe.storage.messages_pb2 import Datum
from detpipe.structures import Image


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


def parse_datum(record: bytes, where: str) -> Datum:
    """The message in a record, its checksum verified. Raises CorruptDatumError, which begins with `where`.

    A database that Caffe wrote has no checksums; then only the message's form is verified.
    """
    datum = Datum()
    try:
        datum.ParseFromString(record)
    except DecodeError as error:
        raise CorruptDatumError(
            f"{where}: wanted a Datum, got {len(record)} other bytes; make the database again"
        ) from error
    if datum.HasField("crc") and datum.crc != zlib.crc32(datum.data):
        raise CorruptDatumError(f"{where}: the data doesn't fit its checksum; make the database again")
    return datum


def unpack_image(datum: Datum, where: str) -> npt.NDArray[np.uint8]:
    """The (H, W, 3) RGB image in a Datum. Raises CorruptDatumError where the data is not of the size it claims."""
    shape = (datum.channels, datum.height, datum.width)
    if datum.encoded:
        try:
            bgr = cv2.imdecode(np.frombuffer(datum.data, dtype=np.uint8), cv2.IMREAD_COLOR) if datum.data else None
        except cv2.error as error:  # a header that claims more pixels than OpenCV takes
            raise CorruptDatumError(f"{where}: wanted an encoded image, got one that OpenCV refuses") from error
        if bgr is None or (datum.HasField("height") and bgr.shape[:2] != shape[1:]):
            raise CorruptDatumError(f"{where}: wanted an encoded image of {shape[1:]} pixels, got another thing")
        return np.ascontiguousarray(bgr[:, :, ::-1], dtype=np.uint8)
    if shape[0] != 3 or min(shape) < 1 or len(datum.data) != shape[0] * shape[1] * shape[2]:
        raise CorruptDatumError(f"{where}: wanted 3 x H x W bytes, got {len(datum.data)} bytes for {shape}")
    planes = np.frombuffer(datum.data, dtype=np.uint8).reshape(shape)
    return np.ascontiguousarray(planes[::-1].transpose(1, 2, 0))
