"""The long fuzz run: `python -m tests.fuzz --minutes 60 --corpus tests/fuzz/corpus [READER ...]`.

The readers take turns until the time is over. A file on which one crashes, hangs, takes too much memory, or raises
another error than it may is written to CORPUS/READER/; later runs, and the tests, read it again. The exit status is 1
if there was one. Where atheris is installed, it has half of the time, guided by the code that a file reaches.
"""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from detpipe.storage.reader_process import ReaderProcess
from tests.fuzz.fuzzing import CORPUS, Fuzzer, fuzz, seeds_of
from tests.fuzz.readers import READERS

TURN = 25
"""Files for each reader before the next one has its turn."""


def main() -> int:
    options = parse()
    end = time.monotonic() + options.minutes * 60
    if importlib.util.find_spec("atheris") is not None:
        seconds = options.minutes * 30 / len(options.readers)
        for name in options.readers:
            guided = [sys.executable, "-m", "tests.fuzz.coverage_guided", name, str(seconds), str(options.corpus)]
            subprocess.run(guided, check=False)
    with tempfile.TemporaryDirectory() as folder, ReaderProcess() as process:
        fuzzers = {name: Fuzzer(name, Path(folder), process) for name in options.readers}
        seeds = {name: seeds_of(name, options.corpus) for name in options.readers}
        number = options.seed
        while time.monotonic() < end:
            for name, fuzzer in fuzzers.items():
                fuzz(name, fuzzer, number=number, examples=TURN, seeds=seeds[name], corpus=options.corpus)
                if time.monotonic() > end:
                    break
            number += 1
    for name, fuzzer in fuzzers.items():
        counts = ", ".join(f"{count} {outcome}" for outcome, count in sorted(fuzzer.outcomes.counts.items()))
        say(f"{name}: {fuzzer.outcomes.counts.total()} files: {counts}; slowest {fuzzer.outcomes.slowest:.1f} s")
        for file, fault in fuzzer.outcomes.findings.items():
            say(f"    FOUND {options.corpus / name / file}: {fault}")
    return int(any(fuzzer.outcomes.findings for fuzzer in fuzzers.values()))


def say(line: str) -> None:
    sys.stdout.write(line + "\n")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the first turn")
    parser.add_argument("--corpus", type=Path, default=CORPUS)
    parser.add_argument("readers", nargs="*", metavar="READER", help=f"all, or some of {', '.join(READERS)}")
    options = parser.parse_args()
    options.readers = options.readers or list(READERS)
    unknown = set(options.readers) - READERS.keys()
    if unknown:
        parser.error(f"expected readers of {', '.join(READERS)}, got {', '.join(sorted(unknown))}")
    return options


if __name__ == "__main__":
    sys.exit(main())
