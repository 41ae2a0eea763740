"""Reads pickles of numbers from untrusted sources without running their code, and writes portable ones.

A pickle can name any function and have it called. Here, names are only looked up in a short list of classes of this
file, so that no numpy function gets data of the pickle before it is checked.
"""

from __future__ import annotations

import io
import math
import pickle
from collections import OrderedDict
from enum import IntEnum
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from detpipe.storage.input_file import open_input


class UnsafePickleError(ValueError):
    """A pickle that contains more than containers, numbers and arrays."""


def load_numbers(path: Path) -> Any:
    """The content of a pickle of dicts, lists, tuples, sets, strings, numbers, None, and numpy arrays of numbers.

    Detectron2's BoxMode becomes an int, MMEngine's InstanceData a dict. Strings of Python 2 are read as Latin-1. No
    code runs, but a pickle of some bytes can take any memory and time: read files of other people by
    `ImportedProposals`, in a process of their own.

    Raises UnsafePickleError with the name of the class for any other content, what pickle raises for a damaged file,
    and the errors of `open_input`.
    """
    with open_input(path, "a pickle of numbers") as file:
        try:
            return _plain(_NumbersUnpickler(file, encoding="latin1").load(), {})
        except UnsafePickleError as error:
            raise UnsafePickleError(f"{path}: {error}") from error


def dump_numbers(value: Any) -> bytes:
    """The pickle of dicts, lists, strings, numbers and numpy arrays, which numpy 1 and 2 can load.

    numpy 2 names its private modules in its pickles. numpy 1, which many programs that read these files use, doesn't
    have them. So arrays are pickled by their public class.
    """
    buffer = io.BytesIO()
    _NumbersPickler(buffer, protocol=4).dump(value)
    return buffer.getvalue()


class _NumbersPickler(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        if not isinstance(value, np.ndarray):
            return NotImplemented
        # An empty array, then its state: (version, shape, dtype, order, bytes).
        return np.ndarray, ((0,), value.dtype), np.ascontiguousarray(value).__reduce__()[2]


class _StandIn:
    """Base of the allowed classes. Each sets its state itself, so that a pickle can't replace attributes."""

    def __setstate__(self, state: Any) -> None:
        raise UnsafePickleError(f"expected no state for {type(self).__name__}, got {state!r:.40}")


class _Dtype(_StandIn):
    """numpy.dtype: a number type, or object for an array of arrays."""

    def __init__(self, name: str, align: bool = False, copy: bool = False) -> None:  # noqa: ARG002
        if not isinstance(name, str) or name.lstrip("<>=|") not in _NUMBER_TYPES:
            raise UnsafePickleError(f"expected arrays of numbers, got the dtype {name!r:.40}")
        self.name, self.order = name.lstrip("<>=|"), "="

    def __setstate__(self, state: Any) -> None:
        # (version, byte order, ...); the rest describes structures, strings and dates.
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", ">", "=", "|"):
            raise UnsafePickleError(f"expected the state of a number's dtype, got {state!r:.60}")
        self.order = state[1]

    def numpy(self) -> np.dtype[Any]:
        return np.dtype(self.order + self.name) if self.order in "<>" else np.dtype(self.name)


_NUMBER_TYPES = frozenset(
    {"O", "O8", "b1", *(f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)), "f2", "f4", "f8"}
)


class _Array(_StandIn):
    """numpy.ndarray: created empty by numpy's _reconstruct, then filled from its state."""

    def __init__(self, *_: Any) -> None:
        self.value: Any = []

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise UnsafePickleError(f"expected the state of an array, got {state!r:.60}")
        _, shape, dtype, is_fortran, data = state
        if isinstance(dtype, _Dtype) and dtype.name.startswith("O"):
            if not isinstance(data, list):
                raise UnsafePickleError("expected an array of arrays as a list")
            self.value = data
        else:
            self.value = _array(data, dtype, shape, "F" if is_fortran else "C")


class _Buffer(_StandIn):
    """numpy's _frombuffer, used by pickle protocol 5."""

    def __init__(self, data: Any, dtype: Any, shape: Any, order: Any = "C") -> None:
        self.value = _array(data, dtype, shape, order)


class _Scalar(_StandIn):
    """A numpy scalar."""

    def __init__(self, dtype: Any, data: Any) -> None:
        self.value = _array(data, dtype, (), "C")[()]


class _Bytes(_StandIn):
    """_codecs.encode and bytes(), which protocol 2 uses for bytes and empty bytes."""

    def __new__(cls, text: str = "", encoding: str = "latin1") -> Any:
        if not isinstance(text, str) or encoding != "latin1":
            raise UnsafePickleError(f"expected bytes as Latin-1, got {encoding!r:.40}")
        return text.encode("latin1")


class _InstanceData(_StandIn):
    """MMEngine's container of arrays by name."""

    def __init__(self) -> None:
        self.value: dict[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, dict):
            raise UnsafePickleError(f"expected InstanceData as a dict, got {state!r:.60}")
        self.value = {name: value for name, value in state.items() if not str(name).startswith("_")}


class BoxMode(IntEnum):
    """Detectron2's BoxMode (structures/boxes.py): the format of the four numbers of a box."""

    XYXY_ABS = 0
    XYWH_ABS = 1
    XYXY_REL = 2
    XYWH_REL = 3
    XYWHA_ABS = 4


class _BoxMode(_StandIn):
    def __new__(cls, value: int) -> Any:
        return int(BoxMode(value))


def _array(data: Any, dtype: Any, shape: Any, order: Any) -> Any:
    """A checked copy of raw bytes as an array. The shape must match the bytes, so that no pickle can claim memory."""
    if isinstance(data, str):  # Python 2
        data = data.encode("latin1")
    sizes_fit = isinstance(shape, tuple) and all(isinstance(size, int) and size >= 0 for size in shape)
    if not isinstance(dtype, _Dtype) or dtype.name.startswith("O") or not sizes_fit or len(shape) > 8:
        raise UnsafePickleError(f"expected an array of numbers, got dtype {dtype!r:.40} and shape {shape!r:.40}")
    if not isinstance(data, (bytes, bytearray)) or order not in ("C", "F"):
        raise UnsafePickleError(f"expected the bytes of an array, got {type(data).__name__} in order {order!r:.10}")
    numpy_dtype = dtype.numpy()
    if math.prod(shape) * numpy_dtype.itemsize != len(data):
        raise UnsafePickleError(f"expected {shape} numbers of {numpy_dtype.itemsize} bytes, got {len(data)} bytes")
    return np.frombuffer(data, dtype=numpy_dtype).reshape(shape, order=order).astype(numpy_dtype.newbyteorder("="))


_ALLOWED: dict[tuple[str, str], type] = {
    ("builtins", "set"): set,
    ("builtins", "frozenset"): frozenset,
    ("builtins", "bytes"): _Bytes,
    ("collections", "OrderedDict"): OrderedDict,
    ("_codecs", "encode"): _Bytes,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy.core.multiarray", "scalar"): _Scalar,
    ("numpy._core.multiarray", "scalar"): _Scalar,
    ("numpy.core.numeric", "_frombuffer"): _Buffer,
    ("numpy._core.numeric", "_frombuffer"): _Buffer,
    ("detectron2.structures.boxes", "BoxMode"): _BoxMode,
    ("mmengine.structures.instance_data", "InstanceData"): _InstanceData,
    ("mmengine.data.instance_data", "InstanceData"): _InstanceData,
}


class _NumbersUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> type:
        try:
            # Protocol 2 and Python 2 write the old name of builtins.
            return _ALLOWED[module.replace("__builtin__", "builtins"), name]
        except KeyError:
            raise UnsafePickleError(
                f"expected a pickle of lists, dicts, numbers and numpy arrays, got one that calls {module}.{name}; "
                "if you trust its source, load it yourself, convert all objects to numpy arrays and save it again"
            ) from None

    def persistent_load(self, pid: Any) -> NoReturn:
        raise UnsafePickleError(f"expected a pickle without references to other files, got a reference {pid!r:.40}")


def _plain(value: Any, done: dict[int, Any]) -> Any:
    """The value with the stand-ins replaced by their content. Containers are copied, shared ones once.

    done: from the id of a container to its copy.
    """
    if isinstance(value, _StandIn) and hasattr(value, "value"):
        return _plain(value.value, done)
    if isinstance(value, (_StandIn, type)):
        raise UnsafePickleError(f"expected data, got {value!r:.60}")
    if not isinstance(value, (dict, list, tuple)):
        return value
    if id(value) not in done:
        if isinstance(value, dict):
            done[id(value)] = {key: _plain(item, done) for key, item in value.items()}
        else:
            done[id(value)] = type(value)(_plain(item, done) for item in value)
    return done[id(value)]
