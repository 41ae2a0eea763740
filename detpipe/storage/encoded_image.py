"""Encoded images: their headers, and the only decoder of their pixels.

JPEG and PNG are decoded by OpenCV, which is fast, and their headers are read here. Pillow reads the other formats,
because OpenCV's pixels differ between its versions or from the standard: it multiplies the colours of a TIFF by its
alpha, and ignores gaps and masks of a BMP.
Two rules hold for all versions of both libraries:
- Truncation: a JPEG without its end marker, or a PNG without its end chunk, is broken, even if all pixels could be
  read. (cv2.imread fills the missing part with grey; cv2.imdecode refuses or fills, depending on the version.)
- Size: an image with more pixels than a limit is refused by its header, before memory is allocated.
"""

from __future__ import annotations

import io
import mmap
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from itertools import islice
from typing import Any, BinaryIO

import cv2
import numpy as np
import numpy.typing as npt
import PIL.Image
import PIL.ImageFile
from PIL import BmpImagePlugin, GifImagePlugin, Jpeg2KImagePlugin, PpmImagePlugin, TiffImagePlugin, WebPImagePlugin

from detpipe.structures import MAX_PIXELS

Bytes = bytes | mmap.mmap
Levels = npt.NDArray[Any]
"""Pixels, uint8 or uint16."""

JPEG_SIDE = 65_500
"""Limit of libjpeg on height and width. The format itself has 65,535."""
MEND = "export or download it again, or remove it from the data set"
"""The remedy for a broken image."""

_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_PNG_START, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
_MARKER = re.compile(rb"\xff[^\x00\xff]")
_SCAN, _END, _APP1 = 0xDA, 0xD9, 0xE1
_WITHOUT_LENGTH = frozenset((0x01, *range(0xD0, 0xD9)))
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""JPEG's markers of a frame, which has the size; the three others are tables."""
_MOST_PARTS = 100_000
"""Limit on the segments of a JPEG, or chunks of a PNG, before its pixels."""
_EXIF_START = b"Exif\0\0"
_TIFF_WIDTH, _TIFF_HEIGHT, _TIFF_BITS, _TIFF_COLOURS, _TIFF_CHANNELS, _TIFF_KIND = 256, 257, 258, 262, 277, 339
_TIFF_KINDS = {2: "signed integers", 3: "floating-point values"}
_ORIENTATION, _SHORT, _LONG = 274, 3, 4
_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_DEEP_MODES = ("I;16", "I;16L", "I;16B", "I;16N")
_PLUGINS: tuple[tuple[str, re.Pattern[bytes], type[PIL.ImageFile.ImageFile]], ...] = (
    ("GIF", re.compile(rb"GIF8[79]a"), GifImagePlugin.GifImageFile),
    ("WEBP", re.compile(rb"RIFF....WEBP", re.DOTALL), WebPImagePlugin.WebPImageFile),
    ("TIFF", re.compile(b"|".join(map(re.escape, _TIFF_STARTS))), TiffImagePlugin.TiffImageFile),
    ("BMP", re.compile(rb"BM"), BmpImagePlugin.BmpImageFile),
    ("PPM", re.compile(rb"P[1-6]\s"), PpmImagePlugin.PpmImageFile),
    (
        "JPEG2000",
        re.compile(rb"\xff\x4f\xff\x51|\0\0\0\x0cjP  \r\n\x87\n"),
        Jpeg2KImagePlugin.Jpeg2KImageFile,
    ),
    # A BMP without the header of the file; it starts with the length of the next header.
    ("DIB", re.compile(rb"[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0"), BmpImagePlugin.DibImageFile),
)
"""The formats that Pillow reads: name, start of the file, Pillow's class.

The classes are used without PIL.Image.open, which tries all formats and has a limit of its own, a global setting. It
warns, too, and warnings can't be silenced for one thread alone.
"""


class BrokenImageError(ValueError):
    """A file can't be decoded as an image."""


class TruncatedImageError(BrokenImageError):
    """An image file is truncated."""


class Channels(Enum):
    """The channels of decoded pixels; the values are OpenCV's flags."""

    COLOUR = cv2.IMREAD_COLOR
    GREY = cv2.IMREAD_GRAYSCALE
    """Made by the decoder, as in Caffe's tools: a JPEG stores brightness, so it is not computed from RGB."""
    AS_STORED = cv2.IMREAD_ANYCOLOR
    """COLOUR, or GREY if the image has a single channel."""


class HugeImageError(BrokenImageError):
    """An image has more pixels than the limit."""


@dataclass(frozen=True)
class ImageHeader:
    """The header of an image file.

    format: "JPEG", "PNG", ... by content, not by suffix. image_size: (height, width) after rotation. orientation:
    EXIF's 1..8, where 1 is upright. has_alpha: has an alpha channel. is_grey: has a single colour channel. is_animated:
    a PNG of several frames, of which the default image is decoded, as by programs that don't know animated PNGs.
    """

    format: str
    image_size: tuple[int, int]
    orientation: int
    has_alpha: bool
    is_grey: bool
    is_animated: bool = False

    @property
    def raw_size(self) -> tuple[int, int]:
        """(height, width) before rotation, as the pixels are stored."""
        return self.image_size if self.orientation < 5 else self.image_size[::-1]


def parse_header(
    data: Bytes, where: object, *, max_pixels: int = MAX_PIXELS, whole: bool = True, file: BinaryIO | None = None
) -> ImageHeader:
    """Parse the header of an encoded image. Messages begin with `where`.

    max_pixels: limit on height x width. whole: raise TruncatedImageError for a JPEG or PNG without its end. file: the
    open file that `data` maps, which Pillow reads. Raises BrokenImageError for anything that is not an image,
    HugeImageError for too many pixels.
    """
    if not len(data):
        raise BrokenImageError(f"{_wanted(where)}, got an empty file; {MEND}")
    if data[:2] == _JPEG_START:
        header = _jpeg_header(data, where, whole)
    elif data[:8] == _PNG_START:
        header = _png_header(data, where, whole)
    else:
        if data[8:12] == b"WEBP":
            # Pillow allocates the pixels of a WebP when it opens the file.
            _check_size(_webp_size(data[:30]), where, max_pixels)
        with _opened(data, where, file) as image:
            header = _described(image, where)
    _check_size(header.image_size, where, max_pixels)
    return header


def _check_size(size: tuple[int, int], where: object, max_pixels: int) -> None:
    height, width = size
    if min(height, width) < 1:
        raise BrokenImageError(f"{_wanted(where)}, got one of {width} x {height} pixels; {MEND}")
    if height * width > max_pixels:
        raise HugeImageError(
            f"{_wanted(where)} of at most {max_pixels:,} pixels, got a huge one of {width} x {height}; scale it down, "
            "or raise max_pixels (dataset.max_pixels for a data set)"
        )


def decode(data: Bytes, header: ImageHeader, where: object, channels: Channels, *, deep: bool = False) -> Levels:
    """Decode the pixels: (H, W, 3) BGR or (H, W) grey, without rotation except for a TIFF, which Pillow rotates.

    deep: 16 bits stay uint16; otherwise their upper 8 are kept. Raises BrokenImageError.
    """
    if header.format in ("JPEG", "PNG"):
        if header.format == "PNG":
            # OpenCV allocates the length that a chunk claims.
            chunks = list(_chunks(data, where))
        if header.is_animated:
            # Without the chunk that announces an animation, OpenCV decodes the default image.
            data = _PNG_START + b"".join(data[start:end] for name, start, end in chunks if name != b"acTL")
        first = _MARKER.search(data, 2) if header.format == "JPEG" else None
        if first is not None and first.start() > 2:
            # OpenCV knows a JPEG by the marker at its third byte.
            data = _JPEG_START + data[first.start() :]
        flags = channels.value | cv2.IMREAD_IGNORE_ORIENTATION | (cv2.IMREAD_ANYDEPTH if deep else 0)
        try:
            pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
        except cv2.error as error:
            raise BrokenImageError(
                f"{_wanted(where)}, got {header.format} data that OpenCV refuses: {error.err}"
            ) from error
        if pixels is None:
            raise BrokenImageError(f"{_wanted(where)}, got {header.format} data that can't be decoded; {MEND}")
        return np.asarray(pixels)
    with _opened(data, where) as image:
        bits = _bits(image)
        levels = pillow_levels(image, where, deep=deep)
    if levels.ndim == 3 and deep and bits == 16:
        # Pillow keeps only 8 bits of colours.
        colours = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
        if colours is not None and colours.dtype == np.uint16 and colours.shape == levels.shape:
            return np.asarray(colours)
    if levels.ndim == 3:
        return np.asarray(cv2.cvtColor(levels, cv2.COLOR_RGB2GRAY if channels is Channels.GREY else cv2.COLOR_RGB2BGR))
    return np.asarray(cv2.cvtColor(levels, cv2.COLOR_GRAY2BGR)) if channels is Channels.COLOUR else levels


def pillow_levels(image: PIL.Image.Image, where: object, *, deep: bool) -> Levels:
    """The pixels of a PIL image: (H, W, 3) RGB, or (H, W) of a single grey channel. Alpha is dropped, not multiplied.

    deep: as for `decode`; Pillow itself keeps only 8 bits of colours. Raises BrokenImageError if the pixels can't be
    decoded, and for a single channel without a fixed range (32 bits, floating point).
    """
    bits, is_inverted = _bits(image), _tags(image).get(_TIFF_COLOURS) == 0
    try:
        image.load()
        # Pillow opens some 16-bit files in its 32-bit mode.
        if image.mode in _DEEP_MODES or (image.mode == "I" and image.format in ("PNG", "PPM")):
            levels = np.asarray(image).astype(np.uint16)
            if bits == 12:
                levels <<= 4
            if is_inverted:  # white is zero, which Pillow corrects for 8 bits only
                levels = ~levels
            return levels if deep else (levels >> 8).astype(np.uint8)
        if image.mode in ("I", "F"):
            raise BrokenImageError(
                f"{where}: expected an image of 8 or 16 bits, got mode {image.mode}, which has no fixed range; scale "
                "it to 0..255 and convert it to mode L"
            )
        if image.mode in ("1", "L"):
            return np.asarray(image.convert("L"))
        # Pillow warns if a palette with transparency is converted to RGB directly, and can't convert RGBa or La.
        if "transparency" in image.info or image.mode in ("RGBa", "PA"):
            image = image.convert("RGBA")
        elif image.mode == "La":
            image = image.convert("LA")
        return np.asarray(image.convert("RGB"))
    except BrokenImageError:
        raise
    except Exception as error:  # Pillow's decoders raise errors of many classes on damaged files
        raise BrokenImageError(f"{_wanted(where)}, got one that can't be decoded ({error}); {MEND}") from error


def jpeg_size(data: Bytes) -> tuple[int, int] | None:
    """(height, width) before rotation in the header of a JPEG whose segments follow each other; None for other bytes.

    It takes a tenth of the time of `parse_header`, which matters for the small images of a database.
    """
    at = 2 if data[:2] == _JPEG_START else len(data)
    while at + 9 < len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker in _FRAMES:
            return data[at + 5] << 8 | data[at + 6], data[at + 7] << 8 | data[at + 8]
        length = data[at + 2] << 8 | data[at + 3]
        if marker in _WITHOUT_LENGTH or marker in (0xFF, _SCAN, _END) or length < 2:
            return None
        at += 2 + length
    return None


def exif_orientation(exif: object) -> int:
    """The orientation in a block of EXIF data, 1..8; 1 if there is none, or the block is damaged before it."""
    if not isinstance(exif, bytes):
        return 1
    block = exif.removeprefix(_EXIF_START)
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(block[:4])
    if order is None or len(block) < 8:
        return 1
    at = struct.unpack_from(f"{order}I", block, 4)[0]
    directory = block[at + 2 :] if at + 2 <= len(block) else b""
    count = struct.unpack_from(f"{order}H", block, at)[0] if directory else 0
    orientation = 1
    for entry in range(min(count, len(directory) // 12)):
        tag, kind, values = struct.unpack_from(f"{order}HHI", directory, 12 * entry)
        if tag == _ORIENTATION and kind in (_SHORT, _LONG) and values == 1:
            form = "H" if kind == _SHORT else "I"
            orientation = struct.unpack_from(f"{order}{form}", directory, 12 * entry + 8)[0]
    return _valid_orientation(orientation)


def _wanted(where: object) -> str:
    return f"{where}: expected an image file"


def _jpeg_header(data: Bytes, where: object, whole: bool) -> ImageHeader:
    """Walk over the segments as libjpeg does: other bytes between them are skipped."""
    size, channels, exif, at = None, 0, b"", 2
    for _ in range(_MOST_PARTS):
        found = _MARKER.search(data, at)
        if found is None:
            raise _truncated(where)
        marker, at = found[0][1], found.end()
        if marker in (_SCAN, _END):
            break
        if marker in _WITHOUT_LENGTH:
            continue
        if marker in _FRAMES and size is None and at + 8 <= len(data):
            height, width, channels = struct.unpack(">HHB", data[at + 3 : at + 8])
            size = (height, width)
        length = int.from_bytes(data[at : at + 2], "big")
        if marker == _APP1 and data[at + 2 : at + 8] == _EXIF_START:
            # A block that is longer than a segment goes on in the next one.
            exif = (exif or _EXIF_START) + data[at + 8 : at + length]
        at += max(length, 2)
    if size is None or marker != _SCAN:
        raise BrokenImageError(f"{_wanted(where)}, got a JPEG without pixels; {MEND}")
    # Searched from the scan on, because a thumbnail in the metadata has its own end.
    if whole and data.rfind(_JPEG_END) < at:
        raise _truncated(where)
    orientation = exif_orientation(exif)
    return _header("JPEG", size, orientation, has_alpha=False, is_grey=channels == 1)


def _png_header(data: Bytes, where: object, whole: bool) -> ImageHeader:
    if len(data) < 33 or (whole and data.rfind(_PNG_END) < 0):
        raise _truncated(where)
    if data[12:16] != b"IHDR":
        raise BrokenImageError(f"{_wanted(where)}, got a PNG without a header; {MEND}")
    width, height, _, colours = struct.unpack(">IIBB", data[16:26])
    has_alpha, is_animated, exif = colours in (4, 6), False, b""
    for name, start, end in islice(_chunks(data, where), _MOST_PARTS):
        has_alpha |= name == b"tRNS"
        is_animated |= name == b"acTL"
        if name == b"eXIf":
            exif = data[start + 8 : end - 4]
        if name == b"IDAT":
            break
    header = _header("PNG", (height, width), exif_orientation(exif), has_alpha=has_alpha, is_grey=colours in (0, 4))
    return replace(header, is_animated=is_animated)


def _chunks(data: Bytes, where: object) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and end of each chunk of a PNG; the data begin 8 bytes after the start and end 4 before the end.

    Raises BrokenImageError for a chunk that is longer than the file.
    """
    at, name = len(_PNG_START), b""
    while at + 12 <= len(data) and name != b"IEND":
        name, end = data[at + 4 : at + 8], at + 12 + int.from_bytes(data[at : at + 4], "big")
        if end > len(data):
            raise BrokenImageError(f"{_wanted(where)}, got a PNG with a chunk that is longer than the file; {MEND}")
        yield name, at, end
        at = end


def _truncated(where: object) -> TruncatedImageError:
    return TruncatedImageError(f"{_wanted(where)}, got a truncated one (its end is missing); {MEND}")


def _header(name: str, raw_size: tuple[int, int], orientation: int, *, has_alpha: bool, is_grey: bool) -> ImageHeader:
    size = raw_size if orientation < 5 else raw_size[::-1]
    return ImageHeader(name, size, orientation, has_alpha, is_grey)


def _valid_orientation(value: object) -> int:
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _webp_size(start: bytes) -> tuple[int, int]:
    """The (height, width) in the first 30 bytes of a WebP: of the canvas, or of the only frame; (1, 1) if unknown."""
    kind, body = start[12:16], start[20:].ljust(10, b"\0")
    if kind == b"VP8X":
        return int.from_bytes(body[7:10], "little") + 1, int.from_bytes(body[4:7], "little") + 1
    if kind == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1
    if kind == b"VP8 ":
        width, height = struct.unpack("<HH", body[6:10])
        return height & 0x3FFF, width & 0x3FFF
    return 1, 1


def _opened(data: Bytes, where: object, file: BinaryIO | None = None) -> PIL.ImageFile.ImageFile:
    """The image as Pillow opens it, without its pixels."""
    start = bytes(data[:16])
    stream = file or io.BytesIO(data)  # which shares bytes without a copy
    fitting = [(name, plugin) for name, pattern, plugin in _PLUGINS if pattern.match(start)]
    if not fitting:
        raise BrokenImageError(f"{_wanted(where)}, got something else; {MEND}")
    name, plugin = fitting[0]
    try:
        stream.seek(0)
        return plugin(stream)
    except Exception as error:  # Pillow's parsers of headers raise errors of many classes on damaged files
        if name == "TIFF":
            raise BrokenImageError(_unread_tiff(data, where)) from error
        raise BrokenImageError(f"{_wanted(where)}, got a damaged {name} ({error}); {MEND}") from error


def _described(image: PIL.ImageFile.ImageFile, where: object) -> ImageHeader:
    width, height = image.size
    orientation = exif_orientation(image.info.get("exif"))
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        # Some versions of Pillow swap the sides of a rotated TIFF; the tags are the same in all.
        width, height = int(image.tag_v2[_TIFF_WIDTH]), int(image.tag_v2[_TIFF_HEIGHT])
        orientation = _valid_orientation(image.tag_v2.get(_ORIENTATION))
        if image.mode in ("I", "F"):
            raise BrokenImageError(_unread_tiff_kind(image.tag_v2, where))
    bands = image.getbands()
    return _header(
        str(image.format),
        (height, width),
        orientation,
        has_alpha=bands[-1] in ("A", "a") or "transparency" in image.info,
        is_grey=bands[0] in ("1", "L", "I", "F") and len(bands) <= 2,
    )


def _tags(image: PIL.Image.Image) -> Mapping[int, Any]:
    """The tags of a TIFF; none for other formats."""
    return image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else {}


def _bits(image: PIL.Image.Image) -> int | None:
    """Bits per channel of a TIFF; None for other formats."""
    bits = _tags(image).get(_TIFF_BITS)
    return int(bits[0]) if isinstance(bits, tuple) and bits else None


def _unread_tiff(data: Bytes, where: object) -> str:
    """The error for a TIFF that Pillow does not open."""
    try:
        tags = TiffImagePlugin.ImageFileDirectory_v2(bytes(data[:8]))
        stream = io.BytesIO(data)
        stream.seek(tags.next)
        tags.load(stream)
        return _unread_tiff_kind(tags, where)
    except Exception:  # as in `_opened`
        return f"{_wanted(where)}, got a damaged TIFF; {MEND}"


def _unread_tiff_kind(tags: Mapping[int, Any], where: object) -> str:
    bits = tags.get(_TIFF_BITS, (1,))
    kind = _TIFF_KINDS.get(tags.get(_TIFF_KIND, (1,))[0], "integers")
    channels = f" in {tags[_TIFF_CHANNELS]} channels" if tags.get(_TIFF_CHANNELS, 1) != 1 else ""
    return (
        f"{where}: expected an image of 8 or 16 bits per channel, got a TIFF with {bits[0]}-bit {kind}{channels}; "
        "scale the values to 0..255 and save them with 8 bits"
    )
