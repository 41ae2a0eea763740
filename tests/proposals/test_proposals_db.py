"""The database of proposals: what was put in comes out; damage is named."""

from __future__ import annotations

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
from detpipe.proposals.ground_truth import GroundTruthBoxes
from detpipe.proposals.imported import ImportedProposals
from detpipe.proposals.proposals_db import (
    BadImage,
    CorruptRecordError,
    ProposalsReader,
    ProposalsWriter,
    StoredProposals,
    parse_proposals,
    propose_image,
    serialize_proposals,
)
from detpipe.proposals.selective_search import SelectiveSearch
from detpipe.proposals.uniform import Uniform
from detpipe.storage.lmdb_store import DatabaseError, LmdbWriter
from detpipe.storage.messages_pb2 import ProposalRecord
from detpipe.structures import GroundTruth, ImageRecord, Proposals

DIGEST = bytes(range(16))


def stored(n: int = 3) -> StoredProposals:
    boxes = np.array([[i, 0, i + 1.5, 7] for i in range(n)], np.float32).reshape(-1, 4)
    return StoredProposals(Proposals(boxes, np.linspace(1, 0, n, dtype=np.float32)), (10, 20), DIGEST)


def same(a: StoredProposals, b: StoredProposals) -> bool:
    return (
        a.proposals.boxes.tobytes() == b.proposals.boxes.tobytes()
        and a.proposals.scores.tobytes() == b.proposals.scores.tobytes()
        and (a.image_size, a.image_digest) == (b.image_size, b.image_digest)
    )


@pytest.mark.parametrize("n", [0, 1, 3])
def test_bytes_round_trip(n: int):
    data = serialize_proposals(stored(n))
    assert same(parse_proposals(data), stored(n))
    assert data == serialize_proposals(stored(n))
    parse_proposals(data).proposals.boxes[:] = 0  # own memory, not the record's


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
    message = ProposalRecord()
    message.ParseFromString(serialize_proposals(stored()))
    for name, value in fields.items():
        setattr(message, name, value)
    return message.SerializeToString()


def with_boxes(boxes: list[list[float]], scores: list[float]) -> bytes:
    """A record whose checksum is right."""

    class Unchecked:
        pass

    proposals = Unchecked()
    proposals.boxes, proposals.scores = np.array(boxes, np.float32), np.array(scores, np.float32)
    return serialize_proposals(StoredProposals(proposals, (10, 20), DIGEST))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\xff\xff\xff", "no protobuf"),
        (b"", "0, 0 and 0 bytes"),
        (changed(boxes=b"abc"), "bytes"),
        (changed(scores=b""), "bytes"),
        (changed(boxes=bytes(4), scores=b"x"), "bytes"),
        (changed(image_digest=b"short"), "bytes"),
        (changed(crc=1), "checksum"),
        (changed(boxes=bytes(48)), "checksum"),
        (changed(height=0), "outside"),
        (changed(width=-5), "outside"),
        (changed(width=2), "outside"),
        (with_boxes([[0, 0, 1, 1], [0, 0, 2, 2]], [0.1, 0.2]), "high to low"),
        (with_boxes([[3, 0, 1, 1]], [1]), "x1 <= x2"),
        (with_boxes([[0, 0, np.nan, 1]], [1]), "finite"),
        (with_boxes([[0, 0, 1, 11]], [1]), "outside"),
        (with_boxes([[-1, 0, 1, 1]], [1]), "outside"),
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


@given(st.data())
def test_any_change_of_a_byte_is_seen_or_harmless(data: st.DataObject):
    raw = bytearray(serialize_proposals(stored()))
    raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = parse_proposals(bytes(raw))
    except CorruptRecordError:
        return
    # No checksum lies on the size and the digest; boxes and scores are those that were written, or none at all.
    assert found.proposals.boxes.tobytes() in (stored().proposals.boxes.tobytes(), b"")


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
