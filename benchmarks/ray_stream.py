"""Detections as a stream of Ray Data: killed drivers, memory over time, and the rate beside one process.

    python benchmarks/ray_stream.py IMAGES RUN OUT [--count 3000] [--kills 2] [--part 512] [--nodes 2] [key=value ...]

IMAGES is a folder of images, which are copied into OUT under `count` new names, again and again. RUN is a finished
run folder. key=value are further settings of `detpipe detect`. First the command runs without Ray. Then it runs on a
cluster of `nodes` nodes with a core each, on a loopback address; its driver is killed (kill -9) `kills` times, at equal
shares of the parts, and started again. Printed: the resident memory of the driver and of all actors over time, in the
last process; whether each image is in one part and the detections equal one process's; and images a second, from
the first part of a process to its last one, so without the start. OMP_NUM_THREADS=1 in both.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pyarrow.parquet
from ray.cluster_utils import Cluster

from detpipe.engines.ray_cluster import LOOPBACK, STORE

SAMPLES = 12
"""Printed lines of memory."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=3000)
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--part", type=int, default=512)
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("settings", nargs="*")
    arguments = parser.parse_args()
    os.environ.update(OMP_NUM_THREADS="1", RAY_USAGE_STATS_ENABLED="0")
    photos = copied(arguments.images, arguments.out / "photos", arguments.count)
    command = [
        sys.executable, "-c",
        f"from detpipe.commands import detect_parts; detect_parts.PART = {arguments.part}; "
        "from detpipe.cli import main; main()",
        "detect", f"source={photos}", f"run_dir={arguments.run}", *arguments.settings,
    ]  # fmt: skip
    one, stream = arguments.out / "one.parquet", arguments.out / "stream.parquet"
    subprocess.run([*command, f"out={one}"], check=True)
    cluster = Cluster()
    for _ in range(arguments.nodes):
        cluster.add_node(num_cpus=1, node_ip_address=LOOPBACK, object_store_memory=STORE, include_dashboard=False)
    try:
        words = [*command, f"out={stream}", "engine=ray", f"engine.address={cluster.address}"]
        parts = -(-arguments.count // arguments.part)
        for kill in range(1, arguments.kills + 1):
            watched(cluster, words, stream, until=parts * kill // (arguments.kills + 1))
            print(f"kill {kill}: {len(done(stream))} of {parts} parts")
        kept = set(done(stream))
        memory = watched(cluster, words, stream)
    finally:
        cluster.shutdown()
    print(f"{'seconds':>8}{'driver MB':>11}{'actors MB':>11}{'actors':>8}{'parts':>7}")
    for seconds, driver, actors, number, written in memory[:: max(1, len(memory) // SAMPLES)]:
        print(f"{seconds:8.0f}{driver:11.0f}{actors:11.0f}{number:8d}{written:7d}")
    counts = Counter(image for part in done(stream) for image in images_of(part))
    print(f"{len(counts)} of {arguments.count} images are in parts, {sum(n > 1 for n in counts.values())} in several")
    tables = [pyarrow.parquet.read_table(folder).sort_by("image_id") for folder in (one, stream)]
    print(f"the detections of the stream {'equal' if tables[0].equals(tables[1]) else 'DIFFER FROM'} one process's")
    own = [part for part in done(stream) if part not in kept]
    print(f"images a second: one process {rate(done(one)):.2f}, stream {rate(own):.2f}")


def copied(images: Path, folder: Path, count: int) -> Path:
    """A folder with `count` images under new names."""
    files = sorted(path for path in images.iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    folder.mkdir(parents=True)
    for number in range(count):
        file = files[number % len(files)]
        shutil.copyfile(file, folder / f"{number:06}{file.suffix}")
    return folder


def watched(
    cluster: Cluster, words: list[str], out: Path, *, until: int | None = None
) -> list[tuple[float, float, float, int, int]]:
    """Run the command to its end, or kill it at a number of parts.

    Returns seconds, MB of the driver, MB of all actors, their number and the number of parts, once a second.
    """
    process = subprocess.Popen(words)
    begun = time.monotonic()
    samples: list[tuple[float, float, float, int, int]] = []
    while process.poll() is None:
        if until is not None and len(done(out)) >= until:
            process.send_signal(signal.SIGKILL)
            process.wait()
            return samples
        actors = [resident(pid) for pid in actor_processes(cluster)]
        sample = (resident(process.pid), sum(actors), len(actors), len(done(out)))
        samples.append((time.monotonic() - begun, *sample))
        time.sleep(1)
    if process.returncode:
        raise SystemExit(f"the command ended with status {process.returncode}")
    return samples


def resident(pid: int) -> float:
    """The resident memory of a process in MB; 0 for one that has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS")), 0.0)


def actor_processes(cluster: Cluster) -> list[int]:
    """The processes of Ray Data's actors: children of the nodes' own processes."""
    raylets = {one.process.pid for node in cluster.list_all_nodes() for one in node.all_processes["raylet"]}
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = re.search(r"^PPid:\t(\d+)$", (folder / "status").read_text(), re.M)
            if parent and int(parent[1]) in raylets and b"ray::MapWorker" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:  # it has ended
            continue
    return found


def done(out: Path) -> list[Path]:
    """The parts of a folder."""
    return sorted(out.glob("part-*.parquet"))


def images_of(part: Path) -> list[str]:
    """The ids of the images in a part."""
    footer: list[str] = json.loads(pyarrow.parquet.read_metadata(part).metadata[b"detpipe"])["images"]
    return footer


def rate(parts: list[Path]) -> float:
    """Images a second between the first part and the last one; 0 with less than two parts."""
    times = [part.stat().st_mtime for part in parts]
    return sum(len(images_of(part)) for part in parts[1:]) / (times[-1] - times[0]) if len(parts) > 1 else 0.0


if __name__ == "__main__":
    main()
