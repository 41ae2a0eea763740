"""Image files: their suffixes, headers and pixels, by the one decoder of `storage/encoded_image.py`.

The EXIF orientation in the header is applied here, also to images that Pillow decoded.
"""

from __future__ import annotations

import hashlib
import io
import mmap
from collections.abc import Mapping
from os import PathLike, fspath
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
import numpy.typing as npt
import PIL.Image

from detpipe.datasets.stretch import stretched
from detpipe.storage.encoded_image import (
    MEND,
    BrokenImageError,
    Channels,
    ImageHeader,
    Levels,
    TruncatedImageError,
    decode,
    exif_orientation,
    parse_header,
    pillow_levels,
)
from detpipe.storage.input_file import InputFileError
from detpipe.storage.stored_file import open_stored
from detpipe.structures import PLAIN_READING, Image, ReadOptions, Stretch

__all__ = [
    "FORMAT_SUFFIXES",
    "IMAGE_SUFFIXES",
    "UNREAD_SUFFIXES",
    "AnyImage",
    "BrokenImageError",
    "ImageHeader",
    "MissingImageError",
    "TruncatedImageError",
    "as_image",
    "file_digest",
    "from_pillow",
    "parse_header",
    "read_grey",
    "read_header",
    "read_image",
    "read_image_and_header",
    "unread_reason",
]

FORMAT_SUFFIXES: Mapping[str, tuple[str, ...]] = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".jfi", ".jif", ".mpo"),
    "PNG": (".png", ".apng"),
    "BMP": (".bmp", ".dib"),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "GIF": (".gif",),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "JPEG2000": (".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
    "DIB": (".dib", ".bmp"),
}
"""The formats that are read, each with the suffixes of its files in lower case. A file is read by its content."""

IMAGE_SUFFIXES = tuple(dict.fromkeys(suffix for suffixes in FORMAT_SUFFIXES.values() for suffix in suffixes))
"""Suffixes of image files in lower case, the most common first; compare with `path.suffix.lower()`."""

_UNREAD = {
    "its decoder is not in the libraries of this package; convert it to JPEG or PNG": (
        ".heic .heif .hif .heics .avif .avifs .jxl .jxr .wdp .hdp"
    ),
    "it holds the raw data of a camera, without fixed colours; export it as JPEG, PNG or TIFF": (
        ".dng .cr2 .cr3 .crw .nef .nrw .arw .sr2 .srf .orf .rw2 .raf .pef .srw .raw .rwl .3fr .iiq .x3f .erf .kdc .dcr "
        ".mrw"
    ),
    "it is the file of a drawing program; export it as PNG": ".psd .psb .xcf .ai .eps .svg .svgz",
    "this package does not read its format; convert it to PNG": (
        ".tga .pcx .ico .cur .icns .sgi .ras .xbm .xpm .exr .hdr .pfm .pam .dcm .dds .qoi .fits .fit .wmf .emf .bpg "
        ".flif .jls .jng .mng"
    ),
}
UNREAD_SUFFIXES: Mapping[str, str] = {
    suffix: reason for reason, suffixes in _UNREAD.items() for suffix in suffixes.split()
}
"""Suffixes of pictures, in lower case, that are not read, each with the reason and the remedy."""


def unread_reason(path: Path) -> str | None:
    """Why a file is not read although its suffix is one of a picture; None for other files."""
    return UNREAD_SUFFIXES.get(path.suffix.lower())


def read_image(path: str | PathLike[str], options: ReadOptions = PLAIN_READING) -> Image:
    """Decode an image file: (H, W, 3) uint8 RGB, upright by its EXIF orientation.

    A grey channel is repeated three times, alpha is dropped, 16 bits are scaled to 8 (by the upper 8 bits, unless
    options.stretch says otherwise), palettes and CMYK become RGB.
    Raises FileNotFoundError, TruncatedImageError, and BrokenImageError for any other file that can't be decoded.
    """
    return read_image_and_header(path, options)[0]


def read_image_and_header(path: str | PathLike[str], options: ReadOptions = PLAIN_READING) -> tuple[Image, ImageHeader]:
    """The results of `read_image` and `read_header`, with one pass over the file. Raises as `read_image`."""
    is_deep = options.stretch is not Stretch.none
    levels, header = _decoded(Path(path), options, Channels.COLOUR, deep=is_deep)
    rgb = np.asarray(cv2.cvtColor(levels, cv2.COLOR_BGR2RGB))
    return _upright(stretched(rgb, options.stretch), header, Path(path)), header


def read_grey(path: str | PathLike[str], options: ReadOptions = PLAIN_READING) -> npt.NDArray[np.uint8]:
    """Decode an image file to grey values: (H, W) uint8, otherwise as `read_image`.

    The decoder makes the grey values, as in Caffe's tools: a JPEG stores brightness, so it is not computed from RGB.
    """
    levels, header = _decoded(Path(path), options, Channels.GREY, deep=options.stretch is not Stretch.none)
    return _upright(stretched(levels, options.stretch), header, Path(path))


def read_header(path: str | PathLike[str], options: ReadOptions = PLAIN_READING) -> ImageHeader:
    """Read the header without decoding the pixels; also checks the end of the file.

    Raises FileNotFoundError, TruncatedImageError, or BrokenImageError if there is no image header.
    """
    with _open(Path(path), options) as file:
        try:
            descriptor = file.fileno()
        except io.UnsupportedOperation:  # a member of a tar
            return parse_header(file.read(), path, max_pixels=options.max_pixels)
        # Memory-mapped, so that only the pages of the header and of the end are read.
        with mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ) as data:
            return parse_header(data, path, max_pixels=options.max_pixels, file=file)


AnyImage = Image | PIL.Image.Image | str | PathLike[str]
"""An image as an array, a PIL image, or the path of a file."""


class MissingImageError(BrokenImageError, FileNotFoundError):
    """An image is given by a path to nothing."""


def as_image(image: AnyImage, options: ReadOptions = PLAIN_READING) -> Image:
    """Convert an image in any form to (H, W, 3) uint8 RGB with H, W > 0, contiguous, by the rules of `read_image`.

    Paths are read, PIL images are converted. In an array (H, W) and (H, W, 1) are grey, the fourth channel of (H, W, 4)
    is alpha, and uint16 has 16 bits. Raises ValueError that names the argument `image` for anything else: floats (white
    could be 1 or 255), other types and shapes, no pixels, MissingImageError for a path to nothing, and the errors of
    `read_image` for a file.
    """
    if isinstance(image, (str, PathLike)):
        try:
            return read_image(image, options)
        except FileNotFoundError as error:
            raise MissingImageError(
                f"image: expected the path of an image file, got {fspath(image)}, which does not exist; correct it"
            ) from error
    if isinstance(image, PIL.Image.Image):
        if not image.width * image.height:
            raise ValueError(f"{_EXPECTED}, got a PIL image of {image.width} x {image.height} pixels")
        return from_pillow(image, options)
    if not isinstance(image, np.ndarray):
        raise ValueError(f"{_EXPECTED}, got {type(image).__name__}")
    if image.ndim not in (2, 3) or not image.size or (image.ndim == 3 and image.shape[2] not in (1, 3, 4)):
        raise ValueError(f"{_EXPECTED}, got {image.shape} {image.dtype}")
    if image.dtype not in (np.uint8, np.uint16):
        remedy = "; give (image * 255).astype('uint8') if 1 is white" if image.dtype.kind == "f" else ""
        raise ValueError(f"{_EXPECTED}, got {image.shape} {image.dtype}{remedy}")
    levels = image if image.ndim == 3 else image[:, :, None]
    colours = levels[:, :, :3] if levels.shape[2] > 1 else np.repeat(levels, 3, axis=2)
    # A read-only array has another type for numba, which would compile everything a second time.
    return np.require(stretched(colours, options.stretch), np.uint8, ["C_CONTIGUOUS", "WRITEABLE"])


_EXPECTED = "image: expected a path, a PIL image, or an RGB image as a numpy array (H, W, 3) uint8 with H, W > 0"


def from_pillow(image: PIL.Image.Image, options: ReadOptions = PLAIN_READING) -> Image:
    """Convert a PIL image by the rules of `read_image`: (H, W, 3) uint8 RGB, upright.

    An opened file gives the same pixels as `read_image`, except for small differences with CMYK, which Pillow and
    OpenCV convert differently. An image without pixels gives an empty array.
    Raises BrokenImageError if the pixels can't be decoded, and for a single channel of 32 bits.
    """
    # Read before `load`, as for a header. Pillow itself rotates a TIFF when it loads the pixels.
    orientation = 1 if image.format == "TIFF" else exif_orientation(image.info.get("exif"))
    where = getattr(image, "filename", "") or "a PIL image"
    if image.width * image.height > options.max_pixels:
        raise BrokenImageError(
            f"{where}: expected an image of at most {options.max_pixels:,} pixels, got a huge one of {image.width} x "
            f"{image.height}; scale it down"
        )
    levels = pillow_levels(image, where, deep=options.stretch is not Stretch.none)
    colours = levels if levels.ndim == 3 else np.repeat(levels[..., np.newaxis], 3, axis=2)
    return _turn(stretched(colours, options.stretch), orientation)


def file_digest(path: Path) -> bytes:
    """The 16-byte BLAKE2b digest of a file that is not empty, or of a member of a tar. Raises as `open_stored`."""
    with open_stored(path, "a file to read") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16))  # type: ignore[arg-type]
        return digest.digest()


def _decoded(path: Path, options: ReadOptions, channels: Channels, *, deep: bool) -> tuple[Levels, ImageHeader]:
    """The pixels before rotation, and the header."""
    with _open(path, options) as file:
        data = file.read()
    header = parse_header(data, path, max_pixels=options.max_pixels)
    return decode(data, header, path, channels, deep=deep), header


def _open(path: Path, options: ReadOptions) -> BinaryIO:
    """Open an image file. Raises FileNotFoundError, other OSErrors, and BrokenImageError if it is not an image."""
    try:
        file = open_stored(path, "an image file")
    except InputFileError as error:
        raise BrokenImageError(str(error)) from error
    except ValueError as error:  # a name with a null character
        raise BrokenImageError(f"{fspath(path)!r}: expected an image file, got a name with {error}; {MEND}") from error
    most = _FILE_BYTES + _PIXEL_BYTES * options.max_pixels
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    if size > most:
        file.close()
        raise BrokenImageError(
            f"{path}: expected an image file of at most {most:,} bytes, got {size:,}; scale the image down, or raise "
            "max_pixels (dataset.max_pixels for a data set)"
        )
    return file


_FILE_BYTES, _PIXEL_BYTES = 1 << 26, 8
"""Limit on the size of a file: bytes of metadata, and bytes of a pixel, which has at most four channels of 16 bits."""


def _upright(pixels: npt.NDArray[np.uint8], header: ImageHeader, path: Path) -> npt.NDArray[np.uint8]:
    # Pillow and OpenCV rotate a TIFF themselves.
    upright = np.ascontiguousarray(pixels) if header.format == "TIFF" else _turn(pixels, header.orientation)
    if upright.shape[:2] != header.image_size:
        raise BrokenImageError(
            f"{path}: expected height and width {header.image_size} as in its header, got {upright.shape[:2]}; {MEND}"
        )
    return upright


def _turn(image: npt.NDArray[np.uint8], orientation: int) -> npt.NDArray[np.uint8]:
    """Rotate to upright by EXIF 2.3: 2 mirrored, 3 rotated by 180 degrees, 4 flipped, 5-8 the same transposed."""
    if orientation >= 5:
        image = image.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return np.ascontiguousarray(image)
