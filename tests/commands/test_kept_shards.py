"""merge=false: an LMDB in shards is the artefact that the merged one is, for the commands after it too."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from detpipe.classify.crops.database import CropsReader
from detpipe.classify.images.database import ImagesReader
from detpipe.storage.lmdb_store import LmdbReader
from detpipe.storage.sharded_lmdb import ShardedLmdb
from tests import drawn
from tests.command_line import Outcome, detpipe
from tests.commands.test_tasks import assert_same_proposals, records, spoil, without_time

CROPS = ("crops.lmdb", "crops_val.lmdb")


def stage(name: str, root: Path, folder: Path, *more: str, status: int = 0) -> Outcome:
    outcome = detpipe(name, *drawn.voc(root), *drawn.settings(name), *more, f"run_dir={folder}")
    assert outcome.status == status, outcome.err
    return outcome


def in_tasks(name: str, root: Path, folder: Path, tasks: int) -> Outcome:
    """Each shard as a job of a scheduler makes it, then the index."""
    for task in range(1, tasks + 1):
        stage(name, root, folder, f"tasks={tasks}", f"task={task}", "merge=false")
    return stage(name, root, folder, f"tasks={tasks}", "merge=false")


@pytest.fixture(scope="module")
def whole(voc_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Proposals and crops by one process. Read only."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    for name in ("propose", "crop"):
        stage(name, voc_root, folder)
    return folder


@pytest.fixture(scope="module")
def in_shards(voc_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in three shards each. Read only."""
    folder = tmp_path_factory.mktemp("shards") / "run"
    for name in ("propose", "crop"):
        in_tasks(name, voc_root, folder, 3)
    return folder


def test_the_same_records_keys_and_manifests(whole: Path, in_shards: Path) -> None:
    for name in ("proposals.lmdb", *CROPS):
        found = sorted(path.name for path in (in_shards / name).iterdir())
        assert found == ["0001-of-0003", "0002-of-0003", "0003-of-0003", "manifest.json", "shards.json"]
        with ShardedLmdb(in_shards / name) as ours, LmdbReader(whole / name) as theirs:
            assert list(ours.items()) == list(theirs.items())
        ours, theirs = (json.loads((one / name / "manifest.json").read_text()) for one in (in_shards, whole))
        for one in (ours, theirs):
            del one["seconds"]
            one["summary"].pop("megabytes", None)
        assert ours == theirs
    for name in ("recall.json", "recall_train.json"):
        assert (in_shards / name).read_bytes() == (whole / name).read_bytes()
    assert not list(in_shards.glob("*.shards"))


def test_training_from_shards_is_training_from_one_file(
    voc_root: Path, whole: Path, in_shards: Path, tmp_path: Path
) -> None:
    logs, weights = [], []
    for number, made in enumerate((whole, in_shards)):
        folder = drawn.copy(made, tmp_path / str(number))
        stage("train-cls", voc_root, folder)
        rows = [json.loads(line) for line in (folder / "classifier/log.jsonl").read_text().splitlines()]
        logs.append([{name: value for name, value in row.items() if "loss" in name} for row in rows])
        weights.append((folder / "classifier/weights.safetensors").read_bytes())
    assert any("loss" in row for row in logs[0])
    assert logs[0] == logs[1]
    assert weights[0] == weights[1]
    with CropsReader(whole / "crops.lmdb") as theirs, CropsReader(in_shards / "crops.lmdb") as ours:
        assert ours.labels.tolist() == theirs.labels.tolist()
        assert ours.ious.tolist() == theirs.ious.tolist()
        assert ours.read([5, 0, 7]).crops.tobytes() == theirs.read([5, 0, 7]).crops.tobytes()


def test_a_second_run_does_nothing_and_a_merge_makes_nothing_again(
    voc_root: Path, whole: Path, in_shards: Path, tmp_path: Path
) -> None:
    folder = drawn.copy(in_shards, tmp_path / "run")
    manifest = folder / "proposals.lmdb/manifest.json"
    before = manifest.read_bytes()
    for more in (["tasks=3", "merge=false"], ["tasks=3", "task=2"], ["tasks=5", "merge=false"], []):
        stage("propose", voc_root, folder, *more)
        assert manifest.read_bytes() == before
    refused = stage("propose", voc_root, folder, "tasks=5", status=1)
    assert "tasks=3" in refused.err
    assert manifest.read_bytes() == before
    for name in ("propose", "crop"):
        assert "3 of 3 tasks already done" in stage(name, voc_root, folder, "tasks=3").err
    assert_same_proposals(folder, whole)
    for name in CROPS:
        assert sorted(path.name for path in (folder / name).iterdir()) in (
            ["data.mdb", "lock.mdb", "manifest.json"],
            ["data.mdb", "manifest.json"],
        )
        assert (folder / name / "data.mdb").read_bytes() == (whole / name / "data.mdb").read_bytes()
        assert without_time(folder / name / "manifest.json") == without_time(whole / name / "manifest.json")
    stage("propose", voc_root, folder, "tasks=3", "merge=false")  # it is finished, and stays merged
    assert (folder / "proposals.lmdb/data.mdb").exists()


def test_shards_of_another_run_are_only_read(voc_root: Path, in_shards: Path, tmp_path: Path) -> None:
    folder = drawn.copy(in_shards, tmp_path / "run")
    shutil.rmtree(folder / "proposals.lmdb")
    (folder / "proposals.lmdb").symlink_to(in_shards / "proposals.lmdb")
    stage("propose", voc_root, folder, "tasks=3")
    assert (in_shards / "proposals.lmdb/shards.json").exists()
    assert (folder / "proposals.lmdb").is_symlink()


def test_a_kill_between_two_moves(voc_root: Path, whole: Path, in_shards: Path, tmp_path: Path) -> None:
    """What it leaves: an unfinished manifest, one shard in the folder of the whole, and no index."""
    for number, more in enumerate((["tasks=3", "merge=false"], ["tasks=3"])):
        folder = drawn.copy(in_shards, tmp_path / str(number))
        database = folder / "proposals.lmdb"
        manifest = json.loads((database / "manifest.json").read_text())
        manifest |= {"complete": False, "summary": {}, "bad": []}
        (database / "manifest.json").write_text(json.dumps(manifest))
        (database / "shards.json").unlink()
        for task in (2, 3):
            (folder / "proposals.shards").mkdir(exist_ok=True)
            (database / f"000{task}-of-0003").rename(folder / "proposals.shards" / f"000{task}-of-0003")
        assert "3 of 3 tasks already done" in stage("propose", voc_root, folder, *more).err
        with (ShardedLmdb if number == 0 else LmdbReader)(database) as reader:
            assert dict(reader.items()) == records(whole / "proposals.lmdb")
        assert not (folder / "proposals.shards").exists()


def test_a_missing_shard_is_named_and_made_again(voc_root: Path, whole: Path, in_shards: Path, tmp_path: Path) -> None:
    folder = drawn.copy(in_shards, tmp_path / "run")
    remedy = "again with tasks=3 merge=false"
    shutil.rmtree(folder / "crops.lmdb/0002-of-0003")
    for name in (["train-cls", *drawn.voc(voc_root), *drawn.settings("train-cls")], ["inspect", "db"]):
        at = f"db={folder / 'crops.lmdb'}" if name[0] == "inspect" else f"run_dir={folder}"
        outcome = detpipe(*name, at)
        assert outcome.status == 1
        assert f"{folder / 'crops.lmdb/0002-of-0003'}: " in outcome.err
        assert remedy in outcome.err
    assert "2 of 3 tasks already done" in stage("crop", voc_root, folder, "tasks=3", "merge=false").err
    shutil.rmtree(folder / "proposals.lmdb/0001-of-0003")
    for words in (["crop", *drawn.voc(voc_root), "overwrite=true"], ["proposals", "info"], ["proposals", "verify"]):
        outcome = detpipe(*words, f"run_dir={folder}")
        assert outcome.status == 1
        assert f"{folder / 'proposals.lmdb/0001-of-0003'}: " in outcome.err
        assert remedy in outcome.err
        assert "Traceback" not in outcome.err
    stage("propose", voc_root, folder, "tasks=3", "task=1", "merge=false")
    stage("propose", voc_root, folder, "tasks=3", "merge=false")
    with ShardedLmdb(folder / "proposals.lmdb") as reader:
        assert dict(reader.items()) == records(whole / "proposals.lmdb")


def test_tools_read_shards(in_shards: Path, whole: Path, tmp_path: Path) -> None:
    for words in (["proposals", "info"], ["proposals", "verify"]):
        texts = []
        for folder in (in_shards, whole):
            outcome = detpipe(*words, f"run_dir={folder}")
            assert outcome.status == 0, outcome.err
            lines = outcome.out.replace(str(folder), "RUN").splitlines()
            texts.append([line for line in lines if "size" not in line and "made by" not in line])
        assert texts[0] == texts[1]
    found = []
    for number, folder in enumerate((in_shards, whole)):
        out = tmp_path / str(number)
        outcome = detpipe("inspect", "db", f"db={folder / 'crops.lmdb'}", f"out={out}")
        assert outcome.status == 0, outcome.err
        numbers = json.loads((out / "inspect_db.json").read_text())
        for facts in ("records", "made by"):
            del numbers["facts"][facts]
        del numbers["database"]
        found.append((numbers, (out / "contact_sheet.png").read_bytes()))
    assert found[0] == found[1]


def test_an_image_database_in_shards(voc_root: Path, tmp_path: Path) -> None:
    root = drawn.copy(voc_root, tmp_path / "voc")
    spoil(root)
    names = [f"JPEGImages/{name}.jpg {number % 2}" for number, name in enumerate((*drawn.TRAIN, "missing"))]
    (root / "list.txt").write_text("\n".join(names) + "\n")
    words = ["make-db", f"root={root}", f"list={root / 'list.txt'}", "resize=8x8", "workers=0", "max_bad=0.3"]
    words += ["check_size=true", "verify=true"]
    assert detpipe(*words, f"out={tmp_path / 'one'}").status == 0
    for task in ("task=1", "task=2", "task=3", "merge=false"):
        outcome = detpipe(*words, f"out={tmp_path / 'other'}", "tasks=3", task)
        assert outcome.status == 0, outcome.err
    with ImagesReader(tmp_path / "one") as theirs, ImagesReader(tmp_path / "other") as ours:
        assert ours.labels.tolist() == theirs.labels.tolist()
        assert [ours.key(index) for index in range(len(ours))] == [theirs.key(index) for index in range(len(theirs))]
        assert all((ours.planes(index) == theirs.planes(index)).all() for index in range(len(theirs)))
    ours, theirs = (json.loads((tmp_path / name / "manifest.json").read_text()) for name in ("other", "one"))
    assert ours["summary"]["content"] == theirs["summary"]["content"]
    assert ours["settings"] == theirs["settings"]


def test_what_merge_needs(tmp_path: Path) -> None:
    outcome = detpipe("propose", *drawn.voc(tmp_path), f"run_dir={tmp_path / 'run'}", "merge=false")
    assert outcome.status == 1
    assert "merge: expected tasks" in outcome.err
    outcome = detpipe("make-db", f"out={tmp_path / 'db'}", "tasks=2", "merge=false", "num_shards=2")
    assert outcome.status == 1
    assert "num_shards: expected 1" in outcome.err
