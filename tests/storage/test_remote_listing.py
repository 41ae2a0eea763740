"""Listings of object storage: the same answers as a local folder gives, and how long they hold."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from detpipe.storage import remote_listing
from detpipe.storage.object_storage import StorageError
from detpipe.storage.remote_listing import is_listed, list_once, remote_exists, remote_files, remote_info
from detpipe.storage.stored_file import children, exists, is_existing_folder, is_file, walk
from tests.storage.object_storage import storage_in_memory

FILES = ("a.txt", "b/c/d.xml", "b/e.xml", "b-/f.xml", "b.g/h", "z/.hidden/i")
ROOT = Path("memory://bucket/top")


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    with storage_in_memory(tmp_path / "cache", monkeypatch) as files:
        for name in FILES:
            files.pipe_file(f"/bucket/top/{name}", name.encode())
        files.pipe_file("/bucket/topmost/other", b"x")
        yield files


@pytest.fixture
def local(tmp_path: Path) -> Path:
    for name in FILES:
        (tmp_path / "top" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "top" / name).write_text(name)
    return tmp_path / "top"


@pytest.mark.parametrize("is_known", [False, True])
def test_a_listing_answers_as_a_local_folder(memory: Any, local: Path, is_known: bool) -> None:
    if is_known:
        list_once(ROOT)
    for name in ("", "b", "b/c", "z"):
        own = [path.relative_to(ROOT) for path in children(ROOT / name)]
        assert own == [path.relative_to(local) for path in sorted((local / name).iterdir())]
    for name in (*FILES, "b", "b/c", "b/c/none", "none", "to"):
        questions = (exists(ROOT / name), is_file(ROOT / name), is_existing_folder(ROOT / name))
        assert questions == ((local / name).exists(), (local / name).is_file(), (local / name).is_dir()), name
    with pytest.raises(FileNotFoundError, match="memory://bucket/top/none"):
        children(ROOT / "none")


def test_walking(memory: Any, local: Path) -> None:
    for top in ("", "b", "none"):
        found = {path.relative_to(ROOT): (inner, files) for path, inner, files in walk(ROOT / top)}
        assert found == {
            Path(path).relative_to(local): (sorted(inner), sorted(files)) for path, inner, files in os.walk(local / top)
        }
    seen = []
    for _, inner, files in walk(ROOT):
        inner[:] = [name for name in inner if name == "b-"]
        seen += files
    assert seen == ["a.txt", "f.xml"]
    assert remote_files(ROOT) == sorted(ROOT / name for name in FILES)


def test_a_listing_is_made_again_when_it_is_old(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    list_once(ROOT)
    memory.pipe_file("/bucket/top/new", b"12")
    memory.rm_file("/bucket/top/a.txt")
    assert not remote_exists(ROOT / "new")
    assert is_listed(ROOT / "a.txt")
    monkeypatch.setattr(remote_listing.time, "monotonic", lambda: 1e12)
    assert remote_info(ROOT / "new").size == 2
    assert not is_listed(ROOT / "a.txt")


def test_an_empty_prefix_is_asked_for_again(memory: Any) -> None:
    assert remote_files(Path("memory://bucket/later")) == []
    assert not is_listed(Path("memory://bucket/later/x"))
    memory.pipe_file("/bucket/later/x", b"x")
    assert remote_files(Path("memory://bucket/later")) == [Path("memory://bucket/later/x")]


def test_names_that_are_no_paths_are_named(memory: Any, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("b//twice", "b/../up", "./dot"):
        memory.store[f"/bucket/top/{name}"] = memory.store["/bucket/top/a.txt"]
    with caplog.at_level(logging.WARNING):
        assert len(remote_files(ROOT)) == len(FILES)
    assert "left out 3 files" in caplog.text


def test_a_storage_that_refuses(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: Any, **__: Any) -> None:
        raise PermissionError("Access Denied")

    for name in ("find", "info", "ls"):
        monkeypatch.setattr(type(memory), name, refuses)
    for ask in (list_once, remote_info, children):
        with pytest.raises(StorageError, match=r"memory://bucket/top: .*Access Denied.*credentials"):
            ask(ROOT)
