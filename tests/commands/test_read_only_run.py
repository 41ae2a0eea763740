"""A run folder that can't be written is read by all that only reads, and nothing in it changes."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from detpipe import Detector
from tests import drawn
from tests.command_line import detpipe


def state(folder: Path) -> dict[str, tuple[int, bytes | None]]:
    """The time of change of every entry, and the bytes of every file."""
    entries = [folder, *sorted(folder.rglob("*"))]
    return {str(one): (one.stat().st_mtime_ns, one.read_bytes() if one.is_file() else None) for one in entries}


@pytest.fixture(scope="module")
def read_only(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of the finished run without the right to write. root may write all the same: the tests compare `state`."""
    folder = drawn.copy(finished_run, tmp_path_factory.mktemp("read_only") / "run")
    everything = [folder, *folder.rglob("*")]
    for one in everything:
        one.chmod(0o555 if one.is_dir() else 0o444)
    yield folder
    for one in everything:
        one.chmod(stat.S_IRWXU)


@pytest.mark.parametrize(
    "command",
    [
        ["proposals", "info", "path=RUN"],
        ["proposals", "verify", "path=RUN"],
        ["inspect", "weights", "path=RUN/classifier/weights.safetensors", "run_dir=OUT"],
        ["inspect", "db", "db=RUN/crops.lmdb", "out=OUT/page"],
        pytest.param(["export", "run_dir=RUN", "out=OUT/export"], marks=pytest.mark.slow),
    ],
    ids=" ".join,
)
def test_commands_that_read(command: list[str], read_only: Path, tmp_path: Path) -> None:
    before = state(read_only)
    words = [word.replace("RUN", str(read_only)).replace("OUT", str(tmp_path)) for word in command]
    outcome = detpipe(*words)
    assert outcome.status == 0, outcome.err
    assert state(read_only) == before


def test_the_detector(read_only: Path, voc_root: Path) -> None:
    before = state(read_only)
    found = Detector.from_run(read_only, device="cpu").predict(voc_root / "JPEGImages" / f"{drawn.TEST[0]}.jpg")
    assert len(found) > 0
    assert state(read_only) == before
