"""Run folders in object storage: pull and push between machines, kills, conflicts, and commands on an S3 server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from detpipe.commands.table import COMMANDS
from detpipe.remote_run import with_local_copies
from detpipe.runs.detector import Detector
from detpipe.storage import remote_file
from detpipe.storage.manifest import Artefact, read_manifest
from detpipe.storage.object_storage import StorageError
from detpipe.storage.remote_folder import RemoteFolder
from tests import drawn
from tests.command_line import detpipe
from tests.storage.object_storage import s3_server, storage_in_memory

URL = "memory://bucket/run"


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    with storage_in_memory(tmp_path / "one", monkeypatch) as files:
        yield files


@pytest.fixture
def machines(memory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[RemoteFolder, RemoteFolder]:
    """The folder as two machines have it: each has a cache of its own."""
    one = RemoteFolder(URL)
    monkeypatch.setenv(remote_file.FOLDER, str(tmp_path / "two"))
    return one, RemoteFolder(URL)


def write(folder: RemoteFolder, name: str, text: str) -> None:
    path = folder.path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def names(memory: Any) -> list[str]:
    return sorted(path.removeprefix("/bucket/run/") for path in memory.find("/bucket/run"))


def copies(folder: RemoteFolder) -> list[str]:
    return sorted(path.relative_to(folder.path).as_posix() for path in folder.path.rglob("*") if path.is_file())


def manifest(complete: bool = True) -> str:
    return json.dumps({"stage": "propose", "settings": {}, "inputs": {}, "complete": complete})


def test_an_empty_folder(machines: tuple[RemoteFolder, RemoteFolder], memory: Any) -> None:
    one, _ = machines
    one.pull()
    assert one.push() == 0
    assert names(memory) == []
    assert not one.path.exists()


def test_a_command_that_fails_at_once_leaves_nothing(memory: Any, tmp_path: Path) -> None:
    outcome = detpipe("check", "dataset=voc", f"dataset.root={tmp_path / 'none'}", f"run_dir={URL}")
    assert outcome.status == 1
    assert "dataset.root" in outcome.err or "none" in outcome.err
    assert names(memory) == []
    assert not RemoteFolder(URL).path.exists()


def test_what_one_machine_wrote_another_reads(machines: tuple[RemoteFolder, RemoteFolder], memory: Any) -> None:
    one, two = machines
    one.pull()
    write(one, "metrics.json", "{}")
    write(one, "features/train/rows.npy", "123")
    write(one, ".hydra/config.yaml", "a: 1")
    for hidden in (".metrics.json.12ab.part", "proposals.lmdb/lock.mdb", "proposals.shards/driver.lock", ".trash/file"):
        write(one, hidden, "not for others")
    assert one.push() == 3
    assert names(memory) == [".hydra/config.yaml", "features/train/rows.npy", "metrics.json"]
    assert one.push() == 0
    two.pull()
    assert copies(two) == names(memory)
    write(two, "metrics.json", '{"map": 1}')
    (two.path / "features/train/rows.npy").unlink()
    assert two.push() == 2
    assert names(memory) == [".hydra/config.yaml", "metrics.json"]
    one.pull()
    assert (one.path / "metrics.json").read_text() == '{"map": 1}'
    assert not (one.path / "features/train/rows.npy").exists()


def test_a_manifest_comes_last(
    machines: tuple[RemoteFolder, RemoteFolder], memory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = machines
    states = []
    put = type(memory).put_file

    def noted(self: Any, local: str, remote: str, **more: Any) -> None:
        at = f"{URL}/proposals.lmdb/manifest.json"
        states.append((remote.rsplit("/", 1)[1], json.loads(memory.cat_file(at))["complete"]))
        put(self, local, remote, **more)

    monkeypatch.setattr(type(memory), "put_file", noted)
    one.pull()
    write(one, "proposals.lmdb/manifest.json", manifest())
    write(one, "proposals.lmdb/data.mdb", "1")
    one.push()
    assert states == [("data.mdb", False), ("manifest.json", False)]
    # Also where only the data changed: in between, another machine must not take the artefact for finished.
    write(one, "proposals.lmdb/data.mdb", "12")
    states.clear()
    one.push()
    assert states == [("data.mdb", False), ("manifest.json", False)]
    two.pull()
    assert json.loads((two.path / "proposals.lmdb/manifest.json").read_text())["complete"] is True


def test_a_killed_upload_is_completed(
    machines: tuple[RemoteFolder, RemoteFolder], memory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = machines
    put = type(memory).put_file

    def fails(self: Any, local: str, remote: str, **more: Any) -> None:
        if remote.endswith("b.npy"):
            raise ConnectionResetError("the network is gone")
        put(self, local, remote, **more)

    one.pull()
    for name in ("features/train/a.npy", "features/train/b.npy"):
        write(one, name, name)
    write(one, "features/train/manifest.json", manifest())
    with monkeypatch.context() as patch:
        patch.setattr(type(memory), "put_file", fails)
        with pytest.raises(StorageError, match="the network is gone"):
            one.push()
    two.pull()
    assert json.loads((two.path / "features/train/manifest.json").read_text())["complete"] is False
    one.pull()  # the next command here: its own files stay, and the artefact counts as unfinished
    assert (one.path / "features/train/b.npy").exists()
    write(one, "features/train/manifest.json", manifest())
    one.push()
    two.pull()
    assert copies(two) == ["features/train/a.npy", "features/train/b.npy", "features/train/manifest.json"]
    assert json.loads((two.path / "features/train/manifest.json").read_text())["complete"] is True


def test_the_work_of_a_killed_command_stays(machines: tuple[RemoteFolder, RemoteFolder], memory: Any) -> None:
    one, _ = machines
    one.pull()
    write(one, "classifier/log.jsonl", "1")
    one.push()
    write(one, "classifier/log.jsonl", "12")
    write(one, "classifier/snapshots/iter_0000100.pt", "weights")
    one.pull()
    assert (one.path / "classifier/log.jsonl").read_text() == "12"
    assert one.push() == 2
    (one.path / "classifier/log.jsonl").unlink()  # a damaged copy
    one.pull()
    assert (one.path / "classifier/log.jsonl").read_text() == "12"


def test_a_finished_artefact_replaces_what_is_left_of_another(
    machines: tuple[RemoteFolder, RemoteFolder], memory: Any
) -> None:
    one, two = machines
    for folder, part in ((one, "old.npy"), (two, "new.npy")):
        write(folder, f"features/train/{part}", part)
        write(folder, "features/train/manifest.json", manifest(complete=folder is two))
    two.push()
    one.pull()
    assert copies(one) == ["features/train/manifest.json", "features/train/new.npy"]


def test_two_commands_at_the_same_time(machines: tuple[RemoteFolder, RemoteFolder], memory: Any) -> None:
    one, two = machines
    for folder in machines:
        folder.pull()
        write(folder, "metrics.json", f'{{"machine": "{folder.path}"}}')
    one.push()
    with pytest.raises(OSError, match=r"metrics\.json.*run the same command again"):
        two.push()
    two.pull()
    assert (two.path / "metrics.json").read_text() == (one.path / "metrics.json").read_text()


def test_a_task_fetches_its_own_shard(machines: tuple[RemoteFolder, RemoteFolder], memory: Any) -> None:
    one, two = machines
    one.pull()
    for number in (1, 2):
        write(one, f"proposals.shards/000{number}-of-0002/data.mdb", str(number))
    write(one, "dataset.json", "{}")
    one.push()
    two.pull(task=2)
    assert copies(two) == ["dataset.json", "proposals.shards/0002-of-0002/data.mdb"]
    two.push(task=2)
    assert len(names(memory)) == 3  # the other shard was not deleted


def test_names_that_lead_out(machines: tuple[RemoteFolder, RemoteFolder], memory: Any) -> None:
    one, _ = machines
    memory.pipe_file("/bucket/run/good.json", b"x")
    for name in ("/bucket/run/../../etc", "/bucket/run/a/../../b", "/bucket/run//root"):
        memory.store[name] = memory.store["/bucket/run/good.json"]
    one.pull()
    assert copies(one) == ["good.json"]


def test_artefacts_are_uploaded_when_they_are_finished(
    machines: tuple[RemoteFolder, RemoteFolder], memory: Any
) -> None:
    _, two = machines
    two.pull()
    artefact = Artefact(two.path / "features" / "train", stage="features", settings={}, inputs={})
    artefact.begin(overwrite=False)
    (artefact.path / "rows.npy").write_text("1")
    write(two, "metrics.json", "{}")
    assert names(memory) == []
    artefact.finish(seconds=1, summary={"regions": 1, "width": 2})
    assert names(memory) == ["features/train/manifest.json", "features/train/rows.npy"]
    assert RemoteFolder.of(artefact.path / "rows.npy").url == URL  # type: ignore[union-attr]
    assert RemoteFolder.of(two.path.parent.parent / "other") is None


@pytest.mark.parametrize(
    ("command", "words", "expected"),
    [
        ("run", ["run_dir=memory://b/r", "seed=1"], ["run_dir={r}", "seed=1"]),
        ("run", ['run_dir="memory://b/r"'], ["run_dir={r}"]),
        ("eval", ["memory://b/r"], ["run_dir={r}"]),
        ("blame", ["run_dir=memory://b/r", "against=memory://b/s"], ["run_dir={r}", "against={s}"]),
        ("detect", ["source=memory://b/r", "run_dir=here"], ["source=memory://b/r", "run_dir=here"]),
        ("run", [], []),
    ],
)
def test_words(command: str, words: list[str], expected: list[str], memory: Any) -> None:
    paths = {name: RemoteFolder(f"memory://b/{name}").path for name in "rs"}
    assert with_local_copies(COMMANDS[command], words).words == [word.format(**paths) for word in expected]


def test_a_run_on_an_s3_server(
    voc_root: Path, finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with s3_server(tmp_path / "one", monkeypatch) as files:
        files.mkdir("runs")
        url = "s3://runs/mine"
        words = ["propose", *drawn.voc(voc_root), *drawn.settings("propose"), f"run_dir={url}"]
        task = detpipe(*words, "tasks=2", "task=2")
        assert task.status == 0, task.err
        assert files.exists("runs/mine/proposals.shards/0002-of-0002/manifest.json")
        monkeypatch.setenv(remote_file.FOLDER, str(tmp_path / "two"))  # another machine
        whole = detpipe(*words, "tasks=2", "engine.processes=1")
        assert whole.status == 0, whole.err
        assert url in whole.out
        assert "1 of 2 tasks already done" in whole.err
        uploaded = [path.removeprefix("runs/mine/") for path in files.find("runs/mine")]
        assert not [path for path in uploaded if path.startswith("proposals.shards/")]
        local = tmp_path / "local"
        assert detpipe(*words[:-1], f"run_dir={local}").status == 0
        data = files.cat_file("runs/mine/proposals.lmdb/data.mdb")
        assert data == (local / "proposals.lmdb" / "data.mdb").read_bytes()
        monkeypatch.setenv(remote_file.FOLDER, str(tmp_path / "three"))
        again = detpipe(*words)
        assert again.status == 0, again.err
        assert files.cat_file("runs/mine/proposals.lmdb/data.mdb") == data
        # A finished run, read from there.
        files.put(str(finished_run), "runs/finished", recursive=True)
        assert Detector.from_run("s3://runs/finished", device="cpu").classes
        told = detpipe("eval", "s3://runs/finished")
        assert told.status == 0, told.err


def test_a_storage_that_does_not_answer(
    machines: tuple[RemoteFolder, RemoteFolder], memory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise ConnectionResetError("the network is gone")

    monkeypatch.setattr(type(memory), "find", fails)
    outcome = detpipe("check", f"run_dir={URL}")
    assert outcome.status == 1
    for word in (URL, "the network is gone", "credentials"):
        assert word in outcome.err
    assert outcome.err.count("\n") == 1


def test_the_copy_is_a_run_folder_as_any(machines: tuple[RemoteFolder, RemoteFolder], memory: Any) -> None:
    one, _ = machines
    one.pull()
    artefact = Artefact(one.path / "check.json", stage="check", settings={}, inputs={})
    artefact.begin(overwrite=False)
    write(one, "check.json", "{}")
    artefact.finish(seconds=1, summary={})
    one.push()
    assert {"check.json", "check.manifest.json"} <= set(names(memory))
    assert read_manifest(one.path / "check.json").complete
    assert RemoteFolder.of(one.path / "check.json") is None  # of another cache
