"""`detpipe propose` as a whole command with one process and with two: images a second, and their ratio.

    python benchmarks/propose_rate.py FOLDER [--set coco_train] [--runs 3] [key=value ...]

FOLDER/SET holds instances.json and images/. Decoding, proposing, writing and the recall are counted, as the manifest
has it; the wall time of the command, with Python's start and imports, stands beside it. Medians of runs in turn.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--set", default="coco_train")
    parser.add_argument("--runs", type=int, default=3)
    arguments, overrides = parser.parse_known_args()
    stage: dict[int, list[float]] = {1: [], 2: []}
    wall: dict[int, list[float]] = {1: [], 2: []}
    images = 0
    for _ in range(arguments.runs):
        for workers in stage:
            images, seconds, whole = run(arguments.folder / arguments.set, workers, overrides)
            stage[workers].append(seconds)
            wall[workers].append(whole)
    print(f"{arguments.set}, {images} images")
    for workers in stage:
        seconds, whole = statistics.median(stage[workers]), statistics.median(wall[workers])
        print(f"workers={workers}: {images / seconds:6.1f} images/s ({seconds:.1f} s; {whole:.1f} s of wall time)")
    print(f"ratio {statistics.median(stage[1]) / statistics.median(stage[2]):.2f}")


def run(folder: Path, workers: int, overrides: list[str]) -> tuple[int, float, float]:
    """Images, seconds of the stage, seconds of the command."""
    with tempfile.TemporaryDirectory() as run_dir:
        data = ["dataset=coco", f"dataset.train_json={folder / 'instances.json'}"]
        data += [f"dataset.train_images={folder / 'images'}", f"workers={workers}", f"run_dir={run_dir}"]
        begun = time.perf_counter()
        command = [sys.executable, "-m", "detpipe", "propose", *data, *overrides]
        subprocess.run(command, check=True, capture_output=True)
        whole = time.perf_counter() - begun
        manifest = json.loads((Path(run_dir) / "proposals.lmdb" / "manifest.json").read_text())
    return int(manifest["summary"]["images"]), float(manifest["seconds"]), whole


if __name__ == "__main__":
    main()
