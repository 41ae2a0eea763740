"""Reads files in a new process: `python -m tests.storage.read_measured MODULE:FUNCTION MB SECONDS FILE ...`.

MB and SECONDS replace the limits for the smallest file. Prints JSON: for each file the error or null, and the seconds;
then the peaks of memory of this process and of those that it started, in bytes.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from detpipe.class_path import load_object
from detpipe.storage import reader_process


def measure(function: str, megabytes: int, seconds: float, files: list[Path]) -> dict[str, Any]:
    """What `main` prints."""
    command = [sys.executable, "-m", "tests.storage.read_measured", function, str(megabytes), str(seconds)]
    done = subprocess.run([*command, *map(str, files)], capture_output=True, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def main(function: str, megabytes: str, seconds: str, *files: str) -> None:
    reader_process.BASE_MEMORY, reader_process.BASE_SECONDS = int(megabytes) << 20, float(seconds)
    read, outcomes = load_object(function), {}
    for file in files:
        start = time.monotonic()
        try:
            read(Path(file))
            error = None
        except (ValueError, OSError) as fault:
            error = str(fault)
        outcomes[Path(file).name] = (error, time.monotonic() - start)
    reader_process._shared(os.getpid()).close()
    # getrusage's own peak would include that of the process that started this one.
    status = Path("/proc/self/status").read_text(encoding="ascii").split()
    own = int(status[status.index("VmHWM:") + 1]) * 1024
    reader = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    json.dump({"outcomes": outcomes, "own_peak": own, "reader_peak": reader}, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
