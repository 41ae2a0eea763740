"""Files of tensors: other files, too many tensors, and a full disk."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from detpipe.storage.input_file import InputFileError
from detpipe.storage.tensor_file import MAX_TENSORS, read_safetensors, write_pt, write_safetensors
from tests.full_disk import error_on_full_disk

SMALL = {"a": torch.tensor([1.0, 2.0])}
LARGE = {"a": torch.zeros(1 << 19)}  # 2 MiB


def with_header(header: bytes, data: bytes = b"", length: int | None = None) -> bytes:
    return (len(header) if length is None else length).to_bytes(8, "little") + header + data


def test_tensors_come_back(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "w.safetensors", SMALL)
    assert torch.equal(read_safetensors(tmp_path / "w.safetensors")["a"], SMALL["a"])
    write_pt(tmp_path / "w.pt", {"iteration": 3, **SMALL})
    assert torch.load(tmp_path / "w.pt", weights_only=True)["iteration"] == 3


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "an empty file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
        (b"<!DOCTYPE html><html></html>", "HTML page"),
        (b"\x02\x00\x00", "header of 2 bytes in a file of 3|can't be read"),
        (b"\xff" * 64, "truncated or has another format"),
        (with_header(b"{}", length=1 << 40), "truncated"),
        (with_header(b'{"a": [[[['), "can't be read"),
        (with_header(b"[" * 100_000), "can't be read"),
        (with_header(b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,4]}}', b"1234"), "can't be read"),
        (with_header(b'{"a":{"dtype":"F32","shape":[1073741824],"data_offsets":[0,4294967296]}}'), "can't be read"),
    ],
)
def test_other_files_are_named(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"w\.safetensors: expected .*({words})"):
        read_safetensors(path)


def test_a_folder_and_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="got a folder"):
        read_safetensors(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_safetensors(tmp_path / "none.safetensors")


def test_too_many_tensors_are_refused_at_once(tmp_path: Path) -> None:
    begun = time.process_time()
    entry = {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}
    header = json.dumps({f"t{i}": entry for i in range(MAX_TENSORS + 1)}).encode()
    (tmp_path / "w.safetensors").write_bytes(with_header(header))
    with pytest.raises(ValueError, match=f"at most {MAX_TENSORS} tensors, got {MAX_TENSORS + 1}"):
        read_safetensors(tmp_path / "w.safetensors")
    # A million of them have a header of 60 MB.
    with (tmp_path / "w.safetensors").open("wb") as file:
        file.write((60 << 20).to_bytes(8, "little"))
        file.truncate(61 << 20)
    with pytest.raises(ValueError, match="expected a header of at most 16777216 bytes, got one of 62914560"):
        read_safetensors(tmp_path / "w.safetensors")
    assert time.process_time() - begun < 2


def writer_of(path: Path) -> Callable[..., None]:
    return write_pt if path.suffix == ".pt" else write_safetensors


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
def test_a_full_disk_is_one_sentence_and_the_old_file_stays(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    writer_of(path)(path, SMALL)
    before = path.read_bytes()
    text = error_on_full_disk(writer_of(path), path, LARGE)
    assert text.startswith(f"{path}: expected to write the file")
    assert "make room" in text
    assert "\n" not in text
    assert [one.name for one in tmp_path.iterdir()] == [name]
    assert path.read_bytes() == before
    write_safetensors(tmp_path / "more.safetensors", LARGE)
    save_file(LARGE, tmp_path / "same.safetensors")
    assert (tmp_path / "more.safetensors").read_bytes() == (tmp_path / "same.safetensors").read_bytes()
