"""The database of proposals: what was put in comes out; damage is named."""

from __future__ import annotations

import contextlib
import pickle
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detpipe.datasets.image_file import file_digest
from detpipe.proposals import proposals_db
from detpipe.proposals.baselines import GroundTruthBoxes, Uniform
from detpipe.proposals.files.imported import ImportedProposals
from detpipe.proposals.proposals_db import (
    BadImage,
    CorruptRecordError,
    ProposalsReader,
    ProposalsWriter,
    StoredProposals,
    find_database,
    parse_proposals,
    propose_image,
    serialize_proposals,
)
from detpipe.proposals.selective_search.search import SelectiveSearch
from detpipe.storage.lmdb_store import DatabaseError, LmdbWriter
from detpipe.storage.messages_pb2 import ProposalRecord
from detpipe.structures import GroundTruth, ImageRecord, Proposals

DIGEST = bytes(range(16))


def stored(n: int = 3, sources: list[int] | None = None) -> StoredProposals:
    boxes = np.array([[i, 0, i + 1.5, 7] for i in range(n)], np.float32).reshape(-1, 4)
    column = None if sources is None else np.array(sources, np.uint8)
    return StoredProposals(Proposals(boxes, np.linspace(1, 0, n, dtype=np.float32)), (10, 20), DIGEST, column)


def same(a: StoredProposals, b: StoredProposals) -> bool:
    return (
        a.proposals.boxes.tobytes() == b.proposals.boxes.tobytes()
        and a.proposals.scores.tobytes() == b.proposals.scores.tobytes()
        and (a.image_size, a.image_digest) == (b.image_size, b.image_digest)
        and (None if a.sources is None else a.sources.tolist()) == (None if b.sources is None else b.sources.tolist())
    )


@pytest.mark.parametrize("n", [0, 1, 3])
def test_bytes_round_trip(n: int):
    data = serialize_proposals(stored(n))
    assert same(parse_proposals(data), stored(n))
    assert data == serialize_proposals(stored(n))
    parse_proposals(data).proposals.boxes[:] = 0  # own memory, not the record's


@pytest.mark.parametrize("sources", [[], [0], [1, 0, 255]])
def test_sources_round_trip(sources: list[int]):
    one = stored(len(sources), sources)
    assert same(parse_proposals(serialize_proposals(one)), one)
    assert len(serialize_proposals(stored(3, [0, 1, 2]))) == len(serialize_proposals(stored(3))) + 2 + 3


def test_a_record_takes_twelve_bytes_a_box():
    boxes = np.array([[i, 0, i + 1, 7] for i in range(600)], np.float32)
    one = StoredProposals(Proposals(boxes, np.linspace(1, 0, 600, dtype=np.float32)), (480, 640), DIGEST)
    assert len(serialize_proposals(one)) < 12 * 600 + 70


@pytest.mark.parametrize("box", [[0, 0, 1.00001, 1], [-1, 0, 1, 1], [0, 0, 1, 11]])
def test_only_boxes_that_come_back_are_written(box: list[float]):
    proposals = Proposals(np.array([box], np.float32), np.ones(1, np.float32))
    with pytest.raises(ValueError, match=r"whole units of 2\^-11 pixels.*snapped"):
        serialize_proposals(StoredProposals(proposals, (10, 20), DIGEST))


def test_write_and_read(tmp_path: Path):
    long = "x" * 600
    ids = [4, "a", "ä b", long, long + "y"]
    with ProposalsWriter(tmp_path / "p.lmdb") as writer:
        for n, image_id in enumerate(ids):
            assert ("train", image_id) not in writer
            writer.put("train", image_id, serialize_proposals(stored(n)))
            assert ("train", image_id) in writer
    with ProposalsWriter(tmp_path / "p.lmdb") as writer:
        assert ("train", "a") in writer
        writer.put("test", "a", serialize_proposals(stored(9)))
    with ProposalsReader(tmp_path / "p.lmdb") as reader:
        assert len(reader) == 6
        there = pickle.loads(pickle.dumps(reader))
        reader.close()  # one process opens an LMDB once
        for n, image_id in enumerate(ids):
            assert same(there.read("train", image_id), stored(n))
        there.close()
        assert len(reader.read("test", "a").proposals) == 9
        assert ("test", 4) not in reader
        with pytest.raises(KeyError, match="test/4"):
            reader.read("test", 4)


def test_no_database(tmp_path: Path):
    with pytest.raises(DatabaseError):
        ProposalsReader(tmp_path / "none.lmdb")


def test_empty_database(tmp_path: Path):
    with ProposalsWriter(tmp_path / "p.lmdb"):
        pass
    with ProposalsReader(tmp_path / "p.lmdb") as reader:
        assert len(reader) == 0


def changed(**fields: object) -> bytes:
    """A record with other fields under the old checksum."""
    message = ProposalRecord()
    message.ParseFromString(serialize_proposals(stored()))
    for name, value in fields.items():
        setattr(message, name, value)
    return message.SerializeToString()


def sealed(**fields: object) -> bytes:
    """A record with other fields and a checksum that is right."""
    message = ProposalRecord()
    message.ParseFromString(changed(**fields))
    message.crc = proposals_db._crc(message)
    return message.SerializeToString()


def units(*values: int) -> bytes:
    return np.array(values, "<u2").tobytes()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\xff\xff\xff", "no protobuf"),
        (b"", "0, 0, 0, 0, 0, 0, 0 bytes"),
        (changed(x1s=b"abc"), "bytes"),
        (changed(y2s=b""), "bytes"),
        (changed(scores=b""), "bytes"),
        (changed(scores=b"12345"), "bytes"),
        (sealed(sources=b"12"), "bytes"),
        (changed(image_digest=b"short"), "bytes"),
        (changed(crc=1), "checksum"),
        (changed(x1s=bytes(6)), "checksum"),
        (changed(image_digest=bytes(16)), "checksum"),
        (changed(width=19), "checksum"),
        (changed(sources=bytes(3)), "checksum"),
        (sealed(height=0), "height and width"),
        (sealed(width=-5), "height and width"),
        (sealed(width=2**31 - 1, height=2**31 - 1), "scale 11"),
        (sealed(scale=12), "scale 12"),
        (sealed(scale=-(2**31)), "scale -2147483648"),
        (sealed(width=3, height=16), "outside"),
        (sealed(x1s=units(65535, 65535, 65535)), "x1 <= x2"),
        (sealed(x1s=units(1, 1, 1), x2s=units(1, 1, 1)), "without area"),
        (sealed(y2s=units(7 << 11, 7 << 11, 11 << 11)), "outside"),
        (sealed(scores=np.array([0.1, 0.2, 0.0], "<f4").tobytes()), "descending"),
        (sealed(scores=np.array([np.nan, 0.2, 0.0], "<f4").tobytes()), "NaN"),
    ],
)
def test_damage_is_named(data: bytes, message: str, tmp_path: Path):
    with LmdbWriter(tmp_path / "p.lmdb") as writer:
        writer.put(b"train/a", data)
    with (
        ProposalsReader(tmp_path / "p.lmdb") as reader,
        pytest.raises(CorruptRecordError, match=rf"p\.lmdb, record b'train/a'.*{message}.*overwrite"),
    ):
        reader.read("train", "a")


@pytest.mark.parametrize("sources", [None, [0, 1, 0]])
def test_every_flipped_bit_is_seen(sources: list[int] | None):
    """The checksum lies on all that is read, so a change is found or changes nothing."""
    whole = serialize_proposals(stored(3, sources))
    for place in range(8 * len(whole)):
        raw = bytearray(whole)
        raw[place // 8] ^= 1 << place % 8
        try:
            found = parse_proposals(bytes(raw))
        except CorruptRecordError:
            continue
        assert same(found, stored(3, sources))


@given(st.binary(max_size=200))
def test_any_bytes_are_a_record_or_corrupt(data: bytes):
    with contextlib.suppress(CorruptRecordError):
        parse_proposals(data)


@given(st.data())
def test_any_cut_is_seen(data: st.DataObject):
    raw = serialize_proposals(stored())
    with pytest.raises(CorruptRecordError):
        parse_proposals(raw[: data.draw(st.integers(0, len(raw) - 1))])


def test_a_name_that_is_no_utf8_is_a_key_of_its_bytes(tmp_path: Path):
    with ProposalsWriter(tmp_path / "db") as writer:
        for image_id in ("caf\udce9", "café", 7):
            writer.put("test", image_id, serialize_proposals(stored()))
    with ProposalsReader(tmp_path / "db") as reader:
        assert same(reader.read("test", "caf\udce9"), stored())
        assert [name for name, _ in reader.records()] == ["test/7", "test/café", "test/caf\udce9"]
        assert [key for key, _ in reader._reader.items()] == [b"test/7", "test/café".encode(), b"test/caf\xe9"]


def test_records_in_the_order_of_their_keys(tmp_path: Path):
    with ProposalsWriter(tmp_path / "p.lmdb") as writer:
        for split, image_id in (("val", "b"), ("train", "z"), ("train", 3)):
            writer.put(split, image_id, serialize_proposals(stored()))
    with ProposalsReader(tmp_path / "p.lmdb") as reader:
        assert [key for key, _ in reader.records()] == ["train/3", "train/z", "val/b"]
        assert {value for _, value in reader.records()} == {reader.raw("train", 3)}


def test_a_database_is_found_in_its_run_folder(tmp_path: Path):
    with ProposalsWriter(tmp_path / "proposals.lmdb"):
        pass
    for place in (tmp_path, tmp_path / "proposals.lmdb", str(tmp_path)):
        assert find_database(place) == tmp_path / "proposals.lmdb"
    with pytest.raises(FileNotFoundError, match="run folder"):
        find_database(tmp_path / "other")


@pytest.fixture
def image(tmp_path: Path) -> ImageRecord:
    tiles = np.random.default_rng(0).integers(0, 256, (5, 8, 3), dtype=np.uint8)
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), cv2.resize(tiles, (120, 80), interpolation=cv2.INTER_NEAREST))
    return ImageRecord("a", path, (80, 120))


def test_propose_image_gives_a_record(image: ImageRecord):
    data = propose_image(SelectiveSearch(max_proposals=5), image, None)
    assert isinstance(data, bytes)
    found = parse_proposals(data)
    assert len(found.proposals) == 5
    assert found.image_size == (80, 120)
    assert found.image_digest == file_digest(image.path)
    assert data == propose_image(SelectiveSearch(max_proposals=5), image, None)


def test_propose_image_in_another_process_gives_the_same_bytes(image: ImageRecord):
    code = (
        "import pickle, sys\n"
        "from detpipe.proposals.proposals_db import propose_image\n"
        "for one in pickle.load(sys.stdin.buffer): sys.stdout.buffer.write(propose_image(*one))"
    )
    work = [(SelectiveSearch(), image, None), (Uniform(max_proposals=20), image, None)]
    there = subprocess.run([sys.executable, "-c", code], input=pickle.dumps(work), capture_output=True, check=True)
    assert there.stdout == b"".join(propose_image(*one) for one in work)


def test_propose_image_of_an_image_without_objects(image: ImageRecord):
    data = propose_image(GroundTruthBoxes(), image, GroundTruth.from_boxes([], []))
    assert len(parse_proposals(data).proposals) == 0


def test_images_that_cannot_be_used(image: ImageRecord, tmp_path: Path):
    image.path.write_bytes(image.path.read_bytes()[:100])
    truncated = propose_image(SelectiveSearch(), image, None)
    assert isinstance(truncated, BadImage)
    assert "a.png" in truncated.reason
    missing = propose_image(SelectiveSearch(), ImageRecord("b", tmp_path / "b.png", (1, 1)), None)
    assert isinstance(missing, BadImage)


def test_missing_imported_boxes_are_the_images_affair_but_a_missing_file_is_not(image: ImageRecord, tmp_path: Path):
    (tmp_path / "results.json").write_text('[{"image_id": "z", "bbox": [0, 0, 1, 1], "score": 1}]')
    found = propose_image(ImportedProposals(path=str(tmp_path / "results.json")), image, None)
    assert isinstance(found, BadImage)
    assert "image a" in found.reason
    with pytest.raises(FileNotFoundError):
        propose_image(ImportedProposals(path=str(tmp_path / "none.json")), image, None)
    with pytest.raises(ValueError, match="no annotations"):
        propose_image(GroundTruthBoxes(), image, None)
