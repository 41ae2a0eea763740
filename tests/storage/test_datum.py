"""Caffe's Datum: round trips, Caffe's own databases, and records that are something else."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detpipe.storage.datum import (
    CorruptDatumError,
    caffe_datum,
    caffe_encoded_datum,
    pack_image,
    parse_datum,
    unpack_image,
    unpack_planes,
)
from detpipe.storage.lmdb_store import LmdbReader
from detpipe.storage.messages_pb2 import Datum
from detpipe.structures import Image
from tests.storage.hostile_images import claiming


def picture(height: int = 24, width: int = 32) -> Image:
    """Smooth, so that JPEG keeps it; red grows to the right, green downwards, blue is low."""
    image = np.full((height, width, 3), 20, dtype=np.uint8)
    image[:, :, 0] = np.linspace(0, 250, width)[None, :]
    image[:, :, 1] = np.linspace(0, 250, height)[:, None]
    return image


def test_field_numbers_are_caffes() -> None:
    """BVLC/caffe, src/caffe/proto/caffe.proto, message Datum."""
    fields = {field.name: field.number for field in Datum.DESCRIPTOR.fields}
    assert {name: number for name, number in fields.items() if number < 100} == {
        "channels": 1,
        "height": 2,
        "width": 3,
        "data": 4,
        "label": 5,
        "float_data": 6,
        "encoded": 7,
    }
    assert set(fields) - {"channels", "height", "width", "data", "label", "float_data", "encoded"} == {
        "box_target",
        "iou",
        "image_id",
        "box",
        "crc",
    }


def test_the_bytes_on_the_wire_are_caffes() -> None:
    datum = Datum(channels=3, height=1, width=1, data=b"\x01\x02\x03", label=5)
    assert datum.SerializeToString() == b"\x08\x03\x10\x01\x18\x01\x22\x03\x01\x02\x03\x28\x05"


@pytest.mark.parametrize("size", [(1, 1), (24, 32), (7, 3)])
def test_raw_round_trip_is_exact(size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    record = pack_image(image, jpeg_quality=None).SerializeToString()
    back = unpack_image(parse_datum(record, "here"), "here")
    np.testing.assert_array_equal(back, image)
    assert back.flags.c_contiguous
    assert back.flags.writeable


def test_raw_is_bgr_planes_as_caffe_has_them() -> None:
    datum = pack_image(picture(), jpeg_quality=None)
    planes = np.frombuffer(datum.data, np.uint8).reshape(3, 24, 32)
    np.testing.assert_array_equal(planes, picture()[:, :, ::-1].transpose(2, 0, 1))
    assert (datum.channels, datum.height, datum.width, datum.encoded) == (3, 24, 32, False)


def test_jpeg_round_trip_is_close_and_keeps_the_colours() -> None:
    datum = pack_image(picture(), jpeg_quality=95)
    assert datum.encoded
    assert datum.data[:2] == b"\xff\xd8"
    back = unpack_image(parse_datum(datum.SerializeToString(), "here"), "here").astype(int)
    assert np.abs(back - picture()).mean() < 6


def test_a_view_is_packed_as_it_is_seen() -> None:
    image = picture()[::2, ::-1]
    np.testing.assert_array_equal(unpack_image(pack_image(image, jpeg_quality=None), ""), image)


@pytest.mark.parametrize(("name", "count"), [("train", 12), ("test", 8)])
def test_caffes_own_databases(shared_data: Path, name: str, count: int) -> None:
    folder = shared_data / "caffe" / "datum_lmdb_sujack1"
    labels = dict(line.split() for line in (folder / f"{name}_files.txt").read_text().splitlines() if line.strip())
    with LmdbReader(folder / f"{name}_lmdb") as reader:
        records = list(reader.items())
    assert len(records) == count == len(labels)
    for key, record in records:
        file_name = key.decode().partition("_")[2]
        datum = parse_datum(record, file_name)
        image = cv2.imread(str(folder / f"{name}_raw_img" / file_name))
        assert image is not None
        want = cv2.resize(image, (256, 256))
        assert not datum.HasField("crc")
        assert datum.label == int(labels[file_name])
        np.testing.assert_array_equal(unpack_image(datum, file_name), want[:, :, ::-1], err_msg=file_name)


def test_a_raw_datum_by_hand() -> None:
    """One row of two pixels, RGB (1, 2, 3) and (4, 5, 6): planes of blue, green, red; `encoded` is false."""
    image = np.array([[[1, 2, 3], [4, 5, 6]]], dtype=np.uint8)
    wanted = b"\x08\x03\x10\x01\x18\x02\x22\x06\x03\x06\x02\x05\x01\x04\x28\x07\x38\x00"
    assert caffe_datum(image, 7).SerializeToString() == wanted


def test_grey_is_one_plane_and_is_read_as_three() -> None:
    grey = picture()[:, :, 0]
    datum = caffe_datum(grey, 0)
    assert (datum.channels, len(datum.data)) == (1, 24 * 32)
    png = cv2.imencode(".png", grey)[1].tobytes()
    for one in (datum, caffe_encoded_datum(png, grey, 0)):
        back = parse_datum(one.SerializeToString(), "here")
        np.testing.assert_array_equal(unpack_planes(back, "here"), grey[None])
        np.testing.assert_array_equal(unpack_image(back, "here"), np.dstack([grey] * 3))


def test_an_encoded_datum_says_its_size_and_checksum() -> None:
    png = cv2.imencode(".png", picture()[:, :, ::-1])[1].tobytes()
    datum = caffe_encoded_datum(png, picture(), 3)
    assert (datum.channels, datum.height, datum.width, datum.label, datum.encoded) == (3, 24, 32, 3, True)
    np.testing.assert_array_equal(unpack_image(datum, "here"), picture())
    datum.data = png[:-1]
    with pytest.raises(CorruptDatumError, match="checksum"):
        parse_datum(datum.SerializeToString(), "here")


def test_a_flipped_bit_is_found() -> None:
    record = bytearray(pack_image(picture(), jpeg_quality=None).SerializeToString())
    record[len(record) // 2] ^= 1
    with pytest.raises(CorruptDatumError, match=r"record 7: .*checksum.*make the database again"):
        parse_datum(bytes(record), "record 7")


def test_an_empty_record_has_no_image() -> None:
    with pytest.raises(CorruptDatumError, match="record 7: expected 3 x H x W values, or 1 x H x W, got 0 for"):
        unpack_image(parse_datum(b"", "record 7"), "record 7")


@pytest.mark.parametrize(
    "datum",
    [
        Datum(channels=3, height=2, width=2, data=bytes(11)),
        Datum(channels=2, height=2, width=2, data=bytes(8)),
        Datum(channels=1, height=2, width=2, data=bytes(12)),
        Datum(channels=3, height=-2, width=-2, data=bytes(12)),
        Datum(channels=3, height=0, width=5, data=b""),
        Datum(channels=3, height=1 << 30, width=1 << 30, data=bytes(12)),
        Datum(channels=3, float_data=[1.5] * 12, height=2, width=2),
        Datum(encoded=True),
        Datum(encoded=True, data=b"no image"),
        Datum(encoded=True, data=pack_image(picture(), jpeg_quality=90).data, channels=3, height=24, width=33),
    ],
)
def test_data_that_is_not_what_it_claims(datum: Datum) -> None:
    with pytest.raises(CorruptDatumError, match=r"^record 7: expected "):
        unpack_image(datum, "record 7")


def test_caffes_encoded_datum_without_a_size_is_read() -> None:
    datum = Datum(encoded=True, data=pack_image(picture(), jpeg_quality=90).data)
    assert unpack_image(datum, "").shape == (24, 32, 3)


def huge_png(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header claims this size."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_an_image_bomb_is_refused() -> None:
    with pytest.raises(CorruptDatumError, match="record 7"):
        unpack_image(Datum(encoded=True, data=huge_png(100_000, 100_000)), "record 7")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000"])
@pytest.mark.parametrize("reduction", [1, 8])
def test_a_small_record_that_claims_a_huge_image_is_refused_by_its_header(kind: str, reduction: int) -> None:
    datum = Datum(encoded=True, data=claiming(kind, 16_000, 16_001))
    assert len(datum.data) < 2_000
    message = r"record 7: .* at most 100,000,000 pixels, got a huge one of 16001 x 16000; make the database"
    with pytest.raises(CorruptDatumError, match=message):
        unpack_image(datum, "record 7", reduction=reduction)
    with pytest.raises(CorruptDatumError, match=message):
        unpack_planes(datum, "record 7")


@pytest.mark.parametrize("kind", ["BMP", "TIFF", "WEBP", "GIF", "PPM"])
def test_other_formats_of_a_record_are_read_as_their_files(kind: str) -> None:
    stream = io.BytesIO()
    PIL.Image.fromarray(picture()).save(stream, kind, **({"lossless": True} if kind == "WEBP" else {}))
    found = unpack_image(Datum(encoded=True, data=stream.getvalue()), "")
    assert np.abs(found.astype(int) - picture()).mean() < 6
    np.testing.assert_array_equal(
        unpack_planes(Datum(encoded=True, data=stream.getvalue()), ""), found[..., ::-1].transpose(2, 0, 1)
    )


def readable(record: bytes) -> npt.NDArray[np.uint8] | None:
    try:
        return unpack_image(parse_datum(record, "record 7"), "record 7")
    except CorruptDatumError:
        return None


@given(st.binary(max_size=200))
def test_any_bytes_are_an_image_or_a_clear_error(record: bytes) -> None:
    image = readable(record)
    assert image is None or image.ndim == 3


@given(st.integers(0, 400), st.integers(0, 255))
def test_any_damage_is_the_same_image_or_a_clear_error(place: int, value: int) -> None:
    record = bytearray(pack_image(picture(8, 8), jpeg_quality=None).SerializeToString())
    record[place % len(record)] = value
    image = readable(bytes(record))
    assert image is None or sorted(image.ravel()) == sorted(picture(8, 8).ravel())


@given(st.integers(0, 300))
def test_a_cut_record_gives_no_half_image(length: int) -> None:
    record = pack_image(picture(8, 8), jpeg_quality=None).SerializeToString()
    image = readable(record[:length])
    # The checksum stands last, so a cut just before it leaves a Datum as Caffe writes it.
    assert image is None or np.array_equal(image, picture(8, 8))
    assert image is None or length >= len(record) - 6


# --- float_data -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
def test_float_data_of_pixels_is_read_as_caffe_reads_it(channels: int) -> None:
    values = range(0, 2 * 3 * channels * 10, 10)
    raw = Datum(channels=channels, height=2, width=3, data=bytes(values))
    floats = Datum(channels=channels, height=2, width=3, float_data=values)
    assert np.array_equal(unpack_planes(floats, "db"), unpack_planes(raw, "db"))
    assert np.array_equal(unpack_image(floats, "db"), unpack_image(raw, "db"))
    # Caffe takes float_data only where there are no bytes.
    both = Datum(channels=1, height=1, width=1, data=b"\x05", float_data=[7.0])
    assert unpack_planes(both, "db").tolist() == [[[5]]]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([0.5, 1, 2], "got float_data from 0.5 to 2 in 3 x 1 x 1"),
        ([-1, 0, 255], "from -1 to 255"),
        ([0, 0, 256], "from 0 to 256"),
        ([0, float("nan"), 1], "whole numbers"),
        ([0, float("inf"), 1], "to inf"),
        ([1, 2], r"3 x H x W values, or 1 x H x W, got 2 for \(3, 1, 1\)"),
    ],
)
def test_other_float_data_is_named(values: list[float], words: str) -> None:
    with pytest.raises(CorruptDatumError, match=f"^db: expected .*{words}"):
        unpack_image(Datum(channels=3, height=1, width=1, float_data=values), "db")
