"""Peak memory of `detpipe propose` and `detpipe detect` on 100 and on 1000 images, and the ratio.

    python benchmarks/memory.py [--few 100] [--many 1000]

The images are drawn, 160x120, and the settings small: what is asked is whether memory grows with their number.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np

from detpipe.datasets.voc_xml import write_voc_annotation
from detpipe.structures import GroundTruth

SMALL = [
    "crops.size=32",
    "solver.max_iter=2",
    "solver.batch_size=8",
    "backbone.weights=none",
    "proposals.max_proposals=50",
    "sampling.regions_per_image=4",
    "workers=0",
]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--few", type=int, default=100)
    parser.add_argument("--many", type=int, default=1000)
    arguments = parser.parse_args()
    peaks: dict[str, list[float]] = {"propose": [], "detect": []}
    for count in (arguments.few, arguments.many):
        with tempfile.TemporaryDirectory() as scratch:
            draw(Path(scratch) / "voc", count)
            for command in ("propose", "crop", "train-cls", "detect"):
                peak = run(command, Path(scratch))
                if command in peaks:
                    peaks[command].append(peak)
    for command, (few, many) in peaks.items():
        numbers = f"{few:6.0f} MB at {arguments.few} images, {many:6.0f} MB at {arguments.many}"
        print(f"{command:<8} {numbers}: x{many / few:.2f}")


def draw(folder: Path, count: int) -> None:
    """A VOC folder of `count` test images and 4 training images, each with one square."""
    names = [f"{index:05d}" for index in range(count + 4)]
    for sub in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / sub).mkdir(parents=True)
    generator = np.random.default_rng(0)
    for name in names:
        image = generator.integers(0, 80, (120, 160, 3), np.uint8)
        x, y = (int(value) for value in generator.integers(5, 60, 2))
        image[y : y + 50, x : x + 50] = generator.integers(120, 255, 3)
        cv2.imwrite(str(folder / "JPEGImages" / f"{name}.jpg"), image)
        truth = GroundTruth.from_boxes([[x, y, x + 50, y + 50]], [1])
        write_voc_annotation(folder / "Annotations" / f"{name}.xml", f"{name}.jpg", (120, 160), truth, ["square"])
    (folder / "ImageSets/Main/trainval.txt").write_text("\n".join(names[:4]) + "\n")
    (folder / "ImageSets/Main/test.txt").write_text("\n".join(names[4:]) + "\n")


def run(command: str, scratch: Path) -> float:
    """Run a command; returns its peak resident memory in MB."""
    settings = [] if command in ("detect",) else SMALL
    keys = {
        "propose": ("proposals.", "workers"),
        "crop": ("crops.", "sampling.", "workers"),
        "train-cls": ("solver.", "backbone.", "workers"),
    }.get(command, ())
    chosen = [setting for setting in settings if setting.startswith(keys)]
    line = [sys.executable, "-m", "detpipe", command, "dataset=voc", f"dataset.root={scratch / 'voc'}"]
    process = subprocess.Popen(
        [*line, f"run_dir={scratch / 'run'}", *chosen], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{command} failed with status {status}")
    return usage.ru_maxrss / 1024


if __name__ == "__main__":
    main()
