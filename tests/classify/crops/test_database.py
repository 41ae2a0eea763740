"""The database of crops: what is written comes back, in shuffled order, and damage is named."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest

from detpipe.classify.crops.crop import crop_regions
from detpipe.classify.crops.database import ChangedImageError, CropsReader, CropTask, make_records, shuffled_keys
from detpipe.classify.crops.settings import CropConfig, Encoding
from detpipe.classify.labeling import Regions
from detpipe.datasets.image_file import file_digest
from detpipe.storage.datum import CorruptDatumError, parse_datum
from detpipe.storage.lmdb_store import LmdbWriter
from detpipe.storage.messages_pb2 import Datum
from detpipe.structures import Image

BOXES = np.array([[0, 0, 16, 16], [10, 10, 26, 26], [4, 4, 36, 30]], dtype=np.float32)
REGIONS = Regions(
    BOXES,
    np.array([0, 2, 1], dtype=np.int64),
    np.array([0.25, 0.75, 1], dtype=np.float32),
    np.array([[0, 0, 0, 0], [0.1, -0.2, 0.3, 0.4], [0, 0, 0, 0]], dtype=np.float32),
)


@pytest.fixture
def image() -> Image:
    x, y = np.linspace(0, 250, 48)[None, :], np.linspace(0, 250, 40)[:, None]
    return np.stack(np.broadcast_arrays(x, y, 0 * x), axis=2).astype(np.uint8)


@pytest.fixture
def path(tmp_path: Path, image: Image) -> Path:
    cv2.imwrite(str(tmp_path / "a.png"), image[:, :, ::-1])
    return tmp_path / "a.png"


def task(path: Path, encoding: Encoding, regions: Regions = REGIONS) -> CropTask:
    config = CropConfig(size=16, context_pad=0, encoding=encoding)
    keys = tuple(shuffled_keys(["a"] * len(regions), seed=4))
    return CropTask("a", path, file_digest(path), regions, keys, config)


def write(path: Path, records: list[tuple[bytes, bytes]]) -> Path:
    with LmdbWriter(path) as writer:
        for key, value in records:
            writer.put(key, value)
    return path


@pytest.mark.parametrize("encoding", list(Encoding))
def test_round_trip(tmp_path: Path, path: Path, image: Image, encoding: Encoding) -> None:
    made = task(path, encoding)
    reader = CropsReader(write(tmp_path / "db", make_records(made)))
    assert len(reader) == 3
    by_place = np.argsort(made.keys)  # in key order
    assert reader.labels.tolist() == REGIONS.labels[by_place].tolist()
    assert reader.ious.tolist() == REGIONS.ious[by_place].tolist()
    batch = reader.read([2, 0, 1, 0])
    want = by_place[[2, 0, 1, 0]]
    np.testing.assert_array_equal(batch.labels, REGIONS.labels[want])
    np.testing.assert_array_equal(batch.deltas, REGIONS.deltas[want])
    crops = crop_regions(image, BOXES[want], made.config)
    difference = np.abs(batch.crops.astype(int) - crops)
    assert difference.max() == 0 if encoding is Encoding.raw else difference.mean() < 4
    reader.close()


def test_what_a_record_says(path: Path) -> None:
    made = task(path, Encoding.raw)
    records = make_records(made)
    assert [key for key, _ in records] == list(made.keys)
    background, cat, dog = (parse_datum(record, "") for _, record in records)
    assert list(background.box_target) == []
    np.testing.assert_allclose(cat.box_target, [0.1, -0.2, 0.3, 0.4], rtol=1e-6)
    assert list(dog.box_target) == [0, 0, 0, 0]  # an object's own box: no move, but a target
    assert (cat.label, cat.iou, cat.image_id, list(cat.box)) == (2, 0.75, "a", [10, 10, 26, 26])
    assert cat.HasField("crc")
    assert make_records(made) == records  # the same bytes, so that a stage that goes on makes the same database


def test_an_image_without_regions(tmp_path: Path, path: Path) -> None:
    none = REGIONS[np.zeros(0, dtype=np.int64)]
    assert make_records(task(path, Encoding.raw, none)) == []
    reader = CropsReader(write(tmp_path / "db", []))
    assert len(reader) == len(reader.labels) == 0
    batch = reader.read([])
    assert (batch.crops.shape, batch.labels.shape, batch.deltas.shape) == ((0, 0, 0, 3), (0,), (0, 4))
    reader.close()


def test_a_changed_image_is_named(path: Path) -> None:
    made = task(path, Encoding.raw)
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(ChangedImageError, match=r"a\.png: changed since its proposals were made; run propose"):
        make_records(made)


def test_keys_are_shuffled_places() -> None:
    ids = ["a"] * 30 + [7, "höhle"] * 10
    keys = shuffled_keys(ids, seed=1)
    assert len(set(keys)) == 50
    assert sorted(int(key[:8]) for key in keys) == list(range(50))
    assert [key[9:].decode() for key in keys] == [str(i) for i in ids]
    assert [int(key[:8]) for key in keys] != list(range(50))
    assert shuffled_keys(ids, seed=1) == keys
    assert shuffled_keys(ids, seed=2) != keys
    assert shuffled_keys([], seed=1) == []


def test_an_id_that_is_no_utf8(path: Path) -> None:
    key = shuffled_keys(["caf\udce9"], seed=0)[0]
    assert key == b"00000000_caf\xe9"
    made = dataclasses.replace(task(path, Encoding.jpeg), image_id="caf\udce9", keys=(key, key, key))
    assert [parse_datum(value, "a").image_id for _, value in make_records(made)] == ["caf\\udce9"] * 3


def test_a_long_id_still_gives_a_key_of_its_own(tmp_path: Path) -> None:
    keys = shuffled_keys(["ö" * 400] * 3, seed=0)
    write(tmp_path / "db", [(key, Datum().SerializeToString()) for key in keys])
    assert len(CropsReader(tmp_path / "db")) == 3


def test_a_damaged_record_is_named_and_the_database_can_be_made_again(tmp_path: Path, path: Path) -> None:
    records = make_records(task(path, Encoding.raw))
    key, value = records[1]
    damaged = bytearray(value)
    damaged[value.index(b"\x22") + 200] ^= 0x10
    write(tmp_path / "db", [records[0], (key, bytes(damaged)), records[2]])
    with pytest.raises(CorruptDatumError) as caught:
        CropsReader(tmp_path / "db")
    assert str(caught.value).startswith(f"{tmp_path / 'db'}, record {key.decode()}: ")
    assert "make the database again" in str(caught.value)
    write(tmp_path / "db", records)  # although the error still holds the reader
    reader = CropsReader(tmp_path / "db")
    assert len(reader) == 3
    reader.close()


@pytest.mark.parametrize(
    ("datum", "words"),
    [
        (Datum(channels=3, height=2, width=2, data=bytes(12), box_target=[1, 2]), "expected 4 deltas, got 2"),
        (Datum(channels=3, height=2, width=2, data=bytes(9)), "expected 3 x H x W values"),
        (Datum(encoded=True, data=b"\xff\xd8nothing"), "expected an encoded image"),
    ],
)
def test_a_hostile_record_is_named_when_it_is_read(tmp_path: Path, datum: Datum, words: str) -> None:
    write(tmp_path / "db", [(b"00000000_a", datum.SerializeToString())])
    reader = CropsReader(tmp_path / "db")
    with pytest.raises(CorruptDatumError, match=f"record 00000000_a: {words}"):
        reader.read([0])
    reader.close()


def test_what_is_no_datum_is_named_at_once(tmp_path: Path) -> None:
    write(tmp_path / "db", [(b"00000000_a", b"\xff" * 20)])
    with pytest.raises(CorruptDatumError, match="record 00000000_a: expected a Datum"):
        CropsReader(tmp_path / "db")
