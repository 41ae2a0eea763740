"""Files that are there whole or not at all."""

from __future__ import annotations

import json
import os
import resource
import signal
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from detpipe.storage.atomic import replaced, write_bytes, write_json, write_text


def test_round_trips(tmp_path: Path) -> None:
    write_bytes(tmp_path / "new" / "folder" / "a.bin", b"")
    write_text(tmp_path / "a.txt", "Grüße\n")
    write_json(tmp_path / "a.json", {"name": "Käfer", "boxes": []})
    assert (tmp_path / "new" / "folder" / "a.bin").read_bytes() == b""
    assert (tmp_path / "a.txt").read_bytes() == "Grüße\n".encode()
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"name": "Käfer", "boxes": []}


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failure_leaves_what_stood_there_and_nothing_else(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def fail() -> None:
        with replaced(path) as scratch:
            scratch.write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_nobody_sees_half_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with replaced(path) as scratch:
        scratch.write_text("half")
        assert not path.exists()
        assert scratch.parent == path.parent  # a rename across file systems would be a copy
    assert path.read_text() == "half"


def test_what_a_killed_process_left_is_deleted(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with replaced(path) as scratch:
        name = scratch.name
    (tmp_path / name).write_text("half")
    write_text(path, "whole")
    assert path.read_text() == "whole"
    assert list(tmp_path.iterdir()) == [path]


def test_two_writers_of_one_file(tmp_path: Path) -> None:
    """Each has a file of its own; the later one stands. A link in place of such a file is not followed."""
    path, other = tmp_path / "a.txt", tmp_path / "other"
    with replaced(path) as first:
        with replaced(path) as second:
            second.write_text("second")
        first.write_text("first")
        assert path.read_text() == "second"
    assert path.read_text() == "first"
    other.write_text("somebody's")
    first.symlink_to(other)
    write_text(path, "third")
    assert other.read_text() == "somebody's"
    assert path.read_text() == "third"


def test_the_file_has_the_rights_of_any_new_file(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "")
    (tmp_path / "b").write_text("")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == stat.S_IMODE((tmp_path / "b").stat().st_mode)


def test_nan_is_no_json_and_leaves_the_old_file(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", [1])
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", [float("nan")])
    assert json.loads((tmp_path / "a.json").read_text()) == [1]


def test_a_file_name_that_is_no_utf8_comes_back_as_it_was(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.jpg")  # Latin-1, as old archives have it
    write_json(tmp_path / "a.json", {"bad": [name]})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"bad": [name]}


def test_a_name_that_is_no_utf8_can_be_written(tmp_path: Path) -> None:
    write_text(tmp_path / "a.html", "é caf\udce9")
    assert (tmp_path / "a.html").read_text(encoding="utf-8") == "é caf\\udce9"


def test_the_umask_of_the_process_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Changing it, even for a moment, gives wider permissions to files that other threads write."""
    before = os.umask(0o027)
    try:
        with monkeypatch.context() as patch:
            patch.delattr(os, "umask")
            threads = [threading.Thread(target=write_text, args=(tmp_path / str(n), "")) for n in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert [stat.S_IMODE((tmp_path / str(n)).stat().st_mode) for n in range(4)] == [0o640] * 4
    finally:
        os.umask(before)


def test_a_link_is_replaced_and_its_target_stays(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("mine")
    (tmp_path / "a.txt").symlink_to("target")
    write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "target").read_text() == "mine"
    assert (tmp_path / "a.txt").read_text() == "new"


@pytest.mark.parametrize(
    "write",
    [
        lambda path: write_bytes(path, bytes(100_000)),
        lambda path: write_text(path, "x" * 100_000),
        lambda path: write_json(path, ["x" * 100_000]),
    ],
)
def test_on_a_full_disk_the_old_file_stays_and_the_error_names_it(
    tmp_path: Path, write: Callable[[Path], None]
) -> None:
    path = tmp_path / "a.json"
    write_text(path, "old")
    # A limit on the size of files stands in for the end of the disk.
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 12, limits[1]))
    try:
        with pytest.raises(OSError, match=r"could not write the file.*free disk space") as caught:
            write(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert str(path) in str(caught.value)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
