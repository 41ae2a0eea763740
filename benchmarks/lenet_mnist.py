"""LeNet from nothing on MNIST's test images, by the commands: the first 8,000 teach, the other 2,000 test.

    python benchmarks/lenet_mnist.py IMAGES LABELS [key=value ...]

IMAGES, LABELS: t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte, as they are or as .gz. The solver is the one that
Caffe published, biases at twice the rate. Prints the accuracy and the seconds of training and of all commands.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SOLVER = """\
test_iter: 100
test_interval: 500
base_lr: 0.01
momentum: 0.9
weight_decay: 0.0005
lr_policy: "inv"
gamma: 0.0001
power: 0.75
display: 100
max_iter: 10000
snapshot: 5000
"""


def main() -> None:
    """Run the four commands and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("labels", type=Path)
    arguments, overrides = parser.parse_known_args()
    idx = [f"idx_images={arguments.images.resolve()}", f"idx_labels={arguments.labels.resolve()}"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        solver, run_dir = folder / "lenet_solver.prototxt", f"run_dir={folder / 'run'}"
        solver.write_text(SOLVER)
        begun = time.perf_counter()
        detpipe("make-db", *idx, "count=8000", f"out={folder / 'train'}")
        detpipe("make-db", *idx, "first=8000", f"out={folder / 'val'}")
        databases = [f"db.train={folder / 'train'}", f"db.val={folder / 'val'}"]
        words = ["experiment=lenet", f"solver.prototxt={solver}", "+solver.lr_mult={head.*.bias:2}", *overrides]
        detpipe("train-cls", *databases, *words, run_dir)
        detpipe("eval", f"db={folder / 'val'}", run_dir)
        seconds = time.perf_counter() - begun
        top1 = json.loads((folder / "run/metrics.json").read_text())["top1"]
        made = json.loads((folder / "run/classifier/manifest.json").read_text())
    iterations, waiting = made["summary"]["iterations"], made["summary"]["waiting"]
    print(
        f"top-1 {top1:.4f}; {iterations:.0f} iterations in {made['seconds']:.0f} s, {waiting:.1%} of it waiting; "
        f"all commands {seconds:.0f} s"
    )


def detpipe(*words: str) -> None:
    """One command."""
    subprocess.run([sys.executable, "-m", "detpipe", *words], check=True, capture_output=True)


if __name__ == "__main__":
    main()
