"""Paths into a tar: what is read there, and what is an ordinary path."""

from __future__ import annotations

import io
import os
import pickle
import tarfile
from pathlib import Path

import pytest

from detpipe.storage import stored_file
from detpipe.storage.input_file import InputFileError
from detpipe.storage.stored_file import container_index, container_of, is_folder, open_stored, read_stored, stored_size
from tests.storage.test_tar_file import tar_of


@pytest.fixture
def tar(tmp_path: Path) -> Path:
    path = tmp_path / "shards" / "000.tar"
    path.parent.mkdir()
    path.write_bytes(tar_of({"a.jpg": b"abcdefgh", "sub/b.jpg": b"", "c.json": b"[1]"}))
    return path


def test_a_member_is_read_as_a_file(tar: Path) -> None:
    with open_stored(tar / "a.jpg", "a file") as file:
        assert file.read(3) == b"abc"
        assert file.seek(-2, os.SEEK_END) == 6
        assert file.read() == b"gh"
        assert file.read() == b""
        assert file.seek(1) == 1
        assert file.read(2) == b"bc"
        with pytest.raises(io.UnsupportedOperation):
            file.fileno()
    assert stored_size(tar / "a.jpg") == 8
    assert stored_size(tar / "sub" / "b.jpg") == 0


def test_a_path_into_a_tar_is_an_ordinary_path(tar: Path) -> None:
    path: Path = pickle.loads(pickle.dumps(tar / "sub" / "b.jpg"))
    assert container_of(path) == (tar, "sub/b.jpg")
    assert path.relative_to(tar.parent).as_posix() == "000.tar/sub/b.jpg"
    assert container_of(tar) is None
    assert is_folder(tar)
    assert not is_folder(tar / "sub")


def test_files_and_folders_are_as_before(tmp_path: Path) -> None:
    folder = tmp_path / "folder.tar"
    folder.mkdir()
    (folder / "a.txt").write_bytes(b"text")
    assert read_stored(folder / "a.txt", "a text", 10) == b"text"
    assert stored_size(folder / "a.txt") == 4
    assert container_of(folder / "a.txt") is None
    with pytest.raises(NotADirectoryError):
        open_stored(folder / "a.txt" / "b", "a file")
    with pytest.raises(NotADirectoryError):
        stored_size(folder / "a.txt" / "b")
    (folder / "a.txt").write_bytes(b"text" * 5)
    with pytest.raises(InputFileError, match="10"):
        read_stored(folder / "a.txt", "10 bytes", 10)


def test_a_missing_member_and_a_file_that_is_no_tar(tar: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"000\.tar/z\.jpg"):
        open_stored(tar / "z.jpg", "an image")
    with pytest.raises(FileNotFoundError):
        open_stored(tar / ".." / "x", "an image")
    tar.write_bytes(b"no tar" * 200)
    with pytest.raises(InputFileError, match=r"000\.tar: expected a tar"):
        open_stored(tar / "a.jpg", "an image")


def test_a_changed_tar_is_read_again(tar: Path) -> None:
    assert len(container_index(tar).members) == 3
    tar.write_bytes(tar_of({"new.jpg": b"n"}))
    assert list(container_index(tar).members) == ["new.jpg"]


def test_kept_indexes_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_file, "_MOST_KEPT", 4)
    monkeypatch.setattr(stored_file, "_indexes", type(stored_file._indexes)())
    for number in range(3):
        path = tmp_path / f"{number}.tar"
        path.write_bytes(tar_of({"a": b"", "b": b""}))
        container_index(path)
    assert [Path(name).name for name, _, _ in stored_file._indexes] == ["1.tar", "2.tar"]


def test_tarfile_reads_the_same_members(tar: Path) -> None:
    with tarfile.open(tar) as file:
        for member in file:
            stored = read_stored(tar / member.name, "a member", 100)
            extracted = file.extractfile(member)
            assert extracted is not None
            assert stored == extracted.read()
