"""engine=ray: the head node of the cluster is lost while a command waits for its tasks, or for its stream."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from detpipe.engines.ray_cluster import RECONNECT
from tests.command_line import detpipe, start
from tests.commands.test_detect_stream import contents, has_parts, photos, started, words
from tests.commands.test_kill import wait_for
from tests.commands.test_tasks import SLOW, assert_same_proposals, has_begun, propose
from tests.engines.test_ray import NODE

LONGEST = 90.0
"""Seconds in which a command must end, also on a busy machine."""


def new_cluster() -> Any:
    """A cluster of one node, whose processes wait a few seconds for the head."""
    cluster_utils = pytest.importorskip("ray.cluster_utils", reason="needs the extra detpipe[ray]")
    return cluster_utils.Cluster(initialize_head=True, head_node_args=NODE)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv(RECONNECT, "30")
    made = new_cluster()
    yield made
    made.shutdown()


def kill(cluster: Any, *names: str) -> None:
    """Kill processes of the head node."""
    for name in names:
        for one in cluster.head_node.all_processes[name]:
            os.kill(one.process.pid, signal.SIGKILL)


def ended(process: subprocess.Popen[str], cluster: Any) -> None:
    """Wait for the end of a command, with a sentence about the head node."""
    out, err = process.communicate(timeout=LONGEST)
    last = err.strip().splitlines()[-1]
    assert process.returncode == 1, out + err
    assert cluster.address in last
    assert "expected the " in last
    assert "the same command again" in last
    assert "Traceback" not in err


def run_on_a_new_cluster(arguments: list[str]) -> None:
    """The same command, which must succeed."""
    again = new_cluster()
    try:
        outcome = detpipe(*arguments, f"engine.address={again.address}")
    finally:
        again.shutdown()
    assert outcome.status == 0, outcome.err


@pytest.mark.slow
def test_tasks(cluster: Any, voc_root: Path, tmp_path: Path) -> None:
    """Their node is lost. Without the head alone, these few tasks would end before the command misses it."""
    one, folder = tmp_path / "one", tmp_path / "run"
    arguments = propose(voc_root, folder, *SLOW, "tasks=3", "engine=ray")
    process = start(*arguments, f"engine.address={cluster.address}")
    wait_for(lambda: has_begun(folder / "proposals.shards/0001-of-0003"), process)
    kill(cluster, "raylet")
    ended(process, cluster)
    run_on_a_new_cluster(arguments)
    assert detpipe(*propose(voc_root, one, *SLOW)).status == 0
    assert_same_proposals(folder, one)


@pytest.mark.slow
def test_a_stream(cluster: Any, finished_run: Path, tmp_path: Path) -> None:
    source, one, out = photos(tmp_path / "photos", 200), tmp_path / "one", tmp_path / "out"
    arguments = words(finished_run, source, out, "engine=ray")
    process = started([*arguments, f"engine.address={cluster.address}"])
    wait_for(has_parts(out, 2), process)
    kill(cluster, "gcs_server")
    ended(process, cluster)
    run_on_a_new_cluster(arguments)
    assert detpipe(*words(finished_run, source, one)).status == 0
    assert contents(one).keys() <= contents(out).keys()
