"""engine=ray on a cluster of two nodes with one core each, on this machine."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from detpipe.engines import ray_cluster
from detpipe.engines.engine import TaskCall, TaskError
from detpipe.engines.ray import RayEngine
from detpipe.engines.ray_cluster import LOOPBACK
from detpipe.storage.manifest import Artefact
from detpipe.storage.shards import Shards
from tests import drawn
from tests.command_line import detpipe, start
from tests.commands.test_kill import stopped, wait_for
from tests.commands.test_tasks import SLOW, assert_same_proposals, detect, has_begun, propose, whole
from tests.engines.test_local import Seen

__all__ = ["whole"]
DO = "tests.engines.test_local:do"
NODE = {
    "num_cpus": 1,
    "node_ip_address": LOOPBACK,
    "object_store_memory": ray_cluster.STORE,
    "include_dashboard": False,
}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes."""
    cluster_utils = pytest.importorskip("ray.cluster_utils", reason="needs the extra detpipe[ray]")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    made = cluster_utils.Cluster(initialize_head=True, head_node_args=NODE)
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
    call = TaskCall(DO, {"folder": str(folder), **settings}, 4, marker)
    RayEngine(address=cluster.address, **options).run(call, tasks, seen)
    return seen


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
    assert sorted(seen.reasons) == ["its process was killed", "what was expected, what came"]
    (tmp_path / "died").unlink()
    assert run(cluster, tmp_path, [3], dies=3, retries=0).states[-1] == ("failed", 3)


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
