"""Boxes from a database: those of the very image, or a reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from detpipe.datasets.image_file import read_image
from detpipe.proposals.baselines import Uniform
from detpipe.proposals.from_database import StoredInDatabase
from detpipe.proposals.proposals_db import CorruptRecordError, ProposalsReader, ProposalsWriter, propose_image
from detpipe.proposals.proposer import ImportedBoxesError
from detpipe.storage.manifest import Artefact, ArtefactError
from detpipe.structures import ImageRecord
from tests import drawn


@pytest.fixture
def image(tmp_path: Path) -> ImageRecord:
    drawn.write_jpeg(tmp_path / "a.jpg", drawn.draw(3)[0])
    return ImageRecord("a", tmp_path / "a.jpg", drawn.IMAGE_SIZE)


def write(folder: Path, records: dict[str, bytes], *, complete: bool = True) -> StoredInDatabase:
    """A database with these records of image a, by split."""
    artefact = Artefact(folder / "proposals.lmdb", stage="propose", settings={}, inputs={})
    artefact.begin(overwrite=False)
    with ProposalsWriter(folder / "proposals.lmdb") as writer:
        for split, record in records.items():
            writer.put(split, "a", record)
    if complete:
        artefact.finish(seconds=0, summary={})
    return StoredInDatabase(path=str(folder))


def test_the_record_again_from_whichever_split(image: ImageRecord, tmp_path: Path):
    record = propose_image(Uniform(max_proposals=20), image, None)
    other = ImageRecord("a", tmp_path / "b.jpg", drawn.IMAGE_SIZE)
    drawn.write_jpeg(other.path, drawn.draw(4)[0])
    stored = write(tmp_path / "run", {"train": propose_image(Uniform(), other, None), "test": record})
    stored.check()
    assert propose_image(stored, image, None) == record
    assert not stored.from_pixels
    few = StoredInDatabase(path=str(tmp_path / "run/proposals.lmdb"), max_proposals=3)
    whole = stored.propose(read_image(image.path), image, None)
    assert few.propose(read_image(image.path), image, None).boxes.tolist() == whole.boxes[:3].tolist()


def test_what_is_not_there_is_named(image: ImageRecord, tmp_path: Path):
    pixels = np.zeros((3, 3, 3), np.uint8)
    stored = write(tmp_path / "run", {"val": propose_image(Uniform(), image, None)})
    with pytest.raises(ImportedBoxesError, match=r"image b .*got none"):
        stored.propose(pixels, ImageRecord("b", image.path, (3, 3)), None)
    image.path.write_bytes(image.path.read_bytes() + b"x")
    with pytest.raises(ImportedBoxesError, match=r"another file \(in val\)"):
        stored.propose(pixels, image, None)
    with pytest.raises(ValueError, match="pixels alone"):
        stored(pixels)
    with pytest.raises(FileNotFoundError, match="run folder"):
        StoredInDatabase(path=str(tmp_path / "none")).check()


def test_half_a_database_and_damage(image: ImageRecord, tmp_path: Path):
    with pytest.raises(ArtefactError, match="not finished"):
        write(tmp_path / "half", {"val": b"x"}, complete=False).check()
    damaged = write(tmp_path / "damaged", {"val": b"x"})
    with pytest.raises(CorruptRecordError, match="val/a"):
        damaged.propose(np.zeros((3, 3, 3), np.uint8), image, None)
    with ProposalsReader(tmp_path / "damaged/proposals.lmdb") as reader:  # given back after each image
        assert len(reader) == 1
