"""Shards: parts of a data set, and what is deleted."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detpipe.storage.manifest import Artefact, ArtefactError, find_manifest, rekey
from detpipe.storage.shards import ShardError, Shards, part
from detpipe.structures import LeftOut


@given(st.integers(0, 300), st.integers(1, 40), st.integers(1, 9))
def test_parts_are_contiguous_whole_and_even(total: int, tasks: int, step: int) -> None:
    parts = [part(total, task, tasks, step=step) for task in range(1, tasks + 1)]
    assert [index for one in parts for index in one] == list(range(total))
    assert all(one.start % step == 0 for one in parts if one)
    steps = [-(-len(one) // step) for one in parts]
    assert max(steps) - min(steps) <= 1


def test_parts_worked_out_by_hand() -> None:
    assert [part(14, task, 3) for task in (1, 2, 3)] == [range(4), range(4, 9), range(9, 14)]
    assert [part(14, task, 2, step=8) for task in (1, 2)] == [range(8), range(8, 14)]
    assert [part(0, task, 2) for task in (1, 2)] == [range(0), range(0)]


def shards_of(folder: Path, tasks: int = 2, **settings: int) -> Shards:
    return Shards(Artefact(folder / "proposals.lmdb", stage="propose", settings=settings, inputs={}), tasks)


def make(shards: Shards, task: int, *bad: LeftOut) -> None:
    with shards.artefact(task).making(overwrite=False) as making:
        (making.path / "data").write_text("records")
        making.bad = bad


def test_missing_and_finished(tmp_path: Path) -> None:
    shards = shards_of(tmp_path)
    assert shards.folder == tmp_path / "proposals.shards"
    assert shards.missing() == [1, 2]
    make(shards, 2, LeftOut("a.jpg", "broken"))
    assert shards.missing() == [1]
    assert shards.finished(2).name == "0002-of-0002"
    with pytest.raises(ShardError, match="0001-of-0002"):
        shards.bad()
    make(shards, 1, LeftOut("b.jpg", "broken"))
    assert [one.path for one in shards.bad()] == ["b.jpg", "a.jpg"]
    with pytest.raises(ArtefactError, match="seed"):
        shards_of(tmp_path, seed=1).missing()
    with pytest.raises(ShardError, match="tasks=2"):
        shards_of(tmp_path, 3).refuse_other_number()
    (shards.folder / ".0002-of-0002.deleted").mkdir()  # what a kill in the middle of a deletion leaves
    (shards.folder / ".driver.marker.1a2b3c4d.part").touch()  # and in the middle of writing the marker
    shards.remove()
    assert not shards.folder.exists()


def test_overwrite_keeps_finished_shards_of_this_key(tmp_path: Path) -> None:
    shards = shards_of(tmp_path)
    make(shards, 1)
    make(shards_of(tmp_path, 3), 1)
    make(shards_of(tmp_path, 2, seed=1), 2)
    shards.clear(keep_finished=True)
    assert shards.missing() == [2]
    shards.refuse_other_number()


def test_bad_images_are_tried_again(tmp_path: Path) -> None:
    shards = shards_of(tmp_path)
    make(shards, 1, LeftOut("a.jpg", "broken"))
    make(shards, 2)
    shards.retry_bad(delete=False)
    found = find_manifest(shards.path(1))
    assert found is not None
    assert not found.complete
    assert (shards.path(1) / "data").exists()
    assert shards.missing() == [1]
    make(shards, 1, LeftOut("a.jpg", "broken"))
    shards.retry_bad(delete=True)
    assert not shards.path(1).exists()


def test_the_folder_of_another_kind_of_artefact(tmp_path: Path) -> None:
    for name, folder in (
        ("detections.json", "detections.shards"),
        ("train", "train.shards"),
        ("db.v1", "db.v1.shards"),
    ):
        assert Shards(Artefact(tmp_path / name, stage="s", settings={}, inputs={}), 1).folder.name == folder


def keep(folder: Path) -> Shards:
    """The artefact of two kept shards, complete."""
    shards = shards_of(folder)
    with shards.whole.making(overwrite=False) as making:
        for task in (1, 2):
            with shards.artefact(task).making(overwrite=False) as one:
                (one.path / "data.mdb").write_text("records")
                one.summary = {"records": 3}
        shards.keep(records="records")
        making.summary = {"records": 6}
        shards.remove()
    return shards_of(folder)


def test_kept_shards_are_in_the_folder_of_the_whole(tmp_path: Path) -> None:
    shards = keep(tmp_path)
    assert not shards.folder.exists()
    assert shards.path(2) == tmp_path / "proposals.lmdb" / "0002-of-0002"
    assert shards.is_finished()
    assert shards.is_kept()
    assert shards.missing() == []
    with pytest.raises(ShardError, match="tasks=2"):
        shards_of(tmp_path, 3).refuse_other_number()
    assert shards_of(tmp_path, 3).is_finished()  # the whole doesn't depend on the number of tasks
    (shards.whole.path / "shards.json").write_text("damaged")
    assert not shards.is_finished()
    shards.release()
    (shards.whole.path / "data.mdb").write_text("merged")
    shards.remove()
    assert sorted(path.name for path in shards.whole.path.iterdir()) == ["data.mdb", "manifest.json"]


def test_a_lost_shard_is_missing(tmp_path: Path) -> None:
    shards = keep(tmp_path)
    shutil.rmtree(shards.path(1))
    assert not shards.is_finished()
    shards.release()
    assert shards.missing() == [1]
    found = shards.whole.found()
    assert found is not None
    assert not found.complete
    assert not shards.is_kept()


def test_released_shards_have_the_inputs_of_the_whole(tmp_path: Path) -> None:
    """Another stage may have replaced the inputs of the whole; shards of other settings stay as they are."""
    shards = keep(tmp_path)
    rekey(shards.whole.path, {"train": "new"}, {})
    shards.release()
    assert shards.is_kept()  # the key of this command has no such input, so it is another artefact
    whole = Artefact(shards.whole.path, stage="propose", settings={}, inputs={"train": "new"})
    now = Shards(whole, 2)
    now.release()
    assert now.missing() == []
    assert not now.is_kept()


def test_what_a_link_leads_to_stays(tmp_path: Path) -> None:
    """The whole may be a link to another run's, and a shard a link to another disk."""
    theirs = keep(tmp_path / "theirs")
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours/proposals.lmdb").symlink_to(theirs.whole.path)
    ours = shards_of(tmp_path / "ours")
    assert ours.is_finished()
    ours.clear(keep_finished=False)
    ours.release()
    ours.remove()
    assert theirs.is_finished()
    shard = theirs.path(2).rename(tmp_path / "elsewhere")
    (theirs.whole.path / "0002-of-0002").symlink_to(shard)
    assert theirs.is_finished()
    theirs.release()
    theirs.remove()
    assert sorted(path.name for path in theirs.whole.path.iterdir()) == ["manifest.json"]
    assert (shard / "data.mdb").exists()
