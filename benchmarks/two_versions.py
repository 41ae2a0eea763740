"""The cost of reading files in two versions of detpipe: the same commands by two checkouts in turn.

    python benchmarks/two_versions.py OTHER FOLDER [--set coco_train] [--runs 5] [--rows check detect]

OTHER is a checkout of another version (`git worktree add OTHER COMMIT`). FOLDER/SET holds instances.json and images/.
A row is the median processor time of a command, or of a loop over a database, in this version and in OTHER, and the
median of the ratios of neighbouring runs. Start and imports are measured apart, as `--cfg job`.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

READ = """
import sys, time
from pathlib import Path
from detpipe.classify.crops.database import CropsReader
from detpipe.proposals.proposals_db import ProposalsReader, parse_proposals
run = Path(sys.argv[1])
with ProposalsReader(run / "proposals.lmdb") as warm:
    list(warm.records())
def seconds(read):
    begun = time.process_time()
    read()
    return time.process_time() - begun
def proposals():
    for _ in range(20):
        with ProposalsReader(run / "proposals.lmdb") as reader:
            for key, record in reader.records():
                parse_proposals(record, key)
def crops():
    for _ in range(3):
        reader = CropsReader(run / "crops.lmdb")
        for index in range(0, len(reader.labels), 64):
            reader.read(range(index, min(index + 64, len(reader.labels))))
        reader.close()
print(seconds(proposals if sys.argv[2] == "proposals" else crops))
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--set", default="coco_train")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--rows", nargs="*", help="only these rows")
    arguments = parser.parse_args()
    this = Path(__file__).resolve().parents[1]
    checkouts = {"this": this, "other": arguments.other.resolve()}
    data = arguments.folder / arguments.set
    with tempfile.TemporaryDirectory() as scratch:
        runs = {name: Path(scratch) / name for name in checkouts}
        for name, checkout in checkouts.items():
            make_run(checkout, data, runs[name])
        rows: dict[str, Callable[[str], float]] = {
            "start (`run --cfg job`)": lambda name: command(checkouts[name], "run", "--cfg", "job"),
            "check": lambda name: check(checkouts[name], data),
            "check full=false": lambda name: check(checkouts[name], data, "full=false"),
            "propose": lambda name: propose(checkouts[name], data),
            "detect": lambda name: detect(checkouts[name], data, runs[name]),
            "detect source=": lambda name: detect(checkouts[name], data, runs[name], f"source={data / 'images'}"),
            "read proposals": lambda name: read(checkouts[name], runs[name], "proposals"),
            "read crops": lambda name: read(checkouts[name], runs[name], "crops"),
        }
        print(f"{'processor time':<24} {'this':>9} {'other':>9}   this / other")
        for row, measure in rows.items():
            if arguments.rows and row not in arguments.rows:
                continue
            seconds: dict[str, list[float]] = {name: [] for name in checkouts}
            for turn in range(arguments.runs):
                for name in sorted(checkouts, reverse=turn % 2 == 1):
                    seconds[name].append(measure(name))
            ratios = [mine / theirs for mine, theirs in zip(seconds["this"], seconds["other"], strict=True)]
            this_median, other_median = (statistics.median(seconds[name]) for name in ("this", "other"))
            print(
                f"{row:<24} {this_median:>7.2f} s {other_median:>7.2f} s   {statistics.median(ratios):.3f} "
                f"({min(ratios):.3f} to {max(ratios):.3f})",
                flush=True,
            )


def command(checkout: Path, *words: str) -> float:
    """Processor time of a detpipe command of a checkout, with one thread."""
    return timed([sys.executable, "-m", "detpipe", *words], checkout)


def timed(words: list[str], checkout: Path) -> float:
    """Processor time of a program that imports detpipe from a checkout."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(words, env=environment(checkout), cwd=tempfile.gettempdir(), check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def environment(checkout: Path) -> dict[str, str]:
    """The environment in which a program imports detpipe from a checkout, and uses one thread."""
    return {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}


def of_data(data: Path) -> list[str]:
    """The settings of a COCO set for training and testing."""
    return ["dataset=coco", *(f"dataset.{split}_json={data / 'instances.json'}" for split in ("train", "test")),
            *(f"dataset.{split}_images={data / 'images'}" for split in ("train", "test"))]  # fmt: skip


def make_run(checkout: Path, data: Path, run_dir: Path) -> None:
    """A run with proposals, crops and a classifier that has hardly learned."""
    crops = ["crops.size=64", "sampling.regions_per_image=32"]
    for stage, more in (("propose", []), ("crop", crops), ("train-cls", ["solver.max_iter=2"])):
        command(checkout, stage, *of_data(data), *more, f"run_dir={run_dir}")


def check(checkout: Path, data: Path, *more: str) -> float:
    """Processor time of a check."""
    with tempfile.TemporaryDirectory() as folder:
        return command(checkout, "check", *of_data(data), "fail_on=never", f"run_dir={folder}/run", "workers=1", *more)


def propose(checkout: Path, data: Path) -> float:
    """Processor time of proposals for all images."""
    with tempfile.TemporaryDirectory() as folder:
        return command(checkout, "propose", *of_data(data), f"run_dir={folder}/run", "workers=1")


def detect(checkout: Path, data: Path, run_dir: Path, *more: str) -> float:
    """Processor time of the detection in all images, with few proposals."""
    words = ["detect.max_proposals=20", "device=cpu", "workers=1", "overwrite=true"]
    of = of_data(data) if not more else []
    return command(checkout, "detect", *of, *words, *more, f"run_dir={run_dir}")


def read(checkout: Path, run_dir: Path, database: str) -> float:
    """Processor time of reading a database several times, as it says itself."""
    words = [sys.executable, "-c", READ, str(run_dir), database]
    done = subprocess.run(words, env=environment(checkout), cwd=tempfile.gettempdir(), check=True, capture_output=True)
    return float(done.stdout)


if __name__ == "__main__":
    main()
