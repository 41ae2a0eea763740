"""Files of class vectors, and their check before any work."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from detpipe.heads.stored.zero_shot import ZeroShotConfig, vectors_of
from detpipe.storage.input_file import InputFileError


def vectors_in(folder: Path, names: bytes = b"\xef\xbb\xbfcat\n\ndog\n") -> Path:
    np.save(folder / "v.npy", np.array([[3, 4], [0, 2]], dtype=np.float32))
    (folder / "v.txt").write_bytes(names)
    return folder / "v.npy"


def test_vectors_have_norm_1_and_the_order_of_the_classes(tmp_path: Path) -> None:
    # The names' file begins with a byte-order mark, as some editors write it.
    found = vectors_of(vectors_in(tmp_path), ["dog", "cat"])
    np.testing.assert_allclose(found, [[0, 1], [0.6, 0.8]], rtol=1e-6)


def test_classes_without_a_vector_are_named_before_any_work(tmp_path: Path) -> None:
    config = ZeroShotConfig(vectors=str(vectors_in(tmp_path)))
    config.check_classes(["cat"])
    with pytest.raises(ValueError, match=r"v\.txt: expected a vector for each class, got none for \['bird'\]"):
        config.check_classes(["cat", "bird"])
    with pytest.raises(ValueError, match=r"set head\.vectors=FILE\.npy"):
        ZeroShotConfig().check_classes(["cat"])


def test_a_name_that_stands_twice_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"v\.txt: .*\['cat'\]"):
        vectors_of(vectors_in(tmp_path, b"cat\ncat\n"), ["cat"])


def test_other_files_are_named(tmp_path: Path) -> None:
    path = vectors_in(tmp_path, b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(InputFileError, match=r"v\.txt: .*git lfs pull"):
        vectors_of(path, ["cat"])
    with pytest.raises(ValueError, match=r"v\.txt: expected class names in UTF-8, got other bytes at 3"):
        vectors_of(vectors_in(tmp_path, b"caf\xe9\ndog"), ["dog"])
    path.write_bytes(b"")
    with pytest.raises(InputFileError, match=r"v\.npy: expected class vectors \(\.npy\), got an empty file"):
        vectors_of(path, ["cat"])
