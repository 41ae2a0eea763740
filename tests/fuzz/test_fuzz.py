"""A short fuzz run with fixed seeds, and the files that earlier runs have found."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from detpipe.storage.reader_process import ReaderProcess
from tests.fuzz.fuzzing import CORPUS, Fuzzer, fuzz, keep
from tests.fuzz.mutations import KINDS, Mutation, mutated
from tests.fuzz.readers import READERS

EXAMPLES = 40


@pytest.fixture(scope="module")
def process() -> Iterator[ReaderProcess]:
    with ReaderProcess() as one:
        yield one


@pytest.mark.parametrize("name", READERS)
def test_valid_files_are_read(name: str, tmp_path: Path) -> None:
    for data in READERS[name].make():
        assert len(data) < 1 << 20
        path = READERS[name].new_path(tmp_path)
        path.write_bytes(data)
        READERS[name].read(path)


@pytest.mark.parametrize("name", READERS)
def test_damaged_files_are_read_or_refused(name: str, tmp_path: Path, process: ReaderProcess) -> None:
    fuzzer = Fuzzer(name, tmp_path, process)
    fuzz(name, fuzzer, number=0, examples=EXAMPLES, seeds=READERS[name].make(), corpus=None)
    assert fuzzer.outcomes.counts.total() >= EXAMPLES
    assert fuzzer.outcomes.findings == {}


@pytest.mark.parametrize("file", sorted(CORPUS.glob("*/*")), ids=lambda file: f"{file.parent.name}/{file.name}")
def test_what_was_found_once_is_right_now(file: Path, tmp_path: Path, process: ReaderProcess) -> None:
    assert file.stat().st_size < 10_000
    assert Fuzzer(file.parent.name, tmp_path, process).fault(file.read_bytes()) is None


def test_a_finding_is_kept_once_with_its_bytes(tmp_path: Path, process: ReaderProcess) -> None:
    fuzzer = Fuzzer("image_list", tmp_path, process)
    for data in (b"one", b"two"):
        keep("image_list", data, "a: expected b, got a crash", fuzzer.outcomes, tmp_path / "corpus")
    (kept,) = (tmp_path / "corpus" / "image_list").iterdir()
    assert kept.read_bytes() == b"one"
    assert list(fuzzer.outcomes.findings) == [kept.name]


def test_the_mutations_change_and_end() -> None:
    data = bytes(range(100))
    for kind in KINDS:
        changed = mutated(data, [Mutation(kind, 20_000, 40_000, 70)], [data[::-1]])
        assert changed != data
        assert len(changed) < 200_000
        mutated(b"", [Mutation(kind, 5, 9, 3)], [b""])
