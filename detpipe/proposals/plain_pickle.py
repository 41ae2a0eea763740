"""Pickles of containers, numbers and arrays that every numpy loads, and `safe_pickle`."""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np


def dump_numbers(value: Any) -> bytes:
    """The pickle of dicts, lists, strings, numbers and numpy arrays.

    numpy 2 writes the names of its private modules, which numpy 1 doesn't have, into its pickles: the readers of these
    files often stand on numpy 1. So arrays are made by their own public class.
    """
    buffer = io.BytesIO()
    _Pickler(buffer, protocol=4).dump(value)
    return buffer.getvalue()


class _Pickler(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        if not isinstance(value, np.ndarray):
            return NotImplemented
        # An empty array, to be filled by its state: (version, shape, dtype, order, bytes).
        return np.ndarray, ((0,), value.dtype), np.ascontiguousarray(value).__reduce__()[2]
