"""Arrays in .npy files, and headers that are false."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detpipe.storage.npy_file import NpyFileError, read_npy
from tests.storage.read_measured import measure


@pytest.mark.parametrize("dtype", ["<f4", ">f8", "u1", "<f2"])
def test_arrays_are_read(tmp_path: Path, dtype: str) -> None:
    np.save(tmp_path / "a.npy", np.arange(6, dtype=dtype).reshape(2, 3))
    assert read_npy(tmp_path / "a.npy", "numbers").tolist() == [[0, 1, 2], [3, 4, 5]]
    np.save(tmp_path / "f.npy", np.asfortranarray(np.arange(6, dtype=dtype).reshape(2, 3)))
    assert read_npy(tmp_path / "f.npy", "numbers").tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize("array", [np.array(["a"]), np.zeros(2, "c8"), np.zeros(1, "f4,f4"), np.zeros(1, "M8[s]")])
def test_other_than_real_numbers(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(NpyFileError, match=r"a\.npy: expected an array of real numbers"):
        read_npy(tmp_path / "a.npy", "numbers")


def test_nothing_is_unpickled_and_no_one_advises_it(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([object()]), allow_pickle=True)
    (tmp_path / "b.npy").write_bytes(b"cos\nsystem\n(S'touch victim'\ntR.")
    for name in ("a.npy", "b.npy"):
        with pytest.raises(ValueError, match=name) as raised:
            read_npy(tmp_path / name, "numbers")
        assert "allow_pickle" not in str(raised.value)


def header(text: str, data: bytes = bytes(48), version: int = 1) -> bytes:
    raw = text.encode() + b"\n"
    return b"\x93NUMPY" + bytes([version, 0]) + len(raw).to_bytes(2 if version == 1 else 4, "little") + raw + data


def described(dtype: str, shape: str) -> bytes:
    return header(f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}}}")


FALSE = {
    "4 TB": described("'<f4'", "(1000000, 1000000)"),
    "2^62 numbers": described("'<f4'", f"({1 << 62},)"),
    "wraps to 12": described("'<f4'", f"({1 << 33}, {(1 << 31) + 1}, 12)"),
    "a text of 2^31": described("'<U536870911'", "(1,)"),
    "a size of -1": described("'<f4'", "(-1, 12)"),
    "not a number": described("'<f4'", "(1.5,)"),
    "100 axes": described("'<f4'", "(" + "1," * 100 + ")"),
    "deep shape": described("'<f4'", "(" * 3_000 + ")" * 3_000),
    "deep dtype": described("[('a', " * 80 + "'<f4'" + ")]" * 80, "(1,)"),
    "dtype within a dtype": described("('<f4', (1000000000, 4))", "(1,)"),
    "a power": described("'<f4'", "(10**10**10,)"),
    "a call": described("'<f4'", "(__import__('os').getpid(),)"),
    "a long header": header("{" + " " * 9_000, version=2),
    "a header of 4 GB": b"\x93NUMPY\x02\x00\xff\xff\xff\xff",
    "version 9": header("{}", version=9),
    "an archive": b"PK\x03\x04" + bytes(100),
    "no header": b"\x93NUMPY",
}


def read(path: Path) -> None:
    read_npy(path, "numbers")


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("false")
    for name, data in FALSE.items():
        (folder / f"{name}.npy").write_bytes(data)
    return measure(f"{__name__}:read", 100, 1, [folder / f"{name}.npy" for name in FALSE])


@pytest.mark.parametrize("name", FALSE)
def test_false_headers_are_one_sentence(name: str, measured: dict[str, Any]) -> None:
    error, seconds = measured["outcomes"][f"{name}.npy"]
    assert error is not None
    assert f"{name}.npy: expected" in error
    assert "\n" not in error
    assert seconds < 30


def test_memory_is_bounded(measured: dict[str, Any]) -> None:
    assert measured["own_peak"] < 150 << 20
    assert measured["reader_peak"] < 250 << 20
