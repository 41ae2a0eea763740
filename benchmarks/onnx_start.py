"""Time to the first detection, and peak memory, of Detector and OnnxDetector, each in new processes.

python benchmarks/onnx_start.py RUN EXPORT IMAGE [--repeat 5] [--threads 1]

RUN is the folder of a finished run, EXPORT the folder that `detpipe export` wrote from it, IMAGE any photo. The
detectors take turns; the table has medians, the fastest and the slowest. The files are read once before, so that no
detector reads them from the disk.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

PROGRAM = """
import json, resource, sys, time
kind, folder, image, threads = sys.argv[1:]
if kind == "Detector":
    import torch
    torch.set_num_threads(int(threads))
    from detpipe import Detector
    detector = Detector.from_run(folder, device="cpu", precision="float32")
else:
    from detpipe import OnnxDetector
    detector = OnnxDetector(folder, runtime=kind, threads=int(threads))
found = detector(image)
print("first", flush=True)
begun = time.perf_counter()
for _ in range(3):
    detector(image)
later = (time.perf_counter() - begun) / 3
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
loaded = sorted({"torch", "numba"} & sys.modules.keys())
print(json.dumps({"later": later, "megabytes": peak, "loaded": loaded, "found": len(found)}))
"""


def measured(kind: str, folder: Path, image: Path, threads: int) -> dict[str, float]:
    """One new process: seconds until its first detection and for a later one, and its peak memory in MB."""
    begun = time.perf_counter()
    arguments = [sys.executable, "-c", PROGRAM, kind, str(folder), str(image), str(threads)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "first\n"
        first = time.perf_counter() - begun
        rest = json.loads(process.stdout.readline())
    assert kind == "Detector" or not rest["loaded"], rest
    return {"first": first, "later": rest["later"], "megabytes": rest["megabytes"]}


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("run", "export", "image"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    kinds = {"Detector": given.run, "onnxruntime": given.export, "openvino": given.export}
    found: dict[str, list[dict[str, float]]] = {kind: [] for kind in kinds}
    for turn in range(given.repeat + 1):
        for kind, folder in kinds.items():
            one = measured(kind, folder, given.image, given.threads)
            if turn:  # the first turn reads the files
                found[kind].append(one)
    print("| detector | first detection s | a later one s | peak memory MB |")
    print("|---|---|---|---|")
    for kind, rows in found.items():
        cells = []
        for name, digits in (("first", 2), ("later", 3), ("megabytes", 0)):
            values = [one[name] for one in rows]
            ends = f"{min(values):.{digits}f} to {max(values):.{digits}f}"
            cells.append(f"{statistics.median(values):.{digits}f} ({ends})")
        print(f"| {kind} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
