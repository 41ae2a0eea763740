"""The restricted unpickler: numbers come through, nothing else runs."""

from __future__ import annotations

import collections
import contextlib
import os
import pickle
import pickletools
import sys
import types
from enum import IntEnum
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from detpipe.proposals.files.safe_pickle import UnsafePickleError, load_numbers

PROTOCOLS = range(2, pickle.HIGHEST_PROTOCOL + 1)
DAMAGED = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    EOFError,
    ImportError,
    pickle.UnpicklingError,
    MemoryError,
)
"""What load_numbers may raise for damaged bytes. Users see one sentence: see test_hostile_proposals.py."""


def load(tmp_path: Path, data: bytes):
    file = tmp_path / "some.pkl"
    file.write_bytes(data)
    return load_numbers(file)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_numbers_come_through(tmp_path: Path, protocol: int):
    boxes = np.arange(12, dtype=np.float32).reshape(3, 4)
    content = {
        "boxes": [boxes, boxes[:0], np.asfortranarray(boxes), boxes.astype(">f8"), boxes.T, np.float32(0.5)],
        "ids": (1, "a", None, True, 2.5, b"", b"\xff\x00"),
        "more": collections.OrderedDict(x={1, 2}),
        "shared": [boxes, boxes],
    }
    found = load(tmp_path, pickle.dumps(content, protocol))
    for want, got in zip(content["boxes"], found["boxes"], strict=True):
        assert np.array_equal(want, got)
        assert got.dtype == want.dtype.newbyteorder("=")
    assert found["ids"] == content["ids"]
    assert found["more"]["x"] == {1, 2}
    assert found["shared"][0] is found["shared"][1]


@settings(max_examples=50)
@given(
    array=hnp.arrays(
        dtype=st.sampled_from([np.float32, np.float64, np.int64, np.uint8, np.bool_, np.dtype(">i2")]),
        shape=hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
    ),
    protocol=st.sampled_from(list(PROTOCOLS)),
)
def test_any_array_comes_through(tmp_path_factory: pytest.TempPathFactory, array: np.ndarray, protocol: int):
    found = load(tmp_path_factory.mktemp("arrays"), pickle.dumps(array, protocol))
    assert found.shape == array.shape
    np.testing.assert_array_equal(found, array)


def test_array_of_arrays_comes_as_a_list(tmp_path: Path):
    array = np.empty(2, dtype=object)
    array[0], array[1] = np.zeros((1, 4)), np.zeros((2, 4))
    assert [one.shape for one in load(tmp_path, pickle.dumps(array))] == [(1, 4), (2, 4)]


def test_python_2_pickle(tmp_path: Path):
    # What Python 2 writes for {"boxes": [numpy.array([1.0], "<f4")]}: strings without a kind.
    raw = np.array([1.0], "<f4").tobytes()
    data = (
        b"\x80\x02}U\x05boxes](cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x01\x85cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89U\x04" + raw + b"tbes."
    )
    assert load(tmp_path, data)["boxes"][0].tolist() == [1.0]


def test_known_classes_of_detectors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    boxes_module = types.ModuleType("detectron2.structures.boxes")
    boxes_module.BoxMode = IntEnum("BoxMode", {"XYXY_ABS": 0, "XYWH_ABS": 1}, module=boxes_module.__name__)
    data_module = types.ModuleType("mmengine.structures.instance_data")

    class InstanceData:
        def __init__(self):
            self._data_fields = {"bboxes"}
            self.bboxes = np.ones((1, 4), np.float32)

    InstanceData.__module__, InstanceData.__qualname__ = data_module.__name__, "InstanceData"
    data_module.InstanceData = InstanceData
    for module in (boxes_module, data_module):
        for parent in (module.__name__.split(".")[0], module.__name__.rsplit(".", 1)[0]):
            monkeypatch.setitem(sys.modules, parent, types.ModuleType(parent))
        monkeypatch.setitem(sys.modules, module.__name__, module)
    data = pickle.dumps([boxes_module.BoxMode.XYWH_ABS, InstanceData()])
    monkeypatch.undo()
    mode, instances = load(tmp_path, data)
    assert mode == 1
    assert list(instances) == ["bboxes"]
    assert instances["bboxes"].tolist() == [[1, 1, 1, 1]]


class Call:
    """Pickles into a call of any function."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_no_function_runs(tmp_path: Path, protocol: int):
    victim = tmp_path / "victim"
    for attack in (
        Call(os.system, f"touch {victim}"),
        Call(eval, f"open({str(victim)!r}, 'w')"),
        Call(exec, f"open({str(victim)!r}, 'w')"),
        Call(open, str(victim), "w"),
        Call(getattr, "a", "upper"),
        Call(np.lib.format.open_memmap, str(victim), "w+", np.float32, True, (1,)),
        Call(np.load, str(victim)),
    ):
        with pytest.raises(UnsafePickleError, match="one that calls"):
            load(tmp_path, pickle.dumps({"boxes": [attack]}, protocol))
    assert not victim.exists()


@pytest.mark.parametrize(
    "name",
    [
        b"builtins\ngetattr", b"builtins\n__import__", b"os\nsystem", b"posix\nsystem", b"subprocess\nPopen",
        b"numpy\nsave", b"numpy.testing._private.utils\nrunstring", b"torch._utils\n_rebuild_tensor_v2",
        b"builtins\nset.__init__", b"detpipe.proposals.files.safe_pickle\nload_numbers", b"numpy\ndtype.type",
    ],
)  # fmt: skip
def test_no_other_name_is_looked_up(tmp_path: Path, name: bytes):
    with pytest.raises(UnsafePickleError, match="one that calls"):
        load(tmp_path, b"c" + name + b"\n.")
    four = b"\x80\x04" + b"".join(b"\x8c" + bytes([len(part)]) + part for part in name.split(b"\n")) + b"\x93."
    with pytest.raises(UnsafePickleError, match="one that calls"):
        load(tmp_path, four)


def reconstruct(state: bytes, shape: bytes = b"K\x00\x85") -> bytes:
    return b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n" + shape + b"U\x01b\x87R" + state + b"b."


DTYPE = b"cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R"


@pytest.mark.parametrize(
    "data",
    [
        # A terabyte of zeros out of nothing; fewer, more and other bytes than the shape says; a negative side.
        reconstruct(b"(K\x01\x8a\x06\x00\x00\x00\x00\x00\x01\x85" + DTYPE + b"\x89U\x00t"),
        reconstruct(b"(K\x01K\x02\x85" + DTYPE + b"\x89U\x04abcdt"),
        reconstruct(b"(K\x01K\x01\x85" + DTYPE + b"\x89U\x08abcdefght"),
        reconstruct(b"(K\x01K\x01\x85" + DTYPE + b"\x89K\x05t"),
        reconstruct(b"(K\x01J\xff\xff\xff\xff\x85" + DTYPE + b"\x89U\x04abcdt"),
        # An array of pointers made of bytes.
        reconstruct(b"(K\x01K\x01\x85cnumpy\ndtype\nU\x02O8K\x00K\x01\x87R\x89U\x08abcdefght"),
        # Structures, strings, dates, and a dtype whose state says another size.
        b"\x80\x02cnumpy\ndtype\nU\x03V99\x85R.",
        b"\x80\x02cnumpy\ndtype\nU\x05f4,f4\x85R.",
        b"\x80\x02cnumpy\ndtype\nU\x02M8\x85R.",
        reconstruct(b"(K\x01K\x01\x85" + DTYPE + b"(K\x03U\x01~NNNK\x04K\x04K\x00tb\x89U\x04abcdt"),
        # State for what takes none, for classes, and for a function's attributes.
        b"\x80\x02c_codecs\nencode\n}U\x08__code__Nsb.",
        b"\x80\x02cnumpy\nndarray\n}U\x01aK\x01sb.",
        b"\x80\x02cnumpy\nndarray\nN}U\x05valueK\x01s\x86b.",
        b"\x80\x02ccollections\nOrderedDict\nN}U\x05clearK\x01s\x86b.",
        b"\x80\x02cnumpy\nndarray\n.",
        # An encoding of another kind, references outside, extensions.
        b"\x80\x02c_codecs\nencode\nU\x01aU\x03zip\x86R.",
        b"\x80\x02U\x01aQ.",
        b"\x80\x02\x82\x01.",
    ],
)
def test_hostile_bytes_are_refused(tmp_path: Path, data: bytes):
    pickletools.genops(data)
    with pytest.raises(DAMAGED):
        load(tmp_path, data)


def test_attributes_of_the_readers_classes_stay(tmp_path: Path):
    attack = b"\x80\x02cnumpy\nndarray\nN}U\x0c__setstate__K\x01s\x86b."
    with pytest.raises(DAMAGED):
        load(tmp_path, attack)
    boxes = np.ones((1, 4))
    assert load(tmp_path, pickle.dumps(boxes)).tolist() == boxes.tolist()


def test_shared_lists_are_not_copied_again_and_again(tmp_path: Path):
    nested: list[object] = []
    for _ in range(40):
        nested = [nested, nested]
    assert len(load(tmp_path, pickle.dumps(nested))) == 2


def test_cut_off_and_empty_files(tmp_path: Path):
    data = pickle.dumps({"boxes": [np.ones((5, 4))]})
    for end in range(len(data) - 1):
        with pytest.raises(DAMAGED):
            load(tmp_path, data[:end])
    with pytest.raises(FileNotFoundError):
        load_numbers(tmp_path / "none.pkl")


@settings(max_examples=200)
@given(data=st.data())
def test_damaged_bytes_give_this_error_or_data(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject):
    raw = bytearray(pickle.dumps({"boxes": [np.ones((2, 4), np.float32)], "ids": [1]}, 2))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(*DAMAGED):
        load(tmp_path_factory.mktemp("damaged"), bytes(raw))
