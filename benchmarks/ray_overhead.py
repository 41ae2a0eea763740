"""engine=ray against engine=local with two processes, and a Ray cluster of two nodes against one of one node.

    python benchmarks/ray_overhead.py DATA OUT [--count 3000] [--commands propose features detect] [--tasks 8]
        [--seconds 10] [--runs 3]

DATA holds instances.json and images/. Its images are copied into OUT under COUNT new names, again and again. All
processes have one thread. Needs two quiet cores and the extra `ray`. Two measurements, medians of runs in turn:

- Whole commands with K tasks: wall time with Python's start and imports. `features` computes maps of one size;
  `detect` runs a joint network, trained for 20 iterations. Each run must give the same bytes. The cluster runs already,
  as on many machines: its start is not counted.
- Tasks that sleep for one second, SECONDS on each of two processes: what an engine adds to a task, and what its start
  takes until the first two tasks have run.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detpipe.engines.engine import Engine, TaskCall
from detpipe.engines.local import LocalEngine
from detpipe.engines.ray import RayEngine
from detpipe.engines.ray_cluster import LOOPBACK, STORE

NODE: dict[str, Any] = {
    "num_cpus": 1,
    "node_ip_address": LOOPBACK,
    "object_store_memory": STORE,
    "include_dashboard": False,
}


@dataclass(frozen=True)
class Stage:
    """A measured command: its data split, its settings, the commands that it needs, and what it writes."""

    split: str
    settings: list[str]
    before: list[list[str]]
    results: list[str]


SMALL_FEATURES = ["features.image_sides=[320]", "features.crops=false", "sampling.regions_per_image=32"]
STAGES = {
    "propose": Stage("train", [], [], ["proposals.lmdb"]),
    "features": Stage("train", SMALL_FEATURES, [["propose"]], ["features"]),
    "detect": Stage(
        "test",
        [],
        [
            ["train-cls", "head=multibox_fast_rcnn", "solver.max_iter=20", "solver.test_interval=0"],
            ["propose", "proposals=multibox", "proposals.weights={out}/multibox"],
        ],
        ["detections.json", "detections.manifest.json", "object_traces.json"],
    ),
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=3000)
    parser.add_argument("--commands", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--tasks", type=int, default=8)
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    os.environ.update(OMP_NUM_THREADS="1", RAY_USAGE_STATS_ENABLED="0")
    from ray.cluster_utils import Cluster

    data = copied(arguments.data, arguments.out / "data", arguments.count)
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
        for name in arguments.commands:
            measure(name, data, engines, arguments.out / name, arguments.tasks, arguments.runs)
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


def copied(data: Path, out: Path, count: int) -> Path:
    """Copy the images and their objects under `count` new names, once."""
    coco = json.loads((data / "instances.json").read_text())
    objects: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in coco["images"]}
    for one in coco["annotations"]:
        objects[one["image_id"]].append(one)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    (out / "images").mkdir(parents=True, exist_ok=True)
    for number in range(count):
        image = coco["images"][number % len(coco["images"])]
        name = f"{number:07d}{Path(image['file_name']).suffix}"
        if not (out / "images" / name).exists():
            shutil.copyfile(data / "images" / image["file_name"], out / "images" / name)
        images.append({**image, "id": number, "file_name": name})
        for one in objects[image["id"]]:
            annotations.append({**one, "id": len(annotations), "image_id": number})
    (out / "instances.json").write_text(json.dumps({**coco, "images": images, "annotations": annotations}))
    return out


def measure(name: str, data: Path, engines: Mapping[str, list[str]], out: Path, tasks: int, runs: int) -> None:
    """Print the seconds of a command with each engine, and their ratios to the first."""
    stage = STAGES[name]
    words = ["dataset=coco", f"run_dir={out}", "workers=0"]
    words += [f"dataset.{stage.split}_json={data / 'instances.json'}"]
    words += [f"dataset.{stage.split}_images={data / 'images'}"]
    if stage.split == "test":  # what it is trained with
        words += [word.replace("test_", "train_") for word in words if "dataset.test_" in word]
    for before in stage.before:
        detpipe(*(word.format(out=out) for word in before), *words)
    taken: dict[str, list[float]] = {engine: [] for engine in engines}
    results = set()
    for _ in range(runs):
        for engine, own in engines.items():
            begun = time.perf_counter()
            detpipe(name, *words, *stage.settings, *own, f"tasks={tasks}")
            taken[engine].append(time.perf_counter() - begun)
            results.add(digest(out, stage.results))
            delete(out, stage.results)
    first = statistics.median(next(iter(taken.values())))
    for engine, seconds in taken.items():
        middle = statistics.median(seconds)
        span = f"{min(seconds):.1f} to {max(seconds):.1f}"
        print(f"{name}, {engine}: {middle:.1f} s ({span}), ratio {middle / first:.2f}", flush=True)
    print(f"{name}: {len(results)} different results (expected 1)", flush=True)


def detpipe(*words: str) -> None:
    """Run a command. Raises CalledProcessError if it fails."""
    subprocess.run([sys.executable, "-m", "detpipe", *words], check=True, stdout=subprocess.DEVNULL)


def digest(folder: Path, names: Sequence[str]) -> str:
    """The digest of the files of results, without manifests and locks, which hold times."""
    total = hashlib.sha256()
    for name in names:
        path = folder / name
        files = sorted(path.rglob("*")) if path.is_dir() else [path] * path.exists()
        for file in files:
            if file.is_file() and "manifest" not in file.name and file.name != "lock.mdb":
                total.update(file.read_bytes())
    return total.hexdigest()


def delete(folder: Path, names: Sequence[str]) -> None:
    """Delete results, so that the next run makes them again."""
    for name in names:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
