"""CPU seconds until a command answers: `python benchmarks/command_start.py`."""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys

COMMANDS = ("--help", "proposals info --help", "eval --cfg job", "run --cfg job")


def cpu_seconds(command: str) -> float:
    """User and system time of one call, child processes included."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "detpipe", *command.split()], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def main() -> None:
    """Print the median for each command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    for command in COMMANDS:
        cpu_seconds(command)  # the first call may compile files
        print(f"detpipe {command:<24} {statistics.median(cpu_seconds(command) for _ in range(repeats)):.2f} s")


if __name__ == "__main__":
    main()
