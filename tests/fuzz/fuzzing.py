"""Reads damaged files in a process with limits of memory and time, and keeps those that end otherwise than allowed."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from detpipe.storage.input_file import InputFileError
from detpipe.storage.reader_process import Reader, ReaderProcess, UnreadableFileError
from tests.fuzz.mutations import MUTATIONS, Mutation, mutated
from tests.fuzz.readers import READERS, read_one

MEMORY = 1 << 30
SECONDS = 10
CORPUS = Path(__file__).parent / "corpus"


@dataclass
class Outcomes:
    """What one reader did. slowest: seconds on the clock. findings: file names in the corpus, with what happened."""

    counts: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    findings: dict[str, str] = field(default_factory=dict)


def seeds_of(name: str, corpus: Path = CORPUS) -> list[bytes]:
    """The valid files of a reader and what earlier runs have found."""
    found = [path.read_bytes() for path in sorted((corpus / name).glob("*"))] if (corpus / name).is_dir() else []
    return READERS[name].make() + found


class Fuzzer:
    """Reads files with one reader. folder: for the files that are read."""

    def __init__(self, name: str, folder: Path, process: ReaderProcess) -> None:
        self._reader, self._process = READERS[name], process
        self.path = self._reader.new_path(folder / name)
        self.outcomes = Outcomes()
        self._function: Reader = read_one
        if self._reader.uses_torch:
            from tests.fuzz.read_with_torch import read_one_with_torch

            self._function = read_one_with_torch

    def fault(self, data: bytes) -> str | None:
        """What is wrong with how the reader ends; None if nothing is."""
        self.path.write_bytes(data)
        start = time.monotonic()
        try:
            self._process.read(self._function, self.path, "a file", memory=MEMORY, seconds=SECONDS)
            outcome, fault = "read or refused", None
        except UnreadableFileError as error:
            outcome = error.outcome
            fault = None if self._reader.contained else str(error)
        except InputFileError:  # empty, or by chance an HTML page
            outcome, fault = "read or refused", None
        self.outcomes.counts[outcome] += 1
        self.outcomes.slowest = max(self.outcomes.slowest, time.monotonic() - start)
        return fault


def fuzz(name: str, fuzzer: Fuzzer, *, number: int, examples: int, seeds: Sequence[bytes], corpus: Path | None) -> None:
    """Read `examples` damaged files. number: the seed of the draws. corpus: keeps the files that are findings."""

    @seed(number)
    @settings(
        max_examples=examples,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.integers(0, len(seeds) - 1), MUTATIONS)
    def run(index: int, mutations: list[Mutation]) -> None:
        data = mutated(seeds[index], mutations, seeds)
        fault = fuzzer.fault(data)
        if fault is not None:
            keep(name, data, fault, fuzzer.outcomes, corpus)

    run()


def keep(name: str, data: bytes, fault: str, outcomes: Outcomes, corpus: Path | None) -> None:
    """Note a finding, once for each kind of fault, and write its file."""
    kind = fault.partition("got ")[2][:60]
    if kind in {seen.partition("got ")[2][:60] for seen in outcomes.findings.values()}:
        return
    file = hashlib.sha256(data).hexdigest()[:12]
    outcomes.findings[file] = fault
    if corpus is not None:
        (corpus / name).mkdir(parents=True, exist_ok=True)
        (corpus / name / file).write_bytes(data)
