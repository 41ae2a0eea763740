"""The tensors of .pth files, and hostile ones within limits that are measured."""

from __future__ import annotations

import io
import os
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from detpipe.storage.torch_file import TorchFileError, read_torch_file
from tests.storage.read_measured import measure


def test_tensors_of_all_kinds(tmp_path: Path) -> None:
    state = {
        "floats": torch.randn(2, 3),
        "half": torch.ones(3, dtype=torch.float16),
        "brain": torch.full((2, 2), 0.5, dtype=torch.bfloat16),
        "count": torch.tensor(7),
        "yes": torch.tensor([True, False]),
        "none": torch.zeros(0, 4),
        "turned": torch.arange(6.0).reshape(2, 3).T,
        "parameter": torch.nn.Parameter(torch.ones(2)),
    }
    torch.save({"epoch": 3, "state_dict": {**state, "name": "text"}}, tmp_path / "w.pth")
    found = read_torch_file(tmp_path / "w.pth")
    assert list(found) == list(state)
    for name, tensor in state.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)
    found["floats"].add_(1)


class Call:
    def __reduce__(self) -> Any:
        return os.system, ("touch victim",)


@pytest.mark.parametrize("new", [True, False])
def test_nothing_runs_and_the_class_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, new: bool) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"a": Call()}, "w.pth", _use_new_zipfile_serialization=new)
    with pytest.raises(TorchFileError, match=r"w\.pth: expected only tensors, got posix\.system.*state dict") as raised:
        read_torch_file(Path("w.pth"))
    assert "weights_only" not in str(raised.value)
    assert not Path("victim").exists()


def saved(content: Any, *, new: bool = True) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=new)
    return buffer.getvalue()


def deflated(data: bytes) -> bytes:
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(data)) as old,
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as new,
    ):
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
    return buffer.getvalue()


def in_itself() -> dict[str, Any]:
    content: dict[str, Any] = {}
    content["model"] = content
    return content


def with_pickle(data: bytes) -> bytes:
    """A file of torch's old format, whose first pickle is `data`."""
    return data + saved({"a": torch.ones(1)}, new=False)


HOSTILE = {
    "a deflated storage of 300 MB": lambda: deflated(saved({"a": torch.zeros(75 << 20)})),
    "strides of 0": lambda: saved({"a": torch.zeros(1).expand(10**6, 10**6)}),
    "one tensor under many names": lambda: saved(dict.fromkeys(map(str, range(2_000)), torch.zeros(1 << 19))),
    "a dict in itself": lambda: saved(in_itself()),
    "sparse": lambda: saved({"a": torch.sparse_coo_tensor(torch.tensor([[0], [0]]), torch.ones(1), (10**9, 10**9))}),
    "quantised": lambda: saved({"a": torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)}),
    "memo index of 2^30": lambda: with_pickle(b"\x80\x02]r\x00\x00\x00\x40."),
    "doubled tuple": lambda: with_pickle(b"\x80\x02}" + b")" + b"2\x86" * 60 + b"K\x01s."),
    "cut": lambda: saved({"a": torch.ones(100)})[:-100],
    "no zip": lambda: b"PK\x03\x04" + bytes(100),
}
LARGE = {"a deflated storage of 300 MB", "one tensor under many names"}


def read(path: Path) -> None:
    read_torch_file(path)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("hostile")
    for name, make in HOSTILE.items():
        with warnings.catch_warnings(action="ignore"):  # of torch: quantised tensors go
            (folder / f"{name}.pth").write_bytes(make())
        assert name in LARGE or (folder / f"{name}.pth").stat().st_size < 10_000
    return measure(f"{__name__}:read", 200, 2, [folder / f"{name}.pth" for name in HOSTILE])


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_one_sentence(name: str, measured: dict[str, Any]) -> None:
    error, seconds = measured["outcomes"][f"{name}.pth"]
    assert error is not None
    assert f"{name}.pth: " in error
    assert "expected" in error
    assert "\n" not in error
    assert seconds < 100


def test_the_limit_of_memory_is_named(measured: dict[str, Any]) -> None:
    for name in ("a deflated storage of 300 MB", "strides of 0", "one tensor under many names"):
        assert "needs more than 0.2" in measured["outcomes"][f"{name}.pth"][0]


def test_memory_is_bounded(measured: dict[str, Any]) -> None:
    libraries = 700 << 20  # torch itself, for the most part files that both processes share
    assert measured["own_peak"] < libraries
    assert measured["reader_peak"] < libraries + (200 << 20)
