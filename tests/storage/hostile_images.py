"""Small encoded images for tests, written by hand where libraries don't write what is tested."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence

import numpy as np
import PIL.Image


def jpeg(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    PIL.Image.fromarray(pixels).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def claiming(kind: str, height: int, width: int) -> bytes:
    """A small file of a format of Pillow whose header claims this size."""
    pixels = np.zeros((8, 16, 3), np.uint8)
    if kind == "PNG":
        return png(pixels, size=(height, width))
    stream = io.BytesIO()
    options = {"lossless": True} if kind == "WEBP" else {"no_jp2": True} if kind == "JPEG2000" else {}
    PIL.Image.fromarray(pixels).save(stream, kind, **options)
    data = bytearray(stream.getvalue())
    if kind == "JPEG":
        at = data.index(b"\xff\xc0") + 5
        data[at : at + 4] = struct.pack(">HH", height, width)
    elif kind == "GIF":
        data[6:10] = struct.pack("<HH", width, height)
    elif kind == "BMP":
        data[18:26] = struct.pack("<ii", width, height)
    elif kind == "PPM":
        data = bytearray(data.replace(b"16 8", f"{width} {height}".encode()))
    elif kind == "JPEG2000":  # SIZ: the end and, further on, the size of a tile
        data[8:16] = data[24:32] = struct.pack(">II", width, height)
    elif kind == "TIFF":
        for tag, value in ((256, width), (257, height)):
            at = data.index(struct.pack("<HHI", tag, 4 if struct.pack("<HHI", tag, 4, 1) in data else 3, 1))
            data[at : at + 12] = struct.pack("<HHII", tag, 4, 1, value)
    elif kind == "WEBP":  # VP8L: 14 bits each of width - 1 and height - 1
        at = data.index(b"VP8L") + 9
        data[at : at + 4] = struct.pack("<I", (width - 1) & 0x3FFF | ((height - 1) & 0x3FFF) << 14)
    return bytes(data)


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(
    pixels: np.ndarray,
    *,
    size: tuple[int, int] | None = None,
    extra: bytes = b"",
    frames: Sequence[np.ndarray] | None = None,
) -> bytes:
    """A PNG of (H, W, 3) uint8. size: (height, width) that it claims. extra: chunks before its pixels.

    frames: images of an animation of which the default image is no part.
    """
    height, width = size or pixels.shape[:2]
    parts = [chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), extra]
    if frames is not None:
        parts.append(chunk(b"acTL", struct.pack(">II", len(frames), 0)))
    parts.append(chunk(b"IDAT", _rows(pixels)))
    for number, frame in enumerate(frames or ()):
        parts.append(chunk(b"fcTL", struct.pack(">IIIIIHHBB", 2 * number, width, height, 0, 0, 1, 10, 0, 0)))
        parts.append(chunk(b"fdAT", struct.pack(">I", 2 * number + 1) + _rows(frame)))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IEND", b"")


def _rows(pixels: np.ndarray) -> bytes:
    return zlib.compress(b"".join(b"\0" + row.tobytes() for row in pixels))


def exif(orientation: int, order: str = "II") -> bytes:
    """A block of EXIF data with this orientation."""
    sign = "<" if order == "II" else ">"
    entry = struct.pack(f"{sign}HHIHH", 274, 3, 1, orientation, 0)
    return b"Exif\0\0" + order.encode() + struct.pack(f"{sign}HIH", 42, 8, 1) + entry + bytes(4)


def tiff(
    pixels: np.ndarray,
    *,
    bits: int | None = None,
    extra: int | None = None,
    photometric: int | None = None,
    more: Sequence[tuple[int, int, int, bytes]] = (),
) -> bytes:
    """An uncompressed little-endian TIFF of (H, W) or (H, W, C), of the array's own type, or of `bits` below 8 or 12.

    extra: ExtraSamples of the last channel. more: further tags, as (tag, type, count, data).
    """
    height, width = pixels.shape[:2]
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    depth = bits or pixels.dtype.itemsize * 8
    if bits is None:
        data = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
    else:
        rows = [np.array([[value >> bit & 1 for bit in range(depth)[::-1]] for value in row]).ravel() for row in pixels]
        data = b"".join(np.packbits(row.astype(np.uint8)).tobytes() for row in rows)
    kind = {"u": 1, "i": 2, "f": 3}[pixels.dtype.kind] if bits is None else 1
    tags: list[tuple[int, int, int, bytes]] = [
        (256, 4, 1, struct.pack("<I", width)),
        (257, 4, 1, struct.pack("<I", height)),
        (258, 3, channels, struct.pack("<H", depth) * channels),
        (259, 3, 1, struct.pack("<H", 1)),
        (262, 3, 1, struct.pack("<H", (2 if channels >= 3 else 1) if photometric is None else photometric)),
        (273, 4, 1, b"data"),
        (277, 3, 1, struct.pack("<H", channels)),
        (278, 4, 1, struct.pack("<I", height)),
        (279, 4, 1, struct.pack("<I", len(data))),
        (339, 3, channels, struct.pack("<H", kind) * channels),
    ]
    if extra is not None:
        tags.append((338, 3, 1, struct.pack("<H", extra)))
    tags = sorted([*tags, *more])
    at = 8 + 2 + 12 * len(tags) + 4
    entries, after = b"", b""
    for tag, type_, count, value in tags:
        if value == b"data":
            place = sum(len(other) for *_, other in tags if len(other) > 4)
            value = struct.pack("<I", at + place)
        if len(value) > 4:
            after += value
            value = struct.pack("<I", at + len(after) - len(value))
        entries += struct.pack("<HHI", tag, type_, count) + value.ljust(4, b"\0")
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + after + data
