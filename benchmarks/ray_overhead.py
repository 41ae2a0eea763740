"""engine=ray against engine=local with two processes, and a Ray cluster of two nodes against one of one node.

    python benchmarks/ray_overhead.py DATA OUT [--tasks 8] [--seconds 10] [--runs 3] [key=value ...]

DATA holds instances.json and images/; OUT is a new folder, on which run folders are written and deleted. All processes
have one thread. Needs two quiet cores and the extra `ray`. Two measurements, medians of runs in turn:

- `detpipe propose` as a whole command, with K tasks: wall time with Python's start and imports. Each run must give the
  same bytes. The cluster runs already, as on many machines: its start is not counted.
- Tasks that sleep for one second, SECONDS on each of two processes: what an engine adds to a task, and what its start
  takes until the first two tasks have run.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from detpipe.engines.engine import Engine, TaskCall
from detpipe.engines.local import LocalEngine
from detpipe.engines.ray import RayEngine
from detpipe.engines.ray_cluster import LOOPBACK, STORE

NODE = {"num_cpus": 1, "node_ip_address": LOOPBACK, "object_store_memory": STORE, "include_dashboard": False}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--tasks", type=int, default=8)
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--runs", type=int, default=3)
    arguments, overrides = parser.parse_known_args()
    os.environ.update(OMP_NUM_THREADS="1", RAY_USAGE_STATS_ENABLED="0")
    from ray.cluster_utils import Cluster

    one, two = (Cluster(initialize_head=True, head_node_args=NODE) for _ in range(2))
    two.add_node(**NODE)
    try:
        local, ray = LocalEngine(processes=2), RayEngine(address=two.address)
        sleep(local, ray, arguments.seconds, arguments.runs)
        engines = {
            "engine=local, 2 processes": ["engine=local", "engine.processes=2"],
            "engine=ray, 2 nodes": ["engine=ray", f"engine.address={two.address}"],
            "engine=ray, 1 node": ["engine=ray", f"engine.address={one.address}"],
        }
        data = [f"dataset.train_json={arguments.data / 'instances.json'}"]
        data += [f"dataset.train_images={arguments.data / 'images'}", "workers=0", f"tasks={arguments.tasks}"]
        propose(["dataset=coco", *data, *overrides], engines, arguments.out, arguments.runs)
    finally:
        two.shutdown()
        one.shutdown()


class Silent:
    """An observer that fails where a task does."""

    def nodes(self, names: Sequence[str]) -> None:
        """See `Observer`."""

    def started(self, task: int, where: str) -> None:
        """See `Observer`."""

    def event(self, task: int, event: Mapping[str, Any]) -> None:
        """See `Observer`."""

    def finished(self, task: int) -> None:
        """See `Observer`."""

    def repeated(self, task: int, reason: str) -> None:
        """See `Observer`."""
        raise RuntimeError(f"task {task}: {reason}")

    failed = repeated


def second(_settings: Mapping[str, Any], _task: int, _tasks: int) -> None:
    """A task of one second."""
    time.sleep(1)


def sleep(local: Engine, ray: Engine, seconds: int, runs: int) -> None:
    """Print what the engines add to tasks of one second: from the difference between few and many tasks."""
    names = {"local": local, "ray": ray}
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for _ in range(runs):
        for name, engine in names.items():
            few, many = (wall(engine, count) for count in (2, 2 + 2 * seconds))
            taken[name].append((few - 1, (many - few) / seconds - 1))
    for name, rows in taken.items():
        start, more = (statistics.median(column) for column in zip(*rows, strict=True))
        print(f"engine={name}: {1000 * more:.0f} ms added to a task of one second; start {start:.1f} s", flush=True)


def wall(engine: Engine, count: int) -> float:
    """Seconds of `count` tasks."""
    begun = time.perf_counter()
    engine.run(TaskCall(f"{Path(__file__).stem}:{second.__name__}", {}, count), range(1, count + 1), Silent())
    return time.perf_counter() - begun


def propose(words: list[str], engines: Mapping[str, list[str]], out: Path, runs: int) -> None:
    """Print the seconds of `detpipe propose` with each engine, and their ratios to the first."""
    out.mkdir(parents=True)
    taken: dict[str, list[float]] = {name: [] for name in engines}
    results = set()
    for _ in range(runs):
        for name, own in engines.items():
            folder = out / "run"
            begun = time.perf_counter()
            command = [sys.executable, "-m", "detpipe", "propose", *words, *own, f"run_dir={folder}"]
            subprocess.run(command, check=True, capture_output=True)
            taken[name].append(time.perf_counter() - begun)
            results.add((folder / "proposals.lmdb" / "data.mdb").read_bytes())
            shutil.rmtree(folder)
    out.rmdir()
    first = statistics.median(next(iter(taken.values())))
    for name, seconds in taken.items():
        middle = statistics.median(seconds)
        print(f"{name}: {middle:.1f} s ({min(seconds):.1f} to {max(seconds):.1f}), ratio {middle / first:.2f}")
    print(f"{len(results)} different results (expected 1)")


if __name__ == "__main__":
    main()
