"""Time and memory of the commands for growing numbers of images: do they grow faster than the data set?

    python benchmarks/growth.py OUT [--sizes 1000 10000 100000] [--commands check propose make-db detect eval]

The images are generated, 64x48 pixels with one coloured rectangle, in folders of a thousand; the annotations are one
COCO file. The test images of all sizes are scored by the same small joint network. `eval` measures ten boxes for each
image. Printed for each command: seconds and CPU seconds for a thousand images, the peak memory of its process without
the pages of files that it has mapped (the system takes these back when it needs them; sampled ten times a second), and
both relative to the first size. A command that has finished is not run again; delete OUT to start again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np

HEIGHT, WIDTH, CLASSES, FOUND = 48, 64, ("red", "green", "blue"), 10
COMMANDS = ("check", "propose", "make-db", "detect", "eval")
SMALL = ["workers=0", "device=cpu"]


@dataclass(frozen=True)
class Cost:
    """What a command took. megabytes: peak memory without mapped files."""

    seconds: float
    cpu_seconds: float
    megabytes: float


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--sizes", nargs="+", type=int, default=[1000, 10_000])
    parser.add_argument("--commands", nargs="+", choices=COMMANDS, default=list(COMMANDS))
    arguments = parser.parse_args()
    trained = train(arguments.out)
    print("command    images   s/1000  x first  CPU s/1000  x first     MB  x first")
    for name in arguments.commands:
        first: list[float] = []
        for size in arguments.sizes:
            folder = draw(arguments.out / f"images_{size}", size)
            cost = measured(name, folder, arguments.out / f"run_{size}", trained)
            row = [cost.seconds / size * 1000, cost.cpu_seconds / size * 1000, cost.megabytes]
            first = first or row
            seconds, cpu, memory = (f"{one:8.2f} {one / of:8.2f}" for one, of in zip(row, first, strict=True))
            print(f"{name:<8} {size:8,} {seconds}   {cpu}  {memory}", flush=True)


def draw(folder: Path, count: int, *, seed: int = 1) -> Path:
    """Write images, instances.json, a list for make-db, and detections.json, once."""
    if (folder / "done").exists():
        return folder
    generator = np.random.default_rng((seed, count))
    images, annotations, found, lines = [], [], [], []
    for index in range(count):
        name = f"{index // 1000:04d}/{index:07d}.jpg"
        label = int(generator.integers(len(CLASSES)))
        x, y = int(generator.integers(0, WIDTH - 30)), int(generator.integers(0, HEIGHT - 24))
        w, h = int(generator.integers(14, 30)), int(generator.integers(12, 24))
        pixels = generator.integers(0, 60, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        pixels[y : y + h, x : x + w, 2 - label] = 220
        path = folder / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), pixels)
        images.append({"id": index + 1, "file_name": name, "height": HEIGHT, "width": WIDTH})
        annotations.append(
            {"id": index + 1, "image_id": index + 1, "category_id": label + 1, "bbox": [x, y, w, h], "area": w * h}
        )
        lines.append(f"{name} {label}\n")
        for rank in range(FOUND):
            box = [x + rank, y, max(w - rank, 1), h] if rank < 3 else [rank, 2 * rank, 20, 20]
            scored = (label + (rank > 4)) % len(CLASSES) + 1
            score = float(generator.uniform(0.01, 1))
            found.append({"image_id": index + 1, "category_id": scored, "bbox": box, "score": score})
    categories = [{"id": number, "name": name} for number, name in enumerate(CLASSES, start=1)]
    coco = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "instances.json").write_text(json.dumps(coco))
    (folder / "detections.json").write_text(json.dumps(found))
    (folder / "list.txt").write_text("".join(lines))
    (folder / "done").touch()
    return folder


def train(out: Path) -> Path:
    """The run folder of a small joint network, trained for 60 iterations on 200 images."""
    folder, run_dir = draw(out / "training", 200, seed=0), out / "trained"
    head = ["head=multibox_fast_rcnn", "head.scales=[64]", "head.max_side=96"]
    solver = ["solver.max_iter=60", "solver.batch_size=64", "solver.test_interval=0"]
    command("train-cls", *coco(folder, "train"), f"run_dir={run_dir}", *head, *solver, *SMALL)
    return run_dir


def coco(folder: Path, split: str) -> list[str]:
    """The settings of the data set as one split."""
    named = {"json": folder / "instances.json", "images": folder / "images"}
    return ["dataset=coco", *(f"dataset.{split}_{name}={path}" for name, path in named.items())]


def measured(name: str, folder: Path, run_dir: Path, trained: Path) -> Cost:
    """The cost of one command on a data set; it is kept, so that a finished command is not run again."""
    kept = run_dir / f"cost_{name}.json"
    if not kept.exists():
        words = {
            "check": [*coco(folder, "test")],
            "propose": [*coco(folder, "test"), "proposals.max_side=48", "proposals.max_proposals=100"],
            "make-db": [f"list={folder / 'list.txt'}", f"root={folder / 'images'}", f"out={run_dir / 'db'}"],
            "detect": [f"source={folder / 'images'}", f"out={run_dir / 'found.parquet'}"],
            "eval": [*coco(folder, "test"), f"detections={folder / 'detections.json'}"],
        }[name]
        if name != "make-db":
            words.append(f"run_dir={trained if name == 'detect' else run_dir}")
        run_dir.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(asdict(command(name, *words, "workers=0"))))
    return Cost(**json.loads(kept.read_text()))


def command(*words: str) -> Cost:
    """Run a command of detpipe in a process of its own. Raises CalledProcessError if it fails."""
    begun = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "detpipe", *words], stdout=subprocess.DEVNULL)
    peak = 0.0
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            break
        peak = max(peak, anonymous_megabytes(process.pid))
        time.sleep(0.1)
    if status:
        raise subprocess.CalledProcessError(os.waitstatus_to_exitcode(status), words)
    seconds = time.perf_counter() - begun
    return Cost(seconds, usage.ru_utime + usage.ru_stime, peak)


def anonymous_megabytes(pid: int) -> float:
    """The resident memory of a process without the pages of files; 0 if it has ended."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    kilobytes = [int(line.split()[1]) for line in lines if line.startswith("RssAnon:")]
    return sum(kilobytes) / 1024


if __name__ == "__main__":
    main()
