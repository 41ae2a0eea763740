"""Image files: the one decoder of the package, and what a header tells without it.

One rule each, whatever version of OpenCV decodes, and for what Pillow decoded before it came here:
- Rotation: the EXIF orientation that Pillow finds in the header, applied here.
- Truncation: a JPEG without its end marker, or a PNG without its end chunk, is broken, even where all pixels
  could still be read. (cv2.imread fills the missing part with grey, cv2.imdecode refuses or fills, by version.)
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
"""The usual suffixes of image files, in lower case, the likeliest first; compare with `path.suffix.lower()`."""

_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF", "PPM")
_TIFF_WIDTH, _TIFF_HEIGHT, _ORIENTATION = 256, 257, 274
_JPEG_START, _JPEG_SCAN, _JPEG_END = b"\xff\xd8", 0xDA, b"\xff\xd9"
_DEEP_MODES, _WIDE_MODES = ("I;16", "I;16L", "I;16B", "I;16N"), ("I", "F")
_PNG_START, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"


class BrokenImageError(ValueError):
    """A file that can't be decoded as an image."""


class TruncatedImageError(BrokenImageError):
    """An image file that stops before its end."""


@dataclass(frozen=True)
class ImageHeader:
    """What the header of an image file says.

    format: "JPEG", "PNG", ... by the content, not the suffix. image_size: (height, width) after rotation.
    orientation: EXIF's 1..8, 1 upright. has_alpha: an alpha channel is there. is_grey: one channel of brightness.
    """

    format: str
    image_size: tuple[int, int]
    orientation: int
    has_alpha: bool
    is_grey: bool


def read_image(path: Path) -> Image:
    """Decode an image file: (H, W, 3) uint8 RGB, upright by its EXIF orientation.

    Grey is repeated into three channels, alpha is dropped, 16 bits are scaled to 8, a palette or CMYK becomes RGB.
    Raises FileNotFoundError, TruncatedImageError, or BrokenImageError for whatever else can't be decoded.
    """
    bgr, header = _decode(path, cv2.IMREAD_COLOR)
    return _upright(np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), dtype=np.uint8), header, path)


def read_grey(path: Path) -> npt.NDArray[np.uint8]:
    """Decode an image file to brightness: (H, W) uint8, otherwise as `read_image`.

    The decoder does it, as for Caffe's tools: a JPEG's brightness is in the file, and isn't made of colours again.
    """
    grey, header = _decode(path, cv2.IMREAD_GRAYSCALE)
    return _upright(grey, header, path)


def from_pillow(image: PIL.Image.Image) -> Image:
    """A picture that Pillow opened or made, by the rules of `read_image`: (H, W, 3) uint8 RGB, upright.

    An opened file gives what `read_image` gives of it; of CMYK and transparent GIFs, whose colours Pillow and OpenCV
    make in ways of their own, nearly. A picture without pixels gives an array without any.
    Raises BrokenImageError for pixels that can't be decoded, ValueError for 32 bits a pixel in one channel.
    """
    # Looked up before the pixels are read, as in a header. A TIFF is turned by Pillow when it reads the pixels.
    orientation = 1 if image.format == "TIFF" else _exif_orientation(image.info.get("exif"))
    try:
        image.load()
    except (OSError, SyntaxError, EOFError) as error:
        where = getattr(image, "filename", "") or "a PIL image"
        raise BrokenImageError(f"{_wanted(where)}, got one that can't be decoded ({error}); {_MEND}") from error
    # Pillow has no 16 bits for some files of them: they come as 32.
    if image.mode in _DEEP_MODES or (image.mode == "I" and image.format in ("PNG", "PPM")):
        grey = (np.asarray(image) >> 8).astype(np.uint8)
        pixels = np.repeat(grey[..., np.newaxis], 3, axis=2)
    elif image.mode in _WIDE_MODES:
        raise ValueError(
            f"expected a PIL image of 8 or 16 bits, got mode {image.mode}, whose white is any number; scale it "
            "to 0..255 "
            "and give it as mode L"
        )
    else:
        # Pillow warns where a palette's transparency is dropped at once.
        colours = image.convert("RGBA") if image.mode == "P" and "transparency" in image.info else image
        pixels = np.asarray(colours.convert("RGB"))
    return _turn(pixels, orientation)


def _decode(path: Path, flag: int) -> tuple[npt.NDArray[np.uint8], ImageHeader]:
    """The pixels as the file has them, not turned, and the header."""
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
    # OpenCV turns a TIFF by itself, whatever the flag says.
    upright = pixels if header.format == "TIFF" else _turn(pixels, header.orientation)
    if upright.shape[:2] != header.image_size:
        raise BrokenImageError(
            f"{path}: expected height and width {header.image_size} as its header says, decoded {upright.shape[:2]}; "
            f"{_MEND}"
        )
    return upright


def read_header(path: Path) -> ImageHeader:
    """What the header says, without a decode; the end of the file is looked at, too.

    Raises FileNotFoundError, TruncatedImageError, or BrokenImageError where there is no image header.
    """
    with path.open("rb") as file:
        if not file.seek(0, io.SEEK_END):
            raise BrokenImageError(f"{_wanted(path)}, got an empty file; {_MEND}")
        # Mapped, so that only the pages of the header and of the end are read.
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return parse_header(data, path)


def file_digest(path: Path) -> bytes:
    """BLAKE2b of the file's bytes, 16 bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).digest()


_MEND = "export or download it again, or take it out of the data set"


def _wanted(where: Path | str) -> str:
    return f"{where}: expected an image file"


def parse_header(data: bytes | mmap.mmap, where: Path | str) -> ImageHeader:
    """What the header of an image file's bytes says, without a decode. Errors as `read_header`, beginning with `where`.

    A claim of more than Pillow's bound of pixels (179 million) is refused.
    """
    if not len(data):
        raise BrokenImageError(f"{_wanted(where)}, got an empty file; {_MEND}")
    if not _is_whole(data):
        raise TruncatedImageError(f"{_wanted(where)}, got a truncated one (its end is missing); {_MEND}")
    # bytes: BytesIO shares them; a map is a file itself.
    stream = io.BytesIO(data) if isinstance(data, bytes) else data
    with warnings.catch_warnings():
        # Pillow warns of large images and of odd metadata; neither harms a look at the header.
        warnings.simplefilter("ignore")
        try:
            with PIL.Image.open(stream, formats=_FORMATS) as image:  # type: ignore[arg-type]
                return _describe(image)
        except PIL.Image.DecompressionBombError as error:
            raise BrokenImageError(
                f"{_wanted(where)} of a usual size, got a huge one ({error}); scale it down"
            ) from error
        except PIL.UnidentifiedImageError as error:
            # Its words name the stream that it read from, not the file.
            raise BrokenImageError(f"{_wanted(where)}, got something else; {_MEND}") from error
        # What Pillow's header parsers raise on garbage.
        except (OSError, SyntaxError, ValueError, EOFError) as error:
            raise BrokenImageError(f"{_wanted(where)}, got something else ({error}); {_MEND}") from error


def _is_whole(data: bytes | mmap.mmap) -> bool:
    """Whether the end marker of a JPEG or PNG is there; True for other formats, whose decoders tell."""
    if data[:2] == _JPEG_START:
        # The markers before the pixels are walked: a thumbnail in the metadata has an end marker of its own.
        at = 2
        while at + 4 <= len(data) and data[at] == 0xFF:
            marker = data[at + 1]
            if marker == _JPEG_SCAN:
                return data.rfind(_JPEG_END) > at
            # Fill bytes stand alone; any other segment says its length.
            at += 1 if marker == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        return False
    if data[:8] == _PNG_START:
        return data.rfind(_PNG_END) > 0
    return True


def _describe(image: PIL.Image.Image) -> ImageHeader:
    name = "JPEG" if image.format == "MPO" else str(image.format)
    width, height = image.size
    if name == "TIFF":
        # Pillow swaps the sides of a turned TIFF in some versions; the tags don't change.
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
    """The orientation in a block of EXIF data; 1 where there is none or it can't be read."""
    if not isinstance(exif, bytes):
        return 1
    tags = PIL.Image.Exif()
    try:
        tags.load(exif)
        return _valid_orientation(tags.get(_ORIENTATION))
    except (SyntaxError, ValueError, OSError, TypeError, EOFError, KeyError):
        return 1  # Damaged metadata doesn't make the pixels bad.


def _valid_orientation(value: object) -> int:
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _turn(image: npt.NDArray[np.uint8], orientation: int) -> npt.NDArray[np.uint8]:
    """Upright, from EXIF 2.3's orientations: 2 mirrored, 3 turned by 180, 4 flipped, 5-8 those of a turned one."""
    if orientation >= 5:
        image = image.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return np.ascontiguousarray(image)
