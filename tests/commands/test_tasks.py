"""Commands in tasks: shards, their merge, kills, and refusals. The result is that of one process, byte for byte."""

from __future__ import annotations

import functools
import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import pytest

from detpipe.engines.engine import Observer, TaskCall
from detpipe.engines.local import LocalEngine
from detpipe.engines.worker import run_task
from detpipe.storage.manifest import Artefact, manifest_path
from detpipe.storage.shards import Shards
from tests import drawn
from tests.command_line import detpipe, start
from tests.commands.test_kill import assert_same_end, records, stopped, wait_for


def propose(root: Path, folder: Path, *more: str) -> list[str]:
    return ["propose", *drawn.voc(root), *drawn.settings("propose", *more), f"run_dir={folder}"]


def detect(folder: Path, *more: str) -> list[str]:
    return ["detect", *drawn.settings("detect", *more), f"run_dir={folder}"]


def without_time(manifest: Path) -> list[str]:
    return [line for line in manifest.read_text().splitlines() if '"seconds"' not in line]


def assert_same_proposals(folder: Path, whole: Path) -> None:
    for name in ("proposals.lmdb/data.mdb", "recall.json", "recall_train.json", "dataset.json"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes(), name
    assert without_time(folder / "proposals.lmdb/manifest.json") == without_time(whole / "proposals.lmdb/manifest.json")
    assert not (folder / "proposals.shards").exists()


def without(folder: Path, *names: str) -> Path:
    for name in names:
        shutil.rmtree(folder / name, ignore_errors=True)
        (folder / name).unlink(missing_ok=True)
    return folder


@pytest.fixture(scope="module")
def whole(voc_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Proposals by one process. Read only."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert detpipe(*propose(voc_root, folder)).status == 0
    return folder


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """engine=local without a process of its own, for tests of what the command does with tasks: it starts in seconds.

    What a task is given and what it tells is JSON all the same. `test_proposals_in_tasks` and the tests of other
    commands have processes.
    """

    def run(_: LocalEngine, call: TaskCall, tasks: Sequence[int], observer: Observer) -> None:
        for task in tasks:
            observer.started(task, "this process")
            events: list[Mapping[str, Any]] = []
            end = run_task(TaskCall(**json.loads(json.dumps(asdict(call)))), task, events.append)
            for event in events:
                observer.event(task, event)
            if end["event"] == "finished":
                observer.finished(task)
            else:
                observer.failed(task, end["text"])

    monkeypatch.setattr(LocalEngine, "run", run)


def test_proposals_in_tasks(voc_root: Path, whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    outcome = detpipe(*propose(voc_root, folder, "tasks=3", "engine.processes=2"))
    assert outcome.status == 0, outcome.err
    assert "3 finished" in outcome.err
    assert_same_proposals(folder, whole)
    for more in (["tasks=5"], ["tasks=5", "task=2"]):  # the whole doesn't depend on the number of tasks
        again = detpipe(*propose(voc_root, folder, *more))
        assert again.status == 0, again.err
        assert "finished" not in again.err
        assert_same_proposals(folder, whole)


def test_single_tasks_then_a_merge(voc_root: Path, whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shards = folder / "proposals.shards"
    for task in (3, 1):
        outcome = detpipe(*propose(voc_root, folder, "tasks=3", f"task={task}"))
        assert outcome.status == 0, outcome.err
        assert f"task {task} of 3" in outcome.out
    assert sorted(path.name for path in shards.iterdir() if path.is_dir()) == ["0001-of-0003", "0003-of-0003"]
    assert not (folder / "proposals.lmdb").exists()
    assert sum(len(records(shards / f"000{task}-of-0003")) for task in (1, 3)) == 9  # 4 and 5 of 14 images
    finished = (shards / "0003-of-0003" / "manifest.json").read_bytes()
    assert detpipe(*propose(voc_root, folder, "tasks=3", "task=3")).status == 0
    assert (shards / "0003-of-0003" / "manifest.json").read_bytes() == finished
    outcome = detpipe(*propose(voc_root, folder, "tasks=3"))
    assert outcome.status == 0, outcome.err
    assert "2 of 3 tasks already done" in outcome.err
    assert_same_proposals(folder, whole)


@pytest.mark.usefixtures("in_this_process")
def test_more_tasks_than_images(voc_root: Path, whole: Path, tmp_path: Path) -> None:
    """Two of the 16 have no image; the first is one of them."""
    folder = tmp_path / "run"
    for task in (1, 16):
        assert detpipe(*propose(voc_root, folder, "tasks=16", f"task={task}")).status == 0
    assert records(folder / "proposals.shards" / "0001-of-0016") == {}
    outcome = detpipe(*propose(voc_root, folder, "tasks=16"))
    assert outcome.status == 0, outcome.err
    assert "2 of 16 tasks already done" in outcome.err
    assert_same_proposals(folder, whole)


@pytest.mark.slow
def test_a_whole_run_in_tasks(finished_run: Path, voc_root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    more = ["tasks=2", "engine.processes=1", f"run_dir={folder}"]
    outcome = detpipe("run", *drawn.voc(voc_root), *drawn.settings("run"), *more)
    assert outcome.status == 0, outcome.err
    assert_same_end(folder, finished_run)
    assert (folder / "object_traces.json").read_bytes() == (finished_run / "object_traces.json").read_bytes()
    ours, theirs = (without_time(one / "detections.manifest.json") for one in (folder, finished_run))
    assert ours == theirs
    assert not list(folder.rglob("*.shards"))


def test_a_source_in_tasks(finished_run: Path, voc_root: Path, tmp_path: Path) -> None:
    """14 images in chunks of 8: the first task has 8 of them, the second the others."""
    one, other = (drawn.copy(finished_run, tmp_path / name) for name in ("one", "other"))
    source = f"source={voc_root / 'JPEGImages'}"
    assert detpipe(*detect(one, source)).status == 0
    for task in (2, 1):
        outcome = detpipe(*detect(other, source, "tasks=2", f"task={task}"))
        assert outcome.status == 0, outcome.err
    shards = other / "sources" / "JPEGImages" / "detections.shards"
    assert len(records(shards / "0001-of-0002")) == 9  # and the list of unreadable images
    outcome = detpipe(*detect(other, source, "tasks=2"))
    assert outcome.status == 0, outcome.err
    for name in ("detections.json", "detections.csv"):
        path = Path("sources") / "JPEGImages" / name
        assert (one / path).read_bytes() == (other / path).read_bytes(), name


def stage(name: str, root: Path, folder: Path, *more: str) -> None:
    outcome = detpipe(name, *drawn.voc(root), *more, f"run_dir={folder}")
    assert outcome.status == 0, outcome.err


def assert_same_files(folder: Path, whole: Path) -> None:
    """The same files in both folders, with the same bytes; manifests but for the time."""
    names = sorted(path.relative_to(whole) for path in whole.rglob("*") if path.name != "lock.mdb" and path.is_file())
    ours = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.name != "lock.mdb" and path.is_file())
    assert ours == names
    assert names
    for name in names:
        if name.name.endswith("manifest.json"):
            assert without_time(folder / name) == without_time(whole / name), name
        else:
            assert (folder / name).read_bytes() == (whole / name).read_bytes(), name


def test_crops_in_tasks(voc_root: Path, whole: Path, tmp_path: Path) -> None:
    one, other = (drawn.copy(whole, tmp_path / name) for name in ("one", "other"))
    settings = drawn.settings("crop")
    stage("crop", voc_root, one, *settings)
    stage("crop", voc_root, other, *settings, "tasks=3", "task=2")
    stage("crop", voc_root, other, *settings, "tasks=3", "engine.processes=1")
    for name in ("crops.lmdb", "crops_val.lmdb"):
        assert_same_files(other / name, one / name)


def test_features_in_tasks(voc_root: Path, whole: Path, tmp_path: Path) -> None:
    """The second of two tasks has the last two of ten training images, and none of four test images."""
    one, other = (drawn.copy(whole, tmp_path / name) for name in ("one", "other"))
    stage("features", voc_root, one, *FEATURES)
    stage("features", voc_root, other, *FEATURES, "tasks=2", "task=2")
    stage("features", voc_root, other, *FEATURES, "tasks=2", "engine.processes=1")
    assert_same_files(other / "features", one / "features")


def test_a_check_in_tasks(voc_root: Path, tmp_path: Path) -> None:
    root = drawn.copy(voc_root, tmp_path / "voc")
    spoil(root)
    results = []
    for name, more in (("one", []), ("other", ["tasks=3", "engine.processes=1"])):
        outcome = detpipe("check", *drawn.voc(root), "workers=0", f"run_dir={tmp_path / name}", "fail_on=never", *more)
        assert outcome.status == 0, outcome.err
        results.append((tmp_path / name / "check.json").read_bytes())
        assert not (tmp_path / name / "check.shards").exists()
    assert results[0] == results[1]
    assert b"broken_image" in results[0]


@pytest.mark.parametrize("shards", [1, 2])
def test_an_image_database_in_tasks(
    shards: int, voc_root: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if shards == 2:  # a process once: the number of shards is nothing to it
        request.getfixturevalue("in_this_process")
    root = drawn.copy(voc_root, tmp_path / "voc")
    spoil(root)
    names = [f"JPEGImages/{name}.jpg {number % 2}" for number, name in enumerate((*drawn.TRAIN, "missing"))]
    (root / "list.txt").write_text("\n".join(names) + "\n")
    for name, more in (("one", []), ("other", ["tasks=3", "engine.processes=1"])):
        words = [f"root={root}", f"list={root / 'list.txt'}", "resize=8x8", "workers=0", "max_bad=0.3", *more]
        outcome = detpipe("make-db", *words, f"num_shards={shards}", f"out={tmp_path / name}", "check_size=true")
        assert outcome.status == 0, outcome.err
    assert_same_files(tmp_path / "other", tmp_path / "one")
    assert not (tmp_path / "other.shards").exists()


def spoil(root: Path) -> Path:
    """Replace an image by one of which only the decoder finds out that it is broken."""
    path = root / "JPEGImages" / "train_5.jpg"
    picture = bytearray(cv2.imencode(".png", drawn.draw(5)[0])[1].tobytes())
    at = picture.index(b"IDAT") + 4
    picture[at : at + 2000] = bytes(2000)
    path.write_bytes(picture)
    return path


@pytest.mark.usefixtures("in_this_process")
def test_unreadable_images_are_collected(voc_root: Path, tmp_path: Path) -> None:
    root = drawn.copy(voc_root, tmp_path / "voc")
    spoil(root)
    folders = [tmp_path / "one", tmp_path / "other"]
    for folder, more in zip(folders, ([], ["tasks=3", "engine.processes=1"]), strict=True):
        outcome = detpipe(*propose(root, folder, "dataset.max_bad=0.2", *more))
        assert outcome.status == 0, outcome.err
        assert outcome.err.count("left out: ") == 1
    assert "train_5" in (folders[1] / "proposals.lmdb/manifest.json").read_text()
    assert_same_proposals(folders[1], folders[0])


@pytest.mark.usefixtures("in_this_process")
def test_too_many_unreadable_images_are_tried_again(voc_root: Path, tmp_path: Path) -> None:
    root, folder = drawn.copy(voc_root, tmp_path / "voc"), tmp_path / "run"
    image = spoil(root)
    length = image.stat().st_size
    arguments = propose(root, folder, "tasks=3", "engine.processes=1", "dataset.max_bad=0.01")
    outcome = detpipe(*arguments)
    assert outcome.status == 1
    assert "max_bad" in outcome.err
    intact = cv2.imencode(".png", drawn.draw(5)[0])[1].tobytes()
    assert len(intact) == length  # so it is the same data set
    image.write_bytes(intact)
    outcome = detpipe(*arguments)
    assert outcome.status == 0, outcome.err
    assert "2 of 3 tasks already done" in outcome.err
    assert len(records(folder / "proposals.lmdb")) == 14


@pytest.mark.usefixtures("in_this_process")
def test_another_number_of_tasks(voc_root: Path, whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert detpipe(*propose(voc_root, folder, "tasks=3", "task=1")).status == 0
    for more in (["tasks=4"], ["tasks=4", "task=1"]):
        outcome = detpipe(*propose(voc_root, folder, *more))
        assert outcome.status == 1
        assert "tasks=3" in outcome.err
        assert "overwrite=true" in outcome.err
    outcome = detpipe(*propose(voc_root, folder, "tasks=4", "engine.processes=1", "overwrite=true"))
    assert outcome.status == 0, outcome.err
    assert_same_proposals(folder, whole)


def test_shards_of_other_settings(voc_root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert detpipe(*propose(voc_root, folder, "tasks=2", "task=1")).status == 0
    for more in ([], ["task=1"]):
        outcome = detpipe(*propose(voc_root, folder, "tasks=2", "proposals.max_proposals=50", *more))
        assert outcome.status == 1
        assert "proposals.max_proposals: 60 -> 50" in outcome.err


@pytest.mark.usefixtures("in_this_process")
def test_a_damaged_shard(voc_root: Path, whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    arguments = propose(voc_root, folder, "tasks=2", "engine.processes=1")
    for task in (1, 2):
        assert detpipe(*propose(voc_root, folder, "tasks=2", f"task={task}")).status == 0
    shard = folder / "proposals.shards" / "0002-of-0002"
    data = shard / "data.mdb"
    data.write_bytes(data.read_bytes()[:5000])
    outcome = detpipe(*arguments)
    assert outcome.status == 1
    assert str(shard) in outcome.err
    assert "delete this folder" in outcome.err
    shutil.rmtree(shard)
    outcome = detpipe(*arguments)
    assert outcome.status == 0, outcome.err
    assert records(folder / "proposals.lmdb") == records(whole / "proposals.lmdb")


def test_two_processes_on_the_same_shards(voc_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detpipe.storage.shards.WAIT", 0.1)
    folder = tmp_path / "run"
    shards = Shards(Artefact(folder / "proposals.lmdb", stage="propose", settings={}, inputs={}), 2)
    for task, more in ((None, []), (1, ["task=1"])):
        with shards.held(task):
            outcome = detpipe(*propose(voc_root, folder, "tasks=2", *more))
        assert outcome.status == 1
        assert f"process {os.getpid()} of " in outcome.err
    assert not (folder / "proposals.lmdb").exists()


def test_a_task_that_waits_while_its_shards_are_merged(
    voc_root: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looks for the whole before it waits for the lock of its shard, and again when it has the lock."""
    folder = drawn.copy(whole, tmp_path / "run")
    answers: list[bool] = []
    is_finished = Shards.is_finished

    def asked(shards: Shards) -> bool:
        answers.append(bool(answers) and is_finished(shards))
        return answers[-1]

    monkeypatch.setattr(Shards, "is_finished", asked)
    outcome = detpipe(*propose(voc_root, folder, "tasks=2", "task=1"))
    assert outcome.status == 0, outcome.err
    assert answers == [False, True]
    assert_same_proposals(folder, whole)


@pytest.mark.usefixtures("in_this_process")
def test_a_failing_task_is_named(voc_root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shard = folder / "proposals.shards" / "0002-of-0003"
    shard.mkdir(parents=True)
    (shard / "notes.txt").write_text("somebody's")
    outcome = detpipe(*propose(voc_root, folder, "tasks=3", "engine.processes=1"))
    assert outcome.status == 1
    assert "1 of 3 tasks failed; task 2: " in outcome.err
    assert str(shard) in outcome.err
    assert (folder / "proposals.shards" / "0003-of-0003" / "manifest.json").exists()  # the others went on


@pytest.mark.parametrize("more", [["task=1"], ["tasks=0"], ["tasks=3", "task=4"], ["tasks=3", "task=0"]])
def test_wrong_numbers(more: list[str], voc_root: Path, tmp_path: Path) -> None:
    outcome = detpipe(*propose(voc_root, tmp_path / "run", *more))
    assert outcome.status == 1
    assert "expected" in outcome.err


SLOW = ("proposals.preset=ijcv_quality", "proposals.max_side=90", "proposals.max_proposals=50")
"""Slow enough to be met in the middle."""


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def soon(condition: Callable[[], bool], seconds: float = 20.0) -> bool:
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        time.sleep(0.02)
    return condition()


def has_begun(shard: Path) -> bool:
    """Whether a shard has records."""
    return (shard / "data.mdb").exists() and (shard / "data.mdb").stat().st_size > 0


def test_kills_of_a_task_and_of_the_driver(voc_root: Path, tmp_path: Path) -> None:
    one, folder = tmp_path / "one", tmp_path / "run"
    assert detpipe(*propose(voc_root, one, *SLOW)).status == 0
    arguments = propose(voc_root, folder, *SLOW, "tasks=3", "engine.processes=1")
    shards = folder / "proposals.shards"
    process = start(*arguments)
    wait_for(lambda: has_begun(shards / "0001-of-0003"), process)
    (worker,) = children(process.pid)
    os.kill(worker, signal.SIGKILL)
    wait_for(lambda: (shards / "0002-of-0003").exists(), process)  # the first task was repeated
    (worker,) = children(process.pid)
    outcome = stopped(process, signal.SIGKILL)
    assert "killed by SIGKILL" in outcome.err
    assert soon(lambda: is_gone(worker))
    again = detpipe(*arguments)
    assert again.status == 0, again.err
    assert "1 of 3 tasks already done" in again.err
    assert_same_proposals(folder, one)


def test_an_interrupt_stops_the_tasks(voc_root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    arguments = propose(voc_root, folder, *SLOW, "tasks=2", "engine.processes=2")
    process = start(*arguments)
    wait_for(lambda: all(has_begun(folder / f"proposals.shards/000{task}-of-0002") for task in (1, 2)), process)
    workers = children(process.pid)
    assert len(workers) == 2
    outcome = stopped(process, signal.SIGINT)
    assert outcome.status == 130, outcome.err
    assert "detpipe propose: stopped: " in outcome.err
    assert "Traceback" not in outcome.err
    assert all(map(is_gone, workers))
    assert detpipe(*arguments).status == 0


MOMENTS = 10


STAGES = ("check", "propose", "crop", "features", "detect", "make-db")
"""The commands that take tasks."""
FEATURES = (
    "features.image_sides=[64]", "features.grid=1", "crops.size=32", "backbone.weights=none", "workers=0",
    "precision=float32", "sampling.regions_per_image=8", "detect.max_proposals=10", "device=cpu",
)  # fmt: skip


def words_of(name: str, root: Path, folder: Path) -> list[str]:
    """The command line of a stage in `folder`, without tasks. make-db needs list.txt in the folder."""
    if name == "make-db":
        words = [f"root={root}", f"list={folder / 'list.txt'}", "resize=8x8", "workers=0", "check_size=true"]
        return [name, *words, f"out={folder / 'images.lmdb'}"]
    settings = list(FEATURES) if name == "features" else drawn.settings(name)
    return [name, *drawn.voc(root), *settings, f"run_dir={folder}"]


def prepared(name: str, root: Path, finished_run: Path, folder: Path) -> Path:
    """A folder in which a stage can run that has not run there."""
    outputs = {
        "check": ("check.json",),
        "propose": ("proposals.lmdb", "recall.json", "recall_train.json"),
        "crop": ("crops.lmdb", "crops_val.lmdb"),
        "features": ("features",),
        "detect": ("detections.json", "detections.csv"),
        "make-db": (),
    }
    drawn.copy(finished_run, folder)
    for output in outputs[name]:
        manifest_path(folder / output).unlink(missing_ok=True)
        without(folder, output)
    lines = [f"JPEGImages/{image}.jpg {number % 2}" for number, image in enumerate(drawn.TRAIN)]
    (folder / "list.txt").write_text("\n".join(lines) + "\n")
    return folder


def has_shards(folder: Path) -> bool:
    """Whether a command in tasks has begun there."""
    return any(folder.rglob("*.shards"))


def rest_of(words: Sequence[str], folder: Path) -> float:
    """Seconds of a command that nothing disturbs, from its first shard in `folder` to its end."""
    process = start(*words)
    wait_for(functools.partial(has_shards, folder), process)
    begun = time.monotonic()
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, out + err
    return time.monotonic() - begun


def made(folder: Path) -> dict[str, bytes | list[str]]:
    """The bytes of all artefacts of a run folder; manifests without the time. Logs and past settings are left out."""
    files = (path for path in folder.rglob("*") if path.is_file())
    own = [path for path in files if path.name not in ("lock.mdb", "detpipe.log") and ".hydra" not in path.parts]
    return {
        str(path.relative_to(folder)): without_time(path) if path.name.endswith("manifest.json") else path.read_bytes()
        for path in own
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", STAGES)
def test_kills_at_random_moments(name: str, voc_root: Path, finished_run: Path, tmp_path: Path) -> None:
    """Ten kills of the driver or of its task, then the same command: the bytes of one undisturbed process."""
    one = prepared(name, voc_root, finished_run, tmp_path / "one")
    outcome = detpipe(*words_of(name, voc_root, one))
    assert outcome.status == 0, outcome.err
    moments = random.Random(f"tasks {name}")
    killed = 0
    folder = prepared(name, voc_root, finished_run, tmp_path / "run")
    words = [*words_of(name, voc_root, folder), "tasks=3", "engine.processes=1"]
    rest = rest_of(words, folder)
    for number in range(MOMENTS):
        shutil.rmtree(folder)
        prepared(name, voc_root, finished_run, folder)
        process = start(*words)
        wait_for(functools.partial(has_shards, folder), process)
        time.sleep(moments.uniform(0, rest))
        workers = children(process.pid) if process.poll() is None else []
        if number % 2 and workers:
            os.kill(workers[0], signal.SIGKILL)
            killed += 1
            out, err = process.communicate(timeout=120)
            assert process.returncode == 0, out + err
        else:
            killed += stopped(process, signal.SIGKILL).status == -signal.SIGKILL
            outcome = detpipe(*words)
            assert outcome.status == 0, outcome.err
        assert made(folder) == made(one)
    assert killed >= 3, "too few of the kills met a run that was still going"
