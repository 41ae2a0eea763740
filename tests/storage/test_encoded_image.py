"""Encoded images: headers, limits, and the pixels of formats that decoders read differently."""

from __future__ import annotations

import io
import struct
import threading
import warnings
import zlib
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest

from detpipe.datasets.image_file import from_pillow, read_header, read_image
from detpipe.storage.encoded_image import (
    BrokenImageError,
    Channels,
    TruncatedImageError,
    decode,
    exif_orientation,
    jpeg_size,
    parse_header,
)
from tests.storage.hostile_images import exif, jpeg, png, tiff

RAMP = np.arange(96, dtype=np.uint8).reshape(4, 8, 3)


def rgb(data: bytes) -> np.ndarray:
    return decode(data, parse_header(data, "a"), "a", Channels.COLOUR)[..., ::-1]


def through_pillow(data: bytes) -> np.ndarray:
    with PIL.Image.open(io.BytesIO(data)) as image:
        return from_pillow(image)


# JPEG


def with_segment(data: bytes, segment: bytes) -> bytes:
    return data[:2] + segment + data[2:]


@pytest.mark.parametrize(
    ("between", "what"),
    [
        (b"\0\0\0\0\0", "stray bytes"),
        (b"\xff" * 7, "fill bytes"),
        (b"\xff\0\xff\0", "stuffed bytes"),
        (b"\xff\xe0\0\x04ab" + bytes(16), "a segment that is longer than it says"),
        (b"\xff\xee\0\x0dAdobe\0", "an Adobe segment of 5 bytes less than it says"),
        (b"\xff\xfe\0\x10" + b"a comment" + b"\xff\xd9..\xff", "a comment with an end marker"),
        (b"\xff\x01\xff\xd0", "markers without a length"),
    ],
)
def test_bytes_between_jpeg_segments_are_skipped_as_libjpeg_does(between: bytes, what: str) -> None:
    data = with_segment(jpeg(RAMP), between)
    if "Adobe" in what:  # it takes the first bytes of the next segment, which is the JFIF block
        data = with_segment(jpeg(RAMP), between + bytes(5))
    header = parse_header(data, what)
    assert (header.format, header.image_size, header.orientation) == ("JPEG", (4, 8), 1)
    np.testing.assert_array_equal(rgb(data), rgb(jpeg(RAMP)))


@pytest.mark.parametrize("cut", range(2, 600, 7))
def test_a_jpeg_that_lacks_its_end_is_truncated_wherever_it_is_cut(cut: int) -> None:
    data = jpeg(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8))
    with pytest.raises(TruncatedImageError):
        parse_header(data[:cut], "a.jpg")


def test_a_jpeg_without_a_scan_is_no_truncated_one() -> None:
    with pytest.raises(BrokenImageError, match="a JPEG without pixels"):
        parse_header(b"\xff\xd8\xff\xdb\0\x04ab\xff\xd9", "tables.jpg")


def test_the_size_of_a_jpeg_is_that_of_its_frame_not_of_its_thumbnail() -> None:
    thumbnail = jpeg(np.zeros((2, 3, 3), np.uint8))
    block = b"Exif\0\0" + thumbnail
    data = with_segment(jpeg(RAMP), b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block)
    assert parse_header(data, "a").image_size == (4, 8)


def test_the_size_of_a_jpeg_without_oddities_is_found_fast_and_as_in_its_header() -> None:
    data = jpeg(RAMP)
    assert jpeg_size(data) == (4, 8) == parse_header(data, "a").image_size
    assert jpeg_size(jpeg(RAMP[..., 0])) == (4, 8)
    block = b"Exif\0\0" + jpeg(np.zeros((2, 3, 3), np.uint8))
    assert jpeg_size(with_segment(data, b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block)) == (4, 8)
    for odd in (b"", b"\xff", data[:20], png(RAMP), with_segment(data, b"\0\0"), with_segment(data, b"\xff\xfe\0\1")):
        assert jpeg_size(odd) is None


# EXIF


@pytest.mark.parametrize("order", ["II", "MM"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_read_from_a_block_by_hand(order: str, orientation: int) -> None:
    assert exif_orientation(exif(orientation, order)) == orientation
    assert exif_orientation(exif(orientation, order).removeprefix(b"Exif\0\0")) == orientation


@pytest.mark.parametrize("orientation", [0, 9, 77, 65535])
def test_other_orientations_are_upright(orientation: int) -> None:
    assert exif_orientation(exif(orientation)) == 1


@pytest.mark.parametrize("cut", range(32))
def test_a_cut_exif_block_leaves_the_image_as_it_is(cut: int, tmp_path: Path) -> None:
    block = exif(6)[:cut]
    assert exif_orientation(block) in (1, 6)
    data = with_segment(jpeg(RAMP), b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block)
    (tmp_path / "a.jpg").write_bytes(data)
    assert read_image(tmp_path / "a.jpg").shape[2] == 3
    assert read_header(tmp_path / "a.jpg").raw_size == (4, 8)


def test_raw_size_is_before_rotation() -> None:
    data = with_segment(jpeg(RAMP), b"\xff\xe1" + struct.pack(">H", len(exif(6)) + 2) + exif(6))
    header = parse_header(data, "a")
    assert (header.image_size, header.raw_size, header.orientation) == ((8, 4), (4, 8), 6)


# PNG


def test_the_default_image_of_an_animated_png_is_read() -> None:
    """The default image is not a frame of the animation: Pillow and browsers without APNG show it."""
    hidden, shown = RAMP, 255 - RAMP
    data = png(hidden, frames=[shown])
    np.testing.assert_array_equal(rgb(data), hidden)
    np.testing.assert_array_equal(through_pillow(data), hidden)
    np.testing.assert_array_equal(rgb(png(hidden, frames=[])), hidden)  # claims an animation of no frame


# TIFF


@pytest.mark.parametrize("extra", [0, 2])
@pytest.mark.parametrize("bits", [8, 16])
def test_colours_of_a_tiff_are_not_multiplied_by_its_fourth_channel(extra: int, bits: int) -> None:
    """ExtraSamples 2 is alpha beside the colours, 0 is any other channel, such as infrared."""
    pixels = np.dstack([RAMP, np.full((4, 8), 20, np.uint8)])
    data = tiff(pixels if bits == 8 else pixels.astype(np.uint16) * 257, extra=extra)
    np.testing.assert_array_equal(rgb(data), RAMP)
    np.testing.assert_array_equal(through_pillow(data), RAMP)


@pytest.mark.parametrize("bits", [8, 16])
def test_colours_that_were_multiplied_by_alpha_are_divided_by_it(bits: int) -> None:
    """ExtraSamples 1: stored 60 at alpha 102 is 150, since 60 x 255 / 102 = 150."""
    pixels = np.full((2, 3, 4), (60, 40, 20, 102), np.uint8)
    data = tiff(pixels if bits == 8 else pixels.astype(np.uint16) * 257, extra=1)
    for found in (rgb(data), through_pillow(data)):
        assert np.abs(found[0, 0].astype(int) - (150, 100, 50)).max() <= 1


def test_grey_tiffs_of_1_2_4_and_12_bits_are_scaled_to_8() -> None:
    assert rgb(tiff(np.array([[0, 1, 2, 3]]), bits=2))[0, :, 0].tolist() == [0, 85, 170, 255]
    assert rgb(tiff(np.array([[0, 1, 8, 15]]), bits=4))[0, :, 0].tolist() == [0, 17, 136, 255]
    assert rgb(tiff(np.array([[0, 16, 2048, 4095]]), bits=12))[0, :, 0].tolist() == [0, 1, 128, 255]
    assert rgb(tiff(np.array([[0, 1, 1, 0, 1, 0, 0, 0]]), bits=1))[0, :5, 0].tolist() == [0, 255, 255, 0, 255]


def test_white_is_zero() -> None:
    assert rgb(tiff(np.array([[0, 255]], np.uint8), photometric=0))[0, :, 0].tolist() == [255, 0]
    assert rgb(tiff(np.array([[0, 65535]], np.uint16), photometric=0))[0, :, 0].tolist() == [255, 0]


@pytest.mark.parametrize(
    ("pixels", "kind"),
    [
        (np.zeros((2, 2), np.float32), "32-bit floating-point values"),
        (np.zeros((2, 2), np.float64), "64-bit floating-point values"),
        (np.zeros((2, 2), np.uint32), "32-bit integers"),
        (np.zeros((2, 2), np.int16), "16-bit signed integers"),
        (np.zeros((2, 2, 5), np.uint16), "16-bit integers in 5 channels"),
        (np.zeros((2, 2, 3), np.float32), "32-bit floating-point values in 3 channels"),
    ],
)
def test_a_tiff_that_has_no_fixed_range_says_its_kind(pixels: np.ndarray, kind: str) -> None:
    with pytest.raises(BrokenImageError, match=f"got a TIFF with {kind}; scale the values"):
        parse_header(tiff(pixels), "a.tif")


# Other formats


def test_a_gap_before_the_pixels_of_a_bmp_is_skipped() -> None:
    stream = io.BytesIO()
    PIL.Image.fromarray(RAMP).save(stream, "BMP")
    data = stream.getvalue()
    start = struct.unpack_from("<I", data, 10)[0]
    moved = data[:10] + struct.pack("<I", start + 20) + data[14:start] + b"\xaa" * 20 + data[start:]
    np.testing.assert_array_equal(rgb(moved), RAMP)


def test_masks_of_a_bmp_with_a_v2_header_are_used() -> None:
    """BITMAPV2INFOHEADER, 52 bytes: 32 bits, compression 3, masks for red, green, blue in the header."""
    masks = struct.pack("<3I", 0xFF000000, 0x00FF0000, 0x0000FF00)
    header = struct.pack("<IiiHHIIiiII", 52, 8, -4, 1, 32, 3, 4 * 8 * 4, 0, 0, 0, 0) + masks
    padded = np.concatenate([np.zeros((4, 8, 1), np.uint8), RAMP[..., ::-1]], axis=2)
    data = b"BM" + struct.pack("<IHHI", 14 + 52 + padded.size, 0, 0, 14 + 52) + header + padded.tobytes()
    np.testing.assert_array_equal(rgb(data), RAMP)


def test_a_gif_shows_the_colours_behind_its_transparency() -> None:
    picture = PIL.Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8), "P")
    picture.putpalette([10, 20, 30, 200, 100, 50, 7, 8, 9])
    stream = io.BytesIO()
    picture.save(stream, "GIF", transparency=1, background=0)
    for found in (rgb(stream.getvalue()), through_pillow(stream.getvalue())):
        assert found.reshape(4, 3).tolist() == [[10, 20, 30], [200, 100, 50], [7, 8, 9], [200, 100, 50]]


@pytest.mark.parametrize(
    ("kind", "mode"),
    [("JPEG2000", "RGB"), ("JPEG2000", "L"), ("PPM", "RGB"), ("PPM", "L"), ("PPM", "1"), ("DIB", "RGB"), ("GIF", "P")],
)
def test_further_formats_are_read_as_by_pillow(kind: str, mode: str) -> None:
    picture = PIL.Image.fromarray(RAMP).convert(mode)
    stream = io.BytesIO()
    picture.save(stream, kind)
    assert parse_header(stream.getvalue(), "a").image_size == (4, 8)
    np.testing.assert_array_equal(rgb(stream.getvalue()), np.asarray(picture.convert("RGB")))


def test_channels_of_formats_that_pillow_reads() -> None:
    colour, grey = io.BytesIO(), io.BytesIO()
    PIL.Image.fromarray(RAMP).save(colour, "BMP")
    PIL.Image.fromarray(RAMP[..., 0]).save(grey, "TIFF")
    for data, wanted in (
        (colour.getvalue(), [(4, 8, 3), (4, 8), (4, 8, 3)]),
        (grey.getvalue(), [(4, 8, 3), (4, 8), (4, 8)]),
    ):
        header = parse_header(data, "a")
        assert [decode(data, header, "a", channels).shape for channels in Channels] == wanted
    expected = cv2.cvtColor(RAMP, cv2.COLOR_RGB2GRAY)
    data = colour.getvalue()
    np.testing.assert_array_equal(decode(data, parse_header(data, "a"), "a", Channels.GREY), expected)


def test_sixteen_bits_are_kept_if_asked() -> None:
    deep = (np.arange(24, dtype=np.uint16) * 170).reshape(2, 4, 3)
    for data in (cv2.imencode(".png", deep)[1].tobytes(), tiff(deep[..., ::-1])):
        header = parse_header(data, "a")
        np.testing.assert_array_equal(decode(data, header, "a", Channels.COLOUR, deep=True), deep)
        np.testing.assert_array_equal(decode(data, header, "a", Channels.COLOUR), deep >> 8)


# Limits


def test_the_limit_on_pixels_is_held_before_decoding() -> None:
    data = png(RAMP)
    assert parse_header(data, "a", max_pixels=32).image_size == (4, 8)
    with pytest.raises(BrokenImageError, match=r"at most 31 pixels, got a huge one of 8 x 4; .* raise max_pixels"):
        parse_header(data, "a", max_pixels=31)


def test_no_global_state_is_changed_by_threads_that_read_headers(tmp_path: Path) -> None:
    paths = []
    for kind in ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP"):
        paths.append(tmp_path / f"a.{kind}")
        PIL.Image.fromarray(RAMP).save(paths[-1], kind)
    before, limit = list(warnings.filters), PIL.Image.MAX_IMAGE_PIXELS
    threads = [
        threading.Thread(target=lambda: [read_header(path) for _ in range(40) for path in paths]) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert warnings.filters == before
    assert limit == PIL.Image.MAX_IMAGE_PIXELS


def test_a_png_of_zeros_is_bounded_by_the_limit() -> None:
    body = zlib.compress(bytes(100 * 301), 9)
    data = png(np.zeros((100, 100, 3), np.uint8))
    assert len(body) < len(data) < 400
    with pytest.raises(BrokenImageError, match="a huge one"):
        parse_header(data, "a", max_pixels=9_999)
