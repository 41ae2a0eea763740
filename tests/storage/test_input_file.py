"""Files of other people: only regular files are opened, and three wrong contents are named."""

import os
import socket
import tracemalloc
from pathlib import Path

import pytest

from detpipe.storage.input_file import InputFileError, check_input, open_input, read_input

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22e\nsize 12345\n"


def test_a_regular_file_is_read_from_its_start(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"\x00<html")
    assert read_input(tmp_path / "a.bin", "numbers") == b"\x00<html"
    with open_input(tmp_path / "a.bin", "numbers") as file:
        assert file.tell() == 0


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"", "empty"),
        (LFS, "git lfs pull"),
        (b"<!DOCTYPE html><html><body>404", "HTML"),
        (b"\xef\xbb\xbf\n  <HTML>", "HTML"),
    ],
)
def test_known_wrong_content_is_named(tmp_path: Path, content: bytes, named: str) -> None:
    file = tmp_path / "weights.pth"
    file.write_bytes(content)
    with pytest.raises(InputFileError, match=f"weights.pth.*weights of a network.*{named}"):
        check_input(file, "weights of a network")


def test_a_pipe_a_socket_a_device_and_a_folder_are_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    monkeypatch.chdir(tmp_path)  # the path of a socket has at most 107 bytes
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.jpg")
    for path, kind in (
        (tmp_path / "pipe.jpg", "named pipe"),
        (tmp_path / "socket.jpg", "socket"),
        (Path("/dev/zero"), "device"),
        (tmp_path, "folder"),
    ):
        with pytest.raises(InputFileError, match=f"{kind}.*regular file"):
            check_input(path, "an image file")


def test_a_link_to_a_regular_file_is_followed_and_a_missing_file_raises(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    (tmp_path / "b").symlink_to("a")
    assert read_input(tmp_path / "b", "a letter") == b"x"
    with pytest.raises(FileNotFoundError):
        check_input(tmp_path / "c", "a letter")


def test_a_file_above_the_limit_is_refused_without_being_read_whole(tmp_path: Path) -> None:
    file = tmp_path / "list.txt"
    file.write_bytes(b"1234")
    assert read_input(file, "a list", 4) == b"1234"
    with pytest.raises(InputFileError, match=r"list\.txt: expected a list of at most .* larger"):
        read_input(file, "a list", 3)
    tracemalloc.start()
    try:
        read_input(file, "a list", 1 << 30)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
