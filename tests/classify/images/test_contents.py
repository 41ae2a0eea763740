"""What a database holds: numbers by hand, records that can't be read, repeats, none at all."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from detpipe.classify.crops.database import shuffled_keys
from detpipe.classify.database_sample import evenly_by_class, image_numbers, read_at
from detpipe.classify.images import contents as database_contents
from detpipe.classify.images.contents import read_contents
from detpipe.storage.datum import caffe_datum, caffe_encoded_datum
from detpipe.storage.lmdb_store import DatabaseError, LmdbWriter
from detpipe.storage.messages_pb2 import Datum


def write(path: Path, records: list[bytes]) -> Path:
    with LmdbWriter(path) as writer:
        for place, record in enumerate(records):
            writer.put(f"{place:08d}_a".encode(), record)
    return path


def raw(values: list[int], label: int) -> bytes:
    """Two pixels, each channel with its own value: red, green, blue."""
    return caffe_datum(np.tile(np.array(values, np.uint8), (1, 2, 1)), label).SerializeToString()


def test_numbers_by_hand(tmp_path: Path) -> None:
    found = read_contents(write(tmp_path / "db", [raw([10, 20, 30], 0), raw([30, 20, 10], 2), raw([10, 20, 30], 1)]))
    assert found.label_counts() == {0: 1, 1: 1, 2: 1}
    assert found.labels.tolist() == [0, 2, 1]
    assert found.kind_counts() == {"raw": 3}
    assert found.size_counts() == {(1, 2, 3): 3}
    # Blue, green, red: (30 + 10 + 30) / 3; their squares' mean is 1900 / 3.
    assert found.pixels[3].mean == pytest.approx([70 / 3, 20, 50 / 3])
    spread = [np.sqrt(1900 / 3 - (70 / 3) ** 2), 0, np.sqrt(1100 / 3 - (50 / 3) ** 2)]
    assert found.pixels[3].std == pytest.approx(spread)
    assert found.mean is not None
    np.testing.assert_allclose(found.mean[:, 0, 0], [70 / 3, 20, 50 / 3], rtol=1e-6)
    (group,) = found.repeats()
    assert group.tolist() == [0, 2]
    assert found.is_contradiction(group)
    assert found.faults == ()


def test_records_that_cannot_be_read_are_named_and_passed_over(tmp_path: Path) -> None:
    image = np.zeros((8, 8, 3), np.uint8)
    jpeg = cv2.imencode(".jpg", image)[1].tobytes()
    wrong = caffe_encoded_datum(jpeg, image, 1)
    wrong.crc ^= 1
    records = [
        raw([1, 2, 3], 0),
        b"no datum",
        wrong.SerializeToString(),
        Datum(channels=3, height=1 << 30, width=1 << 30, data=b"x", label=0).SerializeToString(),
        caffe_encoded_datum(jpeg, image, 1).SerializeToString(),
        Datum(data=jpeg[:-20], encoded=True, label=1).SerializeToString(),
        caffe_datum(image, -1).SerializeToString(),
    ]
    found = read_contents(write(tmp_path / "db", records))
    assert found.kind_counts() == {"raw": 1, "JPEG": 1}
    assert found.mean is None  # of two sizes
    assert found.unreadable == 5
    assert [fault.where for fault in found.faults] == [f"record {place:08d}_a" for place in (1, 2, 3, 5, 6)]
    reasons = [fault.reason for fault in found.faults]
    assert "expected a Datum" in reasons[0]
    assert "checksum" in reasons[1]
    assert "got 1 for (3, 1073741824, 1073741824)" in reasons[2]
    assert "label of 0 or more, got -1" in reasons[4]


def test_an_empty_database_and_none(tmp_path: Path) -> None:
    found = read_contents(write(tmp_path / "db", []))
    assert (len(found.records), found.label_counts(), found.repeats(), found.mean) == (0, {}, [], None)
    with pytest.raises(DatabaseError, match="run make-db"):
        read_contents(tmp_path)


def test_a_sample_is_even_and_drawn_by_the_seed(tmp_path: Path) -> None:
    labels = np.array([0] * 50 + [1] * 3 + [2], dtype=np.int64)
    chosen = evenly_by_class(labels, 7, seed=0)
    # One each, then a second each of 0 and 1, a third each of 0 and 1.
    assert labels[chosen].tolist() == [0, 0, 0, 1, 1, 1, 2]
    assert evenly_by_class(labels, 7, seed=0).tolist() == chosen.tolist()
    assert evenly_by_class(labels, 99, seed=0).tolist() == list(range(54))
    assert evenly_by_class(labels[:0], 7, seed=0).tolist() == []
    assert evenly_by_class(labels, 0, seed=0).tolist() == []
    path = write(tmp_path / "db", [b"a", b"b", b"c"])
    assert [(place, value) for place, _, value in read_at([path], {2, 0, 9})] == [(0, b"a"), (2, b"c")]


def test_a_damaged_shard_is_passed_over(tmp_path: Path) -> None:
    for shard in range(3):
        write(tmp_path / f"shard_{shard:05d}", [raw([1, 2, 3], shard)] * 2)
    damaged = tmp_path / "shard_00001/data.mdb"
    damaged.write_bytes(damaged.read_bytes()[:9000])
    found = read_contents(tmp_path)
    assert found.labels.tolist() == [0, 0, 2, 2]
    assert [path.name for path in found.shards] == ["shard_00000", "shard_00002"]
    assert [(fault.where, found.fault_count, found.unreadable) for fault in found.faults] == [
        (str(tmp_path / "shard_00001"), 1, 0)
    ]
    # Places are those of the shards that were read, so that a sample finds its records.
    assert [key for _, key, _ in read_at(found.shards, {3})] == [b"00000001_a"]


def test_many_faults_are_counted_and_some_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_contents, "MAX_NAMED", 3)
    found = read_contents(write(tmp_path / "db", [b"x"] * 8))
    assert (len(found.faults), found.fault_count, found.unreadable) == (3, 8, 8)


def test_a_header_that_claims_too_many_pixels_is_not_decoded(tmp_path: Path) -> None:
    png = cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))[1].tobytes()
    bomb = Datum(data=png[:16] + (60_000).to_bytes(4, "big") * 2 + png[24:], encoded=True)
    (fault,) = read_contents(write(tmp_path / "db", [bomb.SerializeToString()])).faults
    assert "expected an image file" in fault.reason


def test_a_sample_of_crops_is_even_over_images(tmp_path: Path) -> None:
    """12 images with 8 crops each, shuffled as `detpipe crop` does with the same seed."""
    ids = [f"image_{number}" for number in range(12) for _ in range(8)]
    keys = shuffled_keys(ids, seed=0)
    labels = np.tile(np.arange(8) % 2, 12)[np.argsort(keys)]
    with LmdbWriter(tmp_path / "db") as writer:
        for key in keys:
            writer.put(key, b"crop")
    images = image_numbers([tmp_path / "db"])
    assert len(set(images.tolist())) == 12
    chosen = evenly_by_class(labels, 24, 0, images)
    assert np.bincount(labels[chosen]).tolist() == [12, 12]
    assert np.bincount(images[chosen]).tolist() == [2] * 12


def test_a_sample_is_drawn_independently_of_the_order_of_the_database() -> None:
    """Records shuffled with the generator of the seed: the sample must not be the first records before that."""
    before = np.argsort(np.random.default_rng(0).permutation(5000))  # by key: the number before shuffling
    chosen = evenly_by_class(np.zeros(5000, np.int64), 50, seed=0)
    assert before[chosen].max() > 2500
