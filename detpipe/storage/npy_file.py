"""Reads .npy files that other people made: mean images and class vectors."""

from __future__ import annotations

from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
import numpy.typing as npt

from detpipe.storage.input_file import open_input
from detpipe.storage.reader_process import Arrays, read_in_process

_MAGIC = b"\x93NUMPY"


NPY_ERRORS = (
    ValueError,
    OSError,
    EOFError,
    OverflowError,
    SyntaxError,
    TypeError,
    TokenError,
    RecursionError,
    MemoryError,
)
"""Errors of numpy for a damaged .npy file of our own, whose header it parses as a Python expression."""


class NpyFileError(ValueError):
    """A .npy file that holds something else than one array of real numbers."""


def read_npy(path: Path, expected: str) -> npt.NDArray[Any]:
    """The array of real numbers in a .npy file. Nothing is unpickled.

    expected: what the file should be, for the error: "a mean image".
    Raises NpyFileError, and the errors of `read_in_process` for a file that can't be read.
    """
    _, arrays = read_in_process(_load, path, expected, errors=[NpyFileError])
    return arrays[""]


def _load(path: Path) -> tuple[None, Arrays]:
    with open_input(path, "a .npy file") as file:
        if file.read(len(_MAGIC)) != _MAGIC:  # numpy would take it for a pickle
            raise NpyFileError(f"{path}: expected a .npy file of numbers, got another file; save it with numpy.save")
    # Memory-mapped, so that numpy compares the sizes in the header with the file's.
    array: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    if array.dtype.kind not in "fiu" or array.dtype.names is not None:
        raise NpyFileError(f"{path}: expected an array of real numbers, got the dtype {array.dtype!s:.60}")
    return None, {"": array}
