"""engine=ray on a cluster of two nodes with one core each, on this machine."""

from __future__ import annotations

import contextlib
import functools
import os
import random
import resource
import signal
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from detpipe.commands import tasks as commands
from detpipe.engines import ray as engine
from detpipe.engines import ray_cluster
from detpipe.engines.engine import TaskCall, TaskError
from detpipe.engines.ray import RayEngine
from detpipe.engines.ray_cluster import LOOPBACK
from detpipe.storage.manifest import Artefact
from detpipe.storage.shards import ShardHeldError, Shards
from tests import drawn
from tests.command_line import detpipe, start
from tests.commands.test_kill import stopped, wait_for
from tests.commands.test_tasks import (
    MOMENTS,
    SLOW,
    STAGES,
    assert_same_proposals,
    children,
    detect,
    has_begun,
    has_shards,
    made,
    prepared,
    propose,
    rest_of,
    soon,
    whole,
    words_of,
)
from tests.engines.test_local import Seen

__all__ = ["whole"]
DO = "tests.engines.test_local:do"
NODE = {
    "num_cpus": 1,
    "node_ip_address": LOOPBACK,
    "object_store_memory": ray_cluster.STORE,
    "include_dashboard": False,
}


PATIENCE = 120.0
"""Seconds in which a machine with much other work starts a node."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes."""
    cluster_utils = pytest.importorskip("ray.cluster_utils", reason="needs the extra detpipe[ray]")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # A killed node is missed after three seconds, in place of fifteen.
    quick = {"health_check_initial_delay_ms": 1000, "health_check_period_ms": 1000, "health_check_failure_threshold": 3}
    made = cluster_utils.Cluster(initialize_head=True, head_node_args={**NODE, "_system_config": quick})
    made.add_node(**NODE)
    yield made
    made.shutdown()


class SeenOnNodes(Seen):
    """An observer that keeps the nodes as well."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[list[str]] = []
        self.places: list[str] = []

    def nodes(self, names: Any) -> None:
        self.names.append(list(names))

    def started(self, task: int, where: str) -> None:
        super().started(task, where)
        self.places.append(where)


def run(cluster: Any, folder: Path, tasks: list[int], *, marker: Any = None, **settings: Any) -> SeenOnNodes:
    seen = SeenOnNodes()
    options = {name: settings.pop(name) for name in ("strict", "retries") if name in settings}
    call = TaskCall(settings.pop("function", DO), {"folder": str(folder), **settings}, 4, marker)
    RayEngine(address=cluster.address, **options).run(call, tasks, seen)
    return seen


def raylet(node: Any) -> int:
    """The process of a node that starts its workers."""
    (found,) = node.all_processes["raylet"]
    return int(found.process.pid)


def add_node(cluster: Any) -> Any:
    """Add a node of one core, and wait until the cluster knows it."""
    node = cluster.add_node(wait=False, **NODE)
    cluster.wait_for_nodes(timeout=PATIENCE)
    return node


def kill_node(cluster: Any, node: Any) -> None:
    """Kill the processes of a node as the end of its machine does, and wait until the cluster knows."""
    workers = children(raylet(node))
    os.kill(raylet(node), signal.SIGKILL)
    for worker in workers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker, signal.SIGKILL)
    cluster.remove_node(node, allow_graceful=False)
    cluster.wait_for_nodes(timeout=PATIENCE)


def broken(message: str, mailbox: Any) -> None:
    """What a worker with another detpipe may do."""
    raise ModuleNotFoundError("No module named 'detpipe'")


def test_a_worker_that_can_not_begin(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "run_here", broken)
    seen = run(cluster, tmp_path, [1])
    assert seen.states == [("failed", 1)]
    assert seen.reasons[0].startswith(f"node {LOOPBACK}: ")
    assert "No module named 'detpipe'" in seen.reasons[0]
    assert "same version of detpipe" in seen.reasons[0]


def test_tasks_report_and_finish(cluster: Any, tmp_path: Path) -> None:
    assert run(cluster, tmp_path, []).states == []
    seen = run(cluster, tmp_path, [2, 4], marker=Shards(_whole(tmp_path), 4).mark())
    assert sorted(seen.states) == [("finished", 2), ("finished", 4), ("started", 2), ("started", 4)]
    assert sorted(seen.lines) == ["line of 2 of 4", "line of 4 of 4"]
    assert seen.counts == 6
    assert {(tmp_path / name).read_text() for name in "24"} == {os.environ.get("OMP_NUM_THREADS", "1")}
    (names,) = seen.names
    assert len(names) == 2
    assert all(place.partition(" on node ")[2] in names for place in seen.places)


def _whole(folder: Path) -> Artefact:
    return Artefact(folder / "proposals.lmdb", stage="propose", settings={}, inputs={})


def test_a_killed_task_is_repeated_and_a_failure_is_not(cluster: Any, tmp_path: Path) -> None:
    seen = run(cluster, tmp_path, [1, 2], dies=1, once=True, fails=2)
    assert sorted(state for state in seen.states if state[0] != "started") == [
        ("failed", 2), ("finished", 1), ("repeated", 1),
    ]  # fmt: skip
    killed, failed = sorted(seen.reasons)
    assert killed == "its process was killed"
    assert failed.startswith(f"node {LOOPBACK} (")
    assert failed.endswith("): what was expected, what came")
    (tmp_path / "died").unlink()
    assert run(cluster, tmp_path, [3], dies=3, retries=0).states[-1] == ("failed", 3)


def wait(settings: Mapping[str, Any], task: int, tasks: int) -> None:
    """A task that ends when there is a file "go"."""
    assert soon((Path(settings["folder"]) / "go").exists, PATIENCE)


def test_a_node_joins_while_tasks_wait(cluster: Any, tmp_path: Path) -> None:
    """Each of three tasks needs a core until all of them run, and the two nodes have two."""
    joined = []

    class Joining(SeenOnNodes):
        def started(self, task: int, where: str) -> None:
            super().started(task, where)
            if len(self.places) == 2:
                joined.append(add_node(cluster))
            elif len(self.places) == 3:
                (tmp_path / "go").touch()

    seen = Joining()
    call = TaskCall(f"{__name__}:wait", {"folder": str(tmp_path)}, 3)
    RayEngine(address=cluster.address).run(call, [1, 2, 3], seen)
    (node,) = joined
    kill_node(cluster, node)
    assert sorted(state for state in seen.states if state[0] != "started") == [("finished", n) for n in (1, 2, 3)]
    assert f"({node.node_id[:6]})" in seen.places[2]


def makes_a_shard(node: Any, shards: Path) -> bool:
    """Whether a process of a node is in the middle of a shard. Lock files name their processes."""
    owners = {lock.with_suffix(""): lock.read_text().split()[1:2] for lock in shards.glob("*-of-*.lock")}
    own = {str(child) for child in children(raylet(node))}
    return any(own.intersection(owner) and has_begun(shard) for shard, owner in owners.items())


def test_a_killed_node(cluster: Any, voc_root: Path, tmp_path: Path) -> None:
    """One of three nodes is killed in the middle of a shard."""
    one, folder, node = tmp_path / "one", tmp_path / "run", add_node(cluster)
    assert detpipe(*propose(voc_root, one, *SLOW)).status == 0
    process = start(*propose(voc_root, folder, *SLOW, "tasks=3", "engine=ray", f"engine.address={cluster.address}"))
    wait_for(lambda: makes_a_shard(node, folder / "proposals.shards"), process)
    kill_node(cluster, node)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, out + err
    assert f"({node.node_id[:6]})) is run again: its " in err  # node was lost, or process was killed
    assert_same_proposals(folder, one)


def test_the_events_are_lost(cluster: Any, tmp_path: Path) -> None:
    """The process that holds the events of the tasks is killed: the tasks go on."""

    class Killing(SeenOnNodes):
        def started(self, task: int, where: str) -> None:
            super().started(task, where)
            for child in children(raylet(cluster.head_node)):
                if b"Mailbox" in Path(f"/proc/{child}/cmdline").read_bytes():
                    os.kill(child, signal.SIGKILL)
                    (tmp_path / "go").touch()

    seen = Killing()
    RayEngine(address=cluster.address).run(TaskCall(f"{__name__}:wait", {"folder": str(tmp_path)}, 1), [1], seen)
    assert (tmp_path / "go").exists()
    assert seen.states == [("started", 1), ("finished", 1)]


def is_held(settings: Mapping[str, Any], task: int, tasks: int) -> None:
    """A task whose shard another process holds, the first time."""
    tried = Path(settings["folder"]) / "tried"
    if settings["always"] or not tried.exists():
        tried.touch()
        raise ShardHeldError("process 1 of a lost machine")


@pytest.mark.parametrize("always", [False, True])
def test_a_lost_node_holds_the_shard(
    always: bool, cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "HELD_WAIT", -1.0 if always else 60.0)
    seen = run(cluster, tmp_path, [1], function=f"{__name__}:is_held", always=always)
    assert [state for state, _ in seen.states if state != "started"] == (
        ["failed"] if always else ["repeated", "finished"]
    )
    assert "process 1 of a lost machine" in seen.reasons[0]


def on_a_full_disk(settings: Mapping[str, Any], task: int, tasks: int) -> None:
    """A task of a command. On the node that a file names, files can't grow beyond two pages."""
    import ray

    full = Path(settings["full"])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    if full.exists() and full.read_text() == ray.get_runtime_context().get_node_id():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 13, limits[1]))
    try:
        commands.run_task(settings, task, tasks)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("retries", [pytest.param(0, marks=pytest.mark.slow), 2])
def test_a_full_disk_on_one_node(
    retries: int, cluster: Any, voc_root: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its tasks are run on the other node, or fail: then the same command repairs it when there is room."""
    folder, full = tmp_path / "run", tmp_path / "full"
    (node,) = cluster.worker_nodes
    full.write_text(node.node_id)

    def call(_function: str, settings: Mapping[str, Any], *more: Any) -> TaskCall:
        return TaskCall(f"{__name__}:on_a_full_disk", {**settings, "full": str(full)}, *more)

    monkeypatch.setattr(commands, "TaskCall", call)
    engine = ("engine=ray", f"engine.address={cluster.address}", f"engine.retries={retries}")
    arguments = propose(voc_root, folder, "tasks=3", *engine)
    outcome = detpipe(*arguments)
    (named, *_) = (line for line in outcome.err.splitlines() if "disk may be full" in line)
    assert f"node {LOOPBACK} ({node.node_id[:6]}): {folder / 'proposals.shards'}" in named
    assert "finished" in outcome.err
    assert outcome.status == (0 if retries else 1), outcome.err
    if not retries:
        assert list((folder / "proposals.shards").glob("*-of-0003/manifest.json"))
        full.unlink()
        outcome = detpipe(*arguments)
        assert outcome.status == 0, outcome.err
        assert "of 3 tasks already done" in outcome.err
    assert_same_proposals(folder, whole)


@pytest.mark.parametrize("strict", [False, True])
def test_other_versions(strict: bool, cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = ray_cluster.versions()
    monkeypatch.setattr(ray_cluster, "versions", lambda: {**here, "torch": "0.1"})  # only of the driver
    seen = run(cluster, tmp_path, [1], strict=strict)
    assert seen.states[-1] == ("failed" if strict else "finished", 1)
    (line,) = seen.reasons if strict else [one for one in seen.lines if "node" in one]
    assert f"torch 0.1 as in the driver, got {here['torch']}" in line
    assert LOOPBACK in line
    assert ("engine.strict" in line) is strict


def test_a_node_without_the_run_folder(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_cluster, "MARKER_WAIT", 0.1)
    for marker in ((str(tmp_path / "none" / "driver.marker"), "1"), Shards(_whole(tmp_path), 4).mark()):
        seen = run(cluster, tmp_path, [1], marker=(marker[0], "another"))
        assert seen.states[-1] == ("failed", 1)
        assert marker[0] in seen.reasons[0]
        assert "shared" in seen.reasons[0]


def test_proposals_and_detections_are_those_of_one_process(
    cluster: Any, voc_root: Path, whole: Path, finished_run: Path, tmp_path: Path
) -> None:
    more = ("tasks=3", "engine=ray", f"engine.address={cluster.address}")
    folder = tmp_path / "run"
    outcome = detpipe(*propose(voc_root, folder, *more))
    assert outcome.status == 0, outcome.err
    assert "2 nodes" in outcome.err
    assert "3 finished" in outcome.err
    assert_same_proposals(folder, whole)
    one, several = (drawn.copy(finished_run, tmp_path / name) for name in ("one", "several"))
    for folder, words in ((one, ()), (several, more)):
        (folder / "detections.json").unlink()
        outcome = detpipe(*detect(folder, "overwrite=true", *words))
        assert outcome.status == 0, outcome.err
    assert (several / "detections.json").read_bytes() == (one / "detections.json").read_bytes()


@pytest.mark.slow
def test_a_killed_driver(cluster: Any, voc_root: Path, tmp_path: Path) -> None:
    one, folder = tmp_path / "one", tmp_path / "run"
    assert detpipe(*propose(voc_root, one, *SLOW)).status == 0
    arguments = propose(voc_root, folder, *SLOW, "tasks=2", "engine=ray", f"engine.address={cluster.address}")
    process = start(*arguments)
    wait_for(lambda: all(has_begun(folder / f"proposals.shards/000{task}-of-0002") for task in (1, 2)), process)
    assert stopped(process, signal.SIGKILL).status == -signal.SIGKILL
    again = detpipe(*arguments)  # while tasks of the killed driver may still hold the locks of their shards
    assert again.status == 0, again.err
    assert_same_proposals(folder, one)


def kill_a_task(cluster: Any, choice: random.Random) -> None:
    """Kill the process of a task, if one runs."""
    nodes = (cluster.head_node, *cluster.worker_nodes)
    workers = sorted(child for node in nodes for child in children(raylet(node)))
    running = [one for one in workers if b"run_here" in Path(f"/proc/{one}/cmdline").read_bytes()]
    if running:
        os.kill(choice.choice(running), signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.parametrize("name", STAGES)
def test_kills_at_random_moments(name: str, cluster: Any, voc_root: Path, finished_run: Path, tmp_path: Path) -> None:
    """Ten kills of a task, a node or the driver, then the same command: the bytes of one undisturbed process."""
    one = prepared(name, voc_root, finished_run, tmp_path / "one")
    outcome = detpipe(*words_of(name, voc_root, one))
    assert outcome.status == 0, outcome.err
    moments = random.Random(f"ray {name}")
    met = 0
    on_ray = ["tasks=3", "engine=ray", f"engine.address={cluster.address}"]
    whole_run = prepared(name, voc_root, finished_run, tmp_path / "whole")
    rest = rest_of([*words_of(name, voc_root, whole_run), *on_ray], whole_run)
    for number in range(MOMENTS):
        folder = prepared(name, voc_root, finished_run, tmp_path / str(number))
        words = [*words_of(name, voc_root, folder), *on_ray]
        process = start(*words)
        wait_for(functools.partial(has_shards, folder), process)
        time.sleep(moments.uniform(0, rest))
        met += process.poll() is None
        if number % 3 == 0:
            process.kill()
        elif number % 3 == 1:
            (node,) = cluster.worker_nodes
            kill_node(cluster, node)
            add_node(cluster)
        else:
            kill_a_task(cluster, moments)
        out, err = process.communicate(timeout=300)
        assert process.returncode in (0, -signal.SIGKILL), out + err
        outcome = detpipe(*words)
        assert outcome.status == 0, outcome.err
        assert made(folder) == made(one)
    assert met >= 3, "too few of the kills met a run that was still going"


@pytest.mark.slow
def test_an_interrupt_cancels_the_tasks(cluster: Any, voc_root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    arguments = propose(voc_root, folder, *SLOW, "tasks=3", "engine=ray", f"engine.address={cluster.address}")
    process = start(*arguments)
    wait_for(lambda: has_begun(folder / "proposals.shards/0001-of-0003"), process)
    outcome = stopped(process, signal.SIGINT)
    assert outcome.status == 130, outcome.err
    assert "stopped: " in outcome.err
    assert "Traceback" not in outcome.err
    outcome = detpipe(*arguments)
    assert outcome.status == 0, outcome.err


def test_no_answer(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="needs the extra detpipe[ray]")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(TaskError, match=r"engine.address.*ray start"):
            RayEngine(address=address).run(TaskCall(DO, {}, 1), [1], Seen())


def test_without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(TaskError, match=r"detpipe\[ray\]"):
        RayEngine().run(TaskCall(DO, {}, 1), [1], Seen())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("address", "head"), ("address", "ray://head:10001"), ("cpus_per_task", 0), ("gpus_per_task", -1.0),
        ("gpus_per_task", 1.5), ("retries", -1),
    ],
)  # fmt: skip
def test_wrong_settings(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        RayEngine(**{name: value})


@pytest.mark.slow
def test_a_local_cluster(voc_root: Path, whole: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="needs the extra detpipe[ray]")
    folder = tmp_path / "run"
    process = start(*propose(voc_root, folder, "tasks=3", "engine=ray", "engine.address=null"))
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, out + err
    assert_same_proposals(folder, whole)
