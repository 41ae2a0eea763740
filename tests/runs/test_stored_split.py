"""A stored split: which images it gives, in which order, and what it is held against."""

from __future__ import annotations

from pathlib import Path

import pytest

from detpipe.datasets.source import Split
from detpipe.datasets.voc import VocSource
from detpipe.proposals.proposals_db import find_database
from detpipe.runs.stored_split import StoredSplit, open_split
from detpipe.storage.manifest import ArtefactError
from tests import drawn
from tests.commands.proposals.proposed import propose_all_but


def test_images_in_order_and_those_without_proposals(voc_root: Path, tmp_path: Path) -> None:
    run = propose_all_but("test_1", voc_root, tmp_path / "run")
    dataset = VocSource(root=str(voc_root)).load(Split.test)
    split = open_split(find_database(run), Split.test, dataset)
    numbers = {record.image_id: None if stored is None else len(stored.proposals) for record, stored in split.read()}
    assert list(numbers.items()) == [("test_0", 2), ("test_1", None), ("test_2", 2), ("test_3", 2)]
    assert [image_id for image_id, _ in split.proposals()] == ["test_0", "test_2", "test_3"]
    some = [dataset.records[2], dataset.records[0]]
    assert [record.image_id for record, _ in split.read(some)] == ["test_2", "test_0"]
    assert list(split.read([])) == []


def test_what_it_is_held_against(voc_root: Path, proposed: Path, tmp_path: Path) -> None:
    train = VocSource(root=str(voc_root)).load(Split.train)
    database = find_database(proposed / "gaussian")
    assert open_split(database, Split.train, train).manifest.settings["proposals"]["method"] == "Gaussian"
    with pytest.raises(ArtefactError, match=r"drawn train.*overwrite=true"):
        open_split(database, Split.test, train)
    with pytest.raises(ArtefactError, match="run the stage"):
        open_split(tmp_path / "proposals.lmdb", Split.train, train)
    # `propose` reads its own before it is sealed: nothing is looked at until it is asked for.
    assert sum(1 for _ in StoredSplit(database, Split.train, train).proposals()) == len(drawn.TRAIN)
