"""Conversion between images and Caffe's Datum: a labelled image, raw (BGR, C x H x W) or as an encoded file.

Images are uint8 (H, W, 3) RGB outside this file. The writing functions also accept grey images (H, W).
"""

from __future__ import annotations

import zlib

import cv2
import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError

from detpipe.storage.encoded_image import BrokenImageError, Channels, HugeImageError, decode, jpeg_size, parse_header
from detpipe.storage.messages_pb2 import Datum
from detpipe.structures import MAX_PIXELS, Image

REDUCED = {1: 0, 2: 16, 4: 32, 8: 64}
"""From the reduction to the bits of OpenCV's IMREAD_REDUCED_* flags, without the colour bits."""


class CorruptDatumError(ValueError):
    """A record is not a Datum, or its data were changed."""


def pack_image(image: Image, *, jpeg_quality: int | None) -> Datum:
    """A Datum of an (H, W, 3) RGB image with its checksum; the caller sets the label and the other fields.

    jpeg_quality: 0 to 100; None stores raw pixels.
    """
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
    """A raw Datum of an (H, W, 3) RGB or (H, W) grey image. It serialises to the same bytes as convert_imageset writes.

    So `encoded` is set to false, as in Caffe's CVMatToDatum, and detpipe's own fields are not set.
    """
    height, width = image.shape[:2]
    planes = image[None] if image.ndim == 2 else image[:, :, ::-1].transpose(2, 0, 1)
    return Datum(channels=len(planes), height=height, width=width, data=planes.tobytes(), label=label, encoded=False)


def caffe_encoded_datum(data: bytes, image: npt.NDArray[np.uint8], label: int) -> Datum:
    """A Datum of an encoded file `data` that decodes to `image`.

    It has the image size and a checksum, which Caffe neither writes nor reads: Caffe takes the size from the file.
    """
    height, width = image.shape[:2]
    channels = 1 if image.ndim == 2 else 3
    return Datum(
        channels=channels, height=height, width=width, data=data, label=label, encoded=True, crc=zlib.crc32(data)
    )


def parse_datum(record: bytes, where: str) -> Datum:
    """Parse a record and verify its checksum. Raises CorruptDatumError, which begins with `where`.

    Records that Caffe wrote have no checksum; for these only the message format is verified.
    """
    datum = Datum()
    try:
        datum.ParseFromString(record)
    except DecodeError as error:
        raise CorruptDatumError(
            f"{where}: expected a Datum, got {len(record)} other bytes; make the database again"
        ) from error
    if datum.HasField("crc") and datum.crc != zlib.crc32(datum.data):
        raise CorruptDatumError(
            f"{where}: expected data with the stored checksum, got damaged data; make the database again"
        )
    return datum


def stored_size(datum: Datum) -> tuple[int, int] | None:
    """The (height, width) in a Datum; None if it has none, as Caffe's encoded ones. Decoding verifies it."""
    return (datum.height, datum.width) if datum.HasField("height") and datum.HasField("width") else None


def is_jpeg(datum: Datum) -> bool:
    """Whether the Datum contains a JPEG file, judged by its first bytes."""
    return datum.encoded and datum.data[:2] == b"\xff\xd8"


def unpack_image(datum: Datum, where: str, *, reduction: int = 1) -> npt.NDArray[np.uint8]:
    """Decode a Datum to an (H, W, 3) RGB image; a grey channel is repeated. Raises the errors of `unpack_planes`.

    reduction: 2, 4 or 8 decodes a JPEG (`is_jpeg`) at 1/2, 1/4 or 1/8 of its size, rounded up, which is faster.
    """
    if datum.encoded:
        image = _decoded(datum, where, Channels.COLOUR, reduction)
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), dtype=np.uint8)
    planes = list(_raw_planes(datum, where))
    # cv2.merge releases the interpreter's lock, so that other threads can run.
    return np.asarray(cv2.merge(planes * 3 if len(planes) == 1 else planes[::-1]), dtype=np.uint8)


def unpack_planes(datum: Datum, where: str) -> npt.NDArray[np.uint8]:
    """Decode a Datum to planes (C, H, W): C = 3 in BGR order, or C = 1 for grey.

    Raises CorruptDatumError, which begins with `where`, if the data can't be decoded or don't have the stated size.
    """
    if not datum.encoded:
        return _raw_planes(datum, where)
    image = _decoded(datum, where, Channels.AS_STORED, 1)
    return image[None] if image.ndim == 2 else image.transpose(2, 0, 1)


def _decoded(datum: Datum, where: str, channels: Channels, reduction: int) -> npt.NDArray[np.uint8]:
    """Decode to (H, W, 3) BGR, or to (H, W) grey if the channels allow it."""
    data = datum.data
    try:
        claimed = jpeg_size(data)
        is_plain_jpeg = claimed is not None and claimed[0] * claimed[1] <= MAX_PIXELS
        # The end may be missing: Caffe reads what is there.
        header = None if is_plain_jpeg else parse_header(data, where, whole=False)
        if header is None or header.format == "JPEG":
            flags = channels.value | REDUCED[reduction]
            found = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), flags)
        else:
            found = decode(data, header, where, channels)
    except HugeImageError as error:
        fault = str(error).partition(";")[0]
        raise CorruptDatumError(f"{fault}; make the database again with smaller images") from error
    except (BrokenImageError, cv2.error) as error:
        raise CorruptDatumError(
            f"{where}: expected an encoded image, got one that can't be decoded; make the database again"
        ) from error
    size = stored_size(datum)
    if found is None or (size is not None and found.shape[:2] != tuple(-(-side // reduction) for side in size)):
        raise CorruptDatumError(
            f"{where}: expected an encoded image of height and width {size}, got other data; make the database again"
        )
    return np.asarray(found, dtype=np.uint8)


def _raw_planes(datum: Datum, where: str) -> npt.NDArray[np.uint8]:
    shape = (datum.channels, datum.height, datum.width)
    pixels = _float_pixels(datum, where) if datum.float_data and not datum.data else np.frombuffer(datum.data, np.uint8)
    if shape[0] not in (1, 3) or min(shape) < 1 or len(pixels) != shape[0] * shape[1] * shape[2]:
        raise CorruptDatumError(f"{where}: expected 3 x H x W values, or 1 x H x W, got {len(pixels)} for {shape}")
    return pixels.reshape(shape)


def _float_pixels(datum: Datum, where: str) -> npt.NDArray[np.uint8]:
    """float_data as pixels, (count,). Caffe takes these values as they are where `data` is empty.

    Raises CorruptDatumError if they are not the values of pixels, as in a database of features.
    """
    values = np.array(datum.float_data, dtype=np.float32)
    with np.errstate(invalid="ignore"):  # NaN is not a pixel, which the next line finds
        pixels = values.clip(0, 255).astype(np.uint8)
    if not np.array_equal(pixels, values):
        raise CorruptDatumError(
            f"{where}: expected pixels, which are whole numbers from 0 to 255, got float_data from "
            f"{values.min():.4g} to {values.max():.4g} in {datum.channels} x {datum.height} x {datum.width}, as of "
            "features or normalised images; make a database of the images with `detpipe make-db`"
        )
    return pixels
