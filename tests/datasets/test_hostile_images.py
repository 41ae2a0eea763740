"""Small hostile and damaged images: each gives its pixels or one BrokenImageError, in bounded time and memory."""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest

from detpipe.datasets.image_file import BrokenImageError, from_pillow, read_header, read_image
from tests.storage.hostile_images import chunk, claiming, exif, jpeg, png, tiff

NOISE = np.random.default_rng(0).integers(0, 256, (12, 17, 3), dtype=np.uint8)
SMOOTH = np.asarray(cv2.resize(NOISE[:3, :4], (17, 12)), dtype=np.uint8)
KINDS = ("JPEG", "PNG", "BMP", "DIB", "GIF", "WEBP", "PPM", "JPEG2000", "TIFF")
SIZES = ((0, 5), (5, 0), (0, 0), (65_535, 65_535), (1, 65_535), (65_535, 1), (5_000, 5_000), (2**31 - 1, 1))


def encoded(kind: str, pixels: np.ndarray = SMOOTH, **options: object) -> bytes:
    stream = io.BytesIO()
    PIL.Image.fromarray(pixels).save(stream, kind, **options)
    return stream.getvalue()


def jpeg_with(segment: bytes) -> bytes:
    data = jpeg(SMOOTH)
    return data[:2] + segment + data[2:]


def segment(marker: int, body: bytes, length: int | None = None) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2 if length is None else length) + body


def corpus() -> Iterator[tuple[str, bytes]]:
    """Names and files."""
    for kind in KINDS:
        data = encoded(kind)
        for tenth in range(1, 10):
            yield f"{kind} cut {tenth}", data[: len(data) * tenth // 10]
        for height, width in SIZES:
            try:
                yield f"{kind} claims {height} x {width}", claiming(kind, height, width)
            except (struct.error, ValueError):
                continue  # the format has no such size
    for length in (0, 1, 2, 3, 0x7FFF, 0xFFFF):
        for marker in (0xE0, 0xE1, 0xE2, 0xED, 0xEE, 0xC0, 0xC4, 0xDB, 0xDD, 0xFE):
            yield f"JPEG {marker:x} of length {length}", jpeg_with(segment(marker, b"abcdefgh", length))
    yield "JPEG of fill bytes", b"\xff\xd8" + b"\xff" * 9_000
    yield "JPEG of empty segments", b"\xff\xd8" + b"\xff\xe0\0\2" * 2_000 + jpeg(SMOOTH)[2:]
    yield "JPEG with a bad colour profile", jpeg_with(segment(0xE2, b"ICC_PROFILE\0\xff\xff" + b"z" * 200))
    yield "JPEG with a Photoshop block", jpeg_with(segment(0xED, b"Photoshop 3.0\0" + b"8BIM\x03\xed\xff" * 9))
    for block in (exif(6)[:9], b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\1" * 99):
        yield f"JPEG with damaged EXIF {block[:14]!r}", jpeg_with(segment(0xE1, block))
        yield f"PNG with damaged EXIF {block[:14]!r}", png(SMOOTH, extra=chunk(b"eXIf", block[6:]))
    loop = exif(6)[:-4] + struct.pack("<I", 8)  # the next directory is the first
    yield "JPEG with a loop of EXIF directories", jpeg_with(segment(0xE1, loop))
    for length in (0x7FFFFFFF, 0xFFFFFFFF, 0x10000000):
        yield f"PNG with a chunk of {length:x}", png(SMOOTH, extra=struct.pack(">I", length) + b"tEXt")
    bomb = zlib.compress(bytes(5_000_000), 9)
    yield "PNG with a text of 5 MB", png(SMOOTH, extra=chunk(b"zTXt", b"a\0\0" + bomb))
    yield "PNG with a colour profile of 5 MB", png(SMOOTH, extra=chunk(b"iCCP", b"a\0\0" + bomb))
    yield "PNG with many chunks", png(SMOOTH, extra=chunk(b"tEXt", b"") * 700)
    yield "PNG without pixels", png(SMOOTH, size=(500, 500))
    yield "PNG with an empty animation", png(SMOOTH, frames=[])
    yield "TIFF with a loop of directories", tiff(SMOOTH)[:-4] + struct.pack("<I", 8)
    whole = bytearray(tiff(SMOOTH))
    whole[4:8] = struct.pack("<I", 4)
    yield "TIFF whose directory is its start", bytes(whole)
    for tag in (273, 279, 278, 277, 258, 256, 322, 323, 330, 34665, 700, 34675):
        for value in (0, 1, 0x7FFFFFFF, 0xFFFFFFFF):
            yield f"TIFF with tag {tag} = {value:x}", tiff(SMOOTH, more=[(tag, 4, 1, struct.pack("<I", value))])
            yield f"TIFF with {value:x} values of tag {tag}", tiff(SMOOTH, more=[(tag, 4, value, bytes(4))])
    tiles = [(322, 4, 1, struct.pack("<I", 60_000)), (323, 4, 1, struct.pack("<I", 60_000))]
    for compression in (1, 5, 7, 8, 32773):
        tag_259 = (259, 3, 1, struct.pack("<H", compression))
        yield f"TIFF with huge tiles, compression {compression}", tiff(SMOOTH, more=[*tiles, tag_259])
    for height in (-12, -(2**31), 2**31 - 1):
        for width in (17, 0, -1, 2**31 - 1):
            changed = bytearray(encoded("BMP"))
            changed[18:26] = struct.pack("<ii", width, height)
            yield f"BMP of {width} x {height}", bytes(changed)
    for at in (10, 14, 28, 30, 34, 46):
        changed = bytearray(encoded("BMP", SMOOTH[..., 0]))
        changed[at : at + 4] = b"\xff\xff\xff\x7f"
        yield f"BMP with a huge number at {at}", bytes(changed)
    yield "GIF with a frame beyond its screen", encoded("GIF").replace(b"\x2c\0\0\0\0", b"\x2c\xff\xff\xff\xff")
    yield "PPM of long numbers", b"P6 " + b"9" * 5_000 + b" 1 255 "
    yield "PPM with comments", b"P6" + b"#\n" * 4_000 + b"1 1 255 abc"
    yield "plain PPM that claims much", b"P3 10000 9999 255 " + b"1 " * 4_000
    yield "WebP of a huge canvas", b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0\xff\xff\xff\xff\xff\xff"


READ_ALL = """
import json, sys, time, warnings
from pathlib import Path
from detpipe.datasets.image_file import BrokenImageError, read_header, read_image
warnings.simplefilter("ignore")
results = {}
for path in sorted(Path(sys.argv[1]).iterdir()):
    begun = time.process_time()
    try:
        outcome = list(read_image(path).shape)
        if list(read_header(path).image_size) != outcome[:2]:
            outcome = "another size in the header"
    except BrokenImageError as error:
        outcome = None if str(error).startswith(f"{path}: expected") else f"message: {error}"
    except Exception as error:
        outcome = repr(error)
    # Not ru_maxrss, which begins with the memory of the process that started this one.
    status = Path("/proc/self/status").read_text().split()
    megabytes = int(status[status.index("VmHWM:") + 1]) / 1024
    results[path.name] = outcome, time.process_time() - begun, megabytes
print(json.dumps(results))
"""


def test_hostile_files_give_pixels_or_one_sentence_within_time_and_memory(tmp_path: Path) -> None:
    names = {}
    for number, (name, data) in enumerate(corpus()):
        assert len(data) <= 12_000, name
        path = tmp_path / f"{number:04d}.img"
        path.write_bytes(data)
        names[path.name] = name
    done = subprocess.run([sys.executable, "-c", READ_ALL, tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    results = json.loads(done.stdout)
    assert len(results) == len(names) > 300
    assert {names[file]: outcome for file, (outcome, _, _) in results.items() if isinstance(outcome, str)} == {}
    assert {names[file]: seconds for file, (_, seconds, _) in results.items() if seconds > 5} == {}
    # The largest claim within the limit, 5,000 x 5,000, takes 75 MB; further copies are made of its channels.
    assert max((megabytes, names[file]) for file, (*_, megabytes) in results.items()) < (800, "")


def seeds() -> list[bytes]:
    """Small sound files of all formats."""
    files = [encoded(kind, pixels) for kind in KINDS for pixels in (NOISE, SMOOTH)]
    files += [encoded(kind, SMOOTH[..., 0]) for kind in KINDS]
    files += [encoded("TIFF", compression=kind) for kind in ("tiff_lzw", "tiff_deflate", "packbits", "jpeg")]
    files += [encoded("JPEG", progressive=True), encoded("WEBP", lossless=True), png(SMOOTH, frames=[NOISE])]
    files += [tiff(NOISE.astype(np.uint16) * 257), cv2.imencode(".png", NOISE.astype(np.uint16) * 257)[1].tobytes()]
    return files


def mutated(data: bytes, generator: np.random.Generator) -> bytes:
    changed = bytearray(data)
    at = int(generator.integers(len(changed)))
    match int(generator.integers(4)):
        case 0:
            changed[at] = generator.integers(256)
        case 1:
            return data[:at]
        case 2:
            value = (0, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 65_536)[generator.integers(5)]
            changed[at : at + 4] = struct.pack("<I" if generator.random() < 0.5 else ">I", value)
        case _:
            changed[at : at + 3] = generator.integers(0, 256, generator.integers(7), dtype=np.uint8).tobytes()
    return bytes(changed)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", range(4))
def test_mutated_files_are_read_as_by_pillow_or_are_broken(tmp_path: Path, seed: int) -> None:
    generator, files, path = np.random.default_rng(seed), seeds(), tmp_path / "a.img"
    compared = 0
    for _ in range(300):
        data = mutated(files[generator.integers(len(files))], generator)
        path.write_bytes(data)
        try:
            found = read_image(path)
        except BrokenImageError:
            continue
        assert read_header(path).image_size == found.shape[:2]
        try:
            with PIL.Image.open(io.BytesIO(data)) as picture:
                wanted = from_pillow(picture)
        except Exception:
            continue  # Pillow refuses a file that is read here
        assert found.shape == wanted.shape
        assert np.abs(found.astype(int) - wanted).max() <= 3
        compared += 1
    assert compared > 50
