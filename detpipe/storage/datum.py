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
            f"{where}: wanted a Datum, got {len(record)} other bytes; make the database again"
        ) from error
    if datum.HasField("crc") and datum.crc != zlib.crc32(datum.data):
        raise CorruptDatumError(f"{where}: the data doesn't fit its checksum; make the database again")
    return datum


def unpack_image(datum: Datum, where: str) -> npt.NDArray[np.uint8]:
    """The (H, W, 3) RGB image in a Datum, a grey one repeated; errors as `unpack_planes`."""
    planes = unpack_planes(datum, where)
    if len(planes) == 1:
        return np.repeat(planes[0, :, :, None], 3, axis=2)
    return np.ascontiguousarray(planes[::-1].transpose(1, 2, 0))


def unpack_planes(datum: Datum, where: str) -> npt.NDArray[np.uint8]:
    """The planes (C, H, W) in a Datum, C = 3 in the order BGR, or C = 1 grey.

    Raises CorruptDatumError, which begins with `where`, where the data is not of the size that it claims.
    """
    shape = (datum.channels, datum.height, datum.width)
    if datum.encoded:
        try:
            # ANYCOLOR: grey stays one plane.
            found = cv2.imdecode(np.frombuffer(datum.data, dtype=np.uint8), cv2.IMREAD_ANYCOLOR) if datum.data else None
        except cv2.error as error:  # a header that claims more pixels than OpenCV takes
            raise CorruptDatumError(f"{where}: wanted an encoded image, got one that OpenCV refuses") from error
        if found is None or (datum.HasField("height") and found.shape[:2] != shape[1:]):
            raise CorruptDatumError(f"{where}: wanted an encoded image of {shape[1:]} pixels, got another thing")
        image = np.asarray(found, dtype=np.uint8)
        return image[None] if image.ndim == 2 else image.transpose(2, 0, 1)
    if shape[0] not in (1, 3) or min(shape) < 1 or len(datum.data) != shape[0] * shape[1] * shape[2]:
        raise CorruptDatumError(f"{where}: wanted 3 x H x W bytes, or 1 x H x W, got {len(datum.data)} for {shape}")
    return np.frombuffer(datum.data, dtype=np.uint8).reshape(shape)
