"""The package's only image decoder, and a reader of image headers.

Two rules hold for every version of OpenCV, and for images that Pillow decoded:
- Rotation: the EXIF orientation that Pillow finds in the header is applied here.
- Truncation: a JPEG without its end marker, or a PNG without its end chunk, is broken, even if all pixels could be
  read. (cv2.imread fills the missing part with grey; cv2.imdecode refuses or fills, depending on the version.)
"""

from __future__ import annotations

import hashlib
import io
import mmap
import warnings
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import PIL.Image

from detpipe.structures import Image

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
"""Suffixes of image files in lower case, the most common first; compare with `path.suffix.lower()`."""

_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF", "PPM")
_TIFF_WIDTH, _TIFF_HEIGHT, _ORIENTATION = 256, 257, 274
_JPEG_START, _JPEG_SCAN, _JPEG_END = b"\xff\xd8", 0xDA, b"\xff\xd9"
_DEEP_MODES, _WIDE_MODES = ("I;16", "I;16L", "I;16B", "I;16N"), ("I", "F")
_PNG_START, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"


class BrokenImageError(ValueError):
    """A file can't be decoded as an image."""


class TruncatedImageError(BrokenImageError):
    """An image file is truncated."""


@dataclass(frozen=True)
class ImageHeader:
    """The header of an image file.

    format: "JPEG", "PNG", ... by content, not by suffix. image_size: (height, width) after rotation. orientation:
    EXIF's 1..8, where 1 is upright. has_alpha: has an alpha channel. is_grey: has a single colour channel.
    """

    format: str
    image_size: tuple[int, int]
    orientation: int
    has_alpha: bool
    is_grey: bool


def read_image(path: Path) -> Image:
    """Decode an image file: (H, W, 3) uint8 RGB, upright by its EXIF orientation.

    A grey channel is repeated three times, alpha is dropped, 16 bits are scaled to 8, palettes and CMYK become RGB.
    Raises FileNotFoundError, TruncatedImageError, and BrokenImageError for any other file that can't be decoded.
    """
    bgr, header = _decode(path, cv2.IMREAD_COLOR)
    return _upright(np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), dtype=np.uint8), header, path)


def read_grey(path: Path) -> npt.NDArray[np.uint8]:
    """Decode an image file to grey values: (H, W) uint8, otherwise as `read_image`.

    The decoder makes the grey values, as in Caffe's tools: a JPEG stores brightness, so it is not computed from RGB.
    """
    grey, header = _decode(path, cv2.IMREAD_GRAYSCALE)
    return _upright(grey, header, path)


def from_pillow(image: PIL.Image.Image) -> Image:
    """Convert a PIL image by the rules of `read_image`: (H, W, 3) uint8 RGB, upright.

    An opened file gives the same pixels as `read_image`, except for small differences with CMYK and transparent GIFs,
    which Pillow and OpenCV convert differently. An image without pixels gives an empty array.
    Raises BrokenImageError if the pixels can't be decoded, ValueError for a single channel of 32 bits.
    """
    # Read before `load`, as for a header. Pillow itself rotates a TIFF when it loads the pixels.
    orientation = 1 if image.format == "TIFF" else _exif_orientation(image.info.get("exif"))
    try:
        image.load()
    except (OSError, SyntaxError, EOFError) as error:
        where = getattr(image, "filename", "") or "a PIL image"
        raise BrokenImageError(f"{_wanted(where)}, got one that can't be decoded ({error}); {_MEND}") from error
    # Pillow opens some 16-bit files in its 32-bit mode.
    if image.mode in _DEEP_MODES or (image.mode == "I" and image.format in ("PNG", "PPM")):
        grey = (np.asarray(image) >> 8).astype(np.uint8)
        pixels = np.repeat(grey[..., np.newaxis], 3, axis=2)
    elif image.mode in _WIDE_MODES:
        raise ValueError(
            f"expected a PIL image of 8 or 16 bits, got mode {image.mode}, which has no fixed range; scale it to "
            "0..255 and convert it to mode L"
        )
    else:
        # Pillow warns if a palette with transparency is converted to RGB directly.
        colours = image.convert("RGBA") if image.mode == "P" and "transparency" in image.info else image
        pixels = np.asarray(colours.convert("RGB"))
    return _turn(pixels, orientation)


def _decode(path: Path, flag: int) -> tuple[npt.NDArray[np.uint8], ImageHeader]:
    """The header, and the pixels before rotation."""
    data = path.read_bytes()
    header = parse_header(data, path)
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flag | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise BrokenImageError(f"{_wanted(path)}, got {header.format} data that OpenCV refuses: {error.err}") from error
    if pixels is None:
        raise BrokenImageError(f"{_wanted(path)}, got {header.format} data that can't be decoded; {_MEND}")
    return np.asarray(pixels, dtype=np.uint8), header


def _upright(pixels: npt.NDArray[np.uint8], header: ImageHeader, path: Path) -> npt.NDArray[np.uint8]:
    # OpenCV always rotates a TIFF, whatever the flag says.
    upright = pixels if header.format == "TIFF" else _turn(pixels, header.orientation)
    if upright.shape[:2] != header.image_size:
        raise BrokenImageError(
            f"{path}: expected height and width {header.image_size} as in its header, got {upright.shape[:2]}; {_MEND}"
        )
    return upright


def read_header(path: Path) -> ImageHeader:
    """Read the header without decoding the pixels; also checks the end of the file.

    Raises FileNotFoundError, TruncatedImageError, or BrokenImageError if there is no image header.
    """
    with path.open("rb") as file:
        if not file.seek(0, io.SEEK_END):
            raise BrokenImageError(f"{_wanted(path)}, got an empty file; {_MEND}")
        # Memory-mapped, so that only the pages of the header and of the end are read.
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return parse_header(data, path)


def file_digest(path: Path) -> bytes:
    """The 16-byte BLAKE2b digest of the file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).digest()


_MEND = "export or download it again, or remove it from the data set"


def _wanted(where: Path | str) -> str:
    return f"{where}: expected an image file"


def parse_header(data: bytes | mmap.mmap, where: Path | str) -> ImageHeader:
    """Parse the header from an image file's bytes. Raises the errors of `read_header`; messages begin with `where`.

    An image larger than Pillow's limit (179 million pixels) is refused.
    """
    if not len(data):
        raise BrokenImageError(f"{_wanted(where)}, got an empty file; {_MEND}")
    if not _is_whole(data):
        raise TruncatedImageError(f"{_wanted(where)}, got a truncated one (its end is missing); {_MEND}")
    # BytesIO shares the bytes without a copy; an mmap is a file object itself.
    stream = io.BytesIO(data) if isinstance(data, bytes) else data
    with warnings.catch_warnings():
        # Pillow warns of large images and odd metadata; neither matters for reading the header.
        warnings.simplefilter("ignore")
        try:
            with PIL.Image.open(stream, formats=_FORMATS) as image:  # type: ignore[arg-type]
                return _describe(image)
        except PIL.Image.DecompressionBombError as error:
            raise BrokenImageError(
                f"{_wanted(where)} of a usual size, got a huge one ({error}); scale it down"
            ) from error
        except PIL.UnidentifiedImageError as error:
            # The error text names the stream, not the file, so it is not shown.
            raise BrokenImageError(f"{_wanted(where)}, got something else; {_MEND}") from error
        # Errors that Pillow's header parsers raise on garbage.
        except (OSError, SyntaxError, ValueError, EOFError) as error:
            raise BrokenImageError(f"{_wanted(where)}, got something else ({error}); {_MEND}") from error


def _is_whole(data: bytes | mmap.mmap) -> bool:
    """Whether a JPEG or PNG has its end marker. True for other formats, whose decoders detect truncation."""
    if data[:2] == _JPEG_START:
        # Skip the segments before the pixels, because a thumbnail in the metadata has its own end marker.
        at = 2
        while at + 4 <= len(data) and data[at] == 0xFF:
            marker = data[at + 1]
            if marker == _JPEG_SCAN:
                return data.rfind(_JPEG_END) > at
            # Fill bytes have no length field; all other segments have one.
            at += 1 if marker == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        return False
    if data[:8] == _PNG_START:
        return data.rfind(_PNG_END) > 0
    return True


def _describe(image: PIL.Image.Image) -> ImageHeader:
    name = "JPEG" if image.format == "MPO" else str(image.format)
    width, height = image.size
    if name == "TIFF":
        # Some versions of Pillow swap the sides of a rotated TIFF; the tags are the same in all.
        tags = image.tag_v2  # type: ignore[attr-defined]
        width, height = int(tags[_TIFF_WIDTH]), int(tags[_TIFF_HEIGHT])
        orientation = _valid_orientation(tags.get(_ORIENTATION))
    else:
        orientation = _exif_orientation(image.info.get("exif"))
    bands = image.getbands()
    return ImageHeader(
        format=name,
        image_size=(width, height) if orientation >= 5 else (height, width),
        orientation=orientation,
        has_alpha="A" in bands or "transparency" in image.info,
        is_grey=bands[0] in ("1", "L", "I", "F") and len(bands) <= 2,
    )


def _exif_orientation(exif: object) -> int:
    """The orientation in a block of EXIF data; 1 if there is none or it can't be read."""
    if not isinstance(exif, bytes):
        return 1
    tags = PIL.Image.Exif()
    try:
        tags.load(exif)
        return _valid_orientation(tags.get(_ORIENTATION))
    except (SyntaxError, ValueError, OSError, TypeError, EOFError, KeyError):
        return 1  # The pixels are usable despite damaged metadata.


def _valid_orientation(value: object) -> int:
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _turn(image: npt.NDArray[np.uint8], orientation: int) -> npt.NDArray[np.uint8]:
    """Rotate to upright by EXIF 2.3: 2 mirrored, 3 rotated by 180 degrees, 4 flipped, 5-8 the same transposed."""
    if orientation >= 5:
        image = image.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return np.ascontiguousarray(image)
