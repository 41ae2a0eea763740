"""Hostile and damaged files for every reader of Caffe's files, weights, solvers, IDX files, vectors and class lists."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save

from detpipe.backbone.caffe.caffemodel import V2_BLOBS, V2_LAYERS, V2_NAME, read_caffemodel
from detpipe.backbone.caffe.load import load_caffe
from detpipe.backbone.caffe.presets import preset
from detpipe.backbone.weights import read_state
from detpipe.datasets.idx import read_idx
from detpipe.datasets.labelled_images import read_class_names
from detpipe.heads.stored.zero_shot import vectors_of
from detpipe.inspect.weight_file import read_tensors
from detpipe.solver.initial_weights import read_weights
from detpipe.solver.solver_prototxt import read_solver_prototxt
from detpipe.storage.caffe_blob import write_blob
from detpipe.storage.caffe_blob_pb2 import BlobProto, BlobShape
from detpipe.storage.mean_file import read_mean
from detpipe.storage.wire import write_length, write_varint
from tests.storage.hostile_files import Reader, faults_of

# --- Readers, which a child process imports by name -------------------------------------------------------------------


def read_net(path: Path) -> object:
    return load_caffe(path)


def read_images(path: Path) -> object:
    return read_idx(path, 3)


def read_vectors(path: Path) -> object:
    path.with_suffix(".txt").write_text("cat\ndog\n")
    return vectors_of(path, ["cat", "dog"])


def read_names_of_vectors(path: Path) -> object:
    path.with_suffix(".npy").write_bytes(npy(np.eye(2, dtype=np.float32)))
    return vectors_of(path.with_suffix(".npy"), ["cat", "dog"])


# --- Their own hostile files ------------------------------------------------------------------------------------------


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def npy_header(header: str) -> bytes:
    text = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def pt(state: object) -> bytes:
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


def layer(name: bytes, *blobs: bytes) -> bytes:
    return write_length(V2_LAYERS, write_length(V2_NAME, name) + b"".join(write_length(V2_BLOBS, b) for b in blobs))


def blob(shape: list[int], values: int = 0) -> bytes:
    return BlobProto(shape=BlobShape(dim=shape), data=[0.0] * values).SerializeToString()


def net(layers: str, sides: str = "[1, 3, 64, 64]") -> bytes:
    return f'input: "a" input_shape {{ dim: {sides} }} {layers}'.encode()


def conv(settings: str) -> bytes:
    return net(f'layer {{ name: "c" type: "Convolution" bottom: "a" top: "b" convolution_param {{ {settings} }} }}')


NETS = {
    "many layers": b"layer{}" * 100_000,
    "many inputs": b'input:""' * 100_000,
    "deep": b"layer { include { " * 9999,
    "angle brackets": b"layer < " * 9999,
    "lists": b"layer: [" * 9999,
    "escaped quotes": b'\\"' * (1 << 19),
    "a long name": net(f'layer {{ name: "{"x" * 900_000}" type: "ReLU" bottom: "a" top: "b" }}'),
    "a long type": net(f'layer {{ name: "x" type: "{"x" * 900_000}" bottom: "a" top: "b" }}'),
    "a long filler": conv(f'num_output: 1 kernel_size: 1 weight_filler {{ type: "{"x" * 9999}" }}'),
    "a long field": b"x" * 900_000 + b": 1",
    "a long number": b"input_dim: " + b"9" * 900_000,
    "a comment": b"#" * (1 << 20),
    "too long": b"\n" * ((1 << 20) + 1),
    "not UTF-8": b'name: "\xff\xfe"',
    "large input": net("", "[1, 3, 30000, 30000]"),
    "many axes": net("", str([1] * 99)),
    "negative side": net("", "[1, 3, -1, 5]"),
    "huge side": net("", "[1, 3, 9223372036854775807, 1]"),
    "many activations": conv("num_output: 400000 kernel_size: 1"),
    "many parameters": conv("num_output: 999999999 kernel_size: 64"),
    "huge pad": conv("num_output: 1 kernel_size: 3 pad: 2147483647"),
    "huge kernel": conv("num_output: 1 kernel_size: 4294967295"),
    "huge dilation": conv("num_output: 1 kernel_size: 2 dilation: 4294967295"),
    "no stride": conv("num_output: 1 kernel_size: 1 stride: 0"),
    "many groups": conv("num_output: 3 kernel_size: 1 group: 4294967295"),
    "doubling": net("".join(
        f'layer {{ name: "{i}" type: "Concat" bottom: "{b}" bottom: "{b}" top: "b{i}" }}'
        for i, b in enumerate(["a", *(f"b{i}" for i in range(60))])
    )),
    "pooling far outside": net(
        'layer { name: "p" type: "Pooling" bottom: "a" top: "b" pooling_param { kernel_size: 1 stride: 30000 } }'
    ),
    "a wide LRN": net('layer { name: "l" type: "LRN" bottom: "a" top: "b" lrn_param { local_size: 4294967295 } }'),
    "many tops": net(
        'layer { name: "s" type: "Split" bottom: "a" ' + "".join(f'top: "{i}" ' for i in range(9999)) + "}"
    ),
}  # fmt: skip
SOLVER = b'base_lr: 0.1 max_iter: 9 lr_policy: "step" gamma: 0.5 stepsize: 3 momentum: 0.9\n'
SOLVERS = {
    "escaped quotes": b'\\"' * (1 << 17),
    "a long text": SOLVER + b'net: "' + b"x" * 200_000 + b'"',
    "a long type": SOLVER + b'type: "' + b"x" * 200_000 + b'"',
    "a long field": b"x" * 200_000 + b": 1",
    "many steps": SOLVER + b"stepvalue: 1 " * 18_000,
    "deep": b"train_state { " * 9999,
    "huge numbers": SOLVER.replace(b"9 ", b"99999999999999999999 "),
    "not a number": SOLVER.replace(b"0.1", b"nan"),
    "too long": b" " * (1 << 20),
    "not UTF-8": b"# \xff",
}
CAFFEMODEL = layer(b"conv1", write_blob(np.ones((2, 3), np.float32)), write_blob(np.ones(2, np.float32)))
CAFFEMODELS = {
    "a blob that claims 2^31 values": layer(b"x", blob([1 << 31], 1)),
    "a blob that claims 2^62 values": layer(b"x", blob([1 << 31, 1 << 31], 1)),
    "a negative side": layer(b"x", blob([-5], 1)),
    "many axes": layer(b"x", blob([1] * 999, 1)),
    "many layers": layer(b"x", blob([0])) * 30_000,
    "many blobs": layer(b"x", *[blob([0])] * 30_000),
    "many empty fields": write_length(V2_LAYERS, b"") * 200_000,
    "a long name": layer(b"x" * 900_000, blob([3], 1)),
    "a name that is not UTF-8": layer(b"\xff\n" * 99, blob([3], 1)),
    "a length of 2^63": b"\xa2\x06" + write_varint(1 << 63),
    "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(99),
}
MEANS = {
    "a blob that claims 2^31 values": blob([3, 30000, 30000], 1),
    "a flat blob": blob([12], 12),
    "half a value": write_length(5, b"abc"),
    "many fields": b"\x08\x01" * 100_000,
    "not a number": blob([3, 1, 1], 0) + write_length(5, np.full(3, np.nan, "<f4").tobytes()),
}
ARRAYS = {
    "a shape of 2^40": npy_header("{'descr': '<f4', 'fortran_order': False, 'shape': (3, 1099511627776), }"),
    "a shape of 10^9": npy_header("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 1000000000), }"),
    "a negative shape": npy_header("{'descr': '<f4', 'fortran_order': False, 'shape': (3, -2, 2), }"),
    "objects": npy_header("{'descr': '|O', 'fortran_order': False, 'shape': (3, 2, 2), }") + bytes(96),
    "no header": npy_header("(" * 100),
    "texts": npy(np.array([["a"], ["b"]])),
    "not a number": npy(np.full((2, 3), np.nan, np.float32)),
    "nothing in it": npy(np.zeros((2, 0), np.float32)),
}
SAFETENSORS = {
    "a header of 2^63": b"\xff" * 7 + b"\x7f" + b"{}",
    "many tensors": (lambda text: len(text).to_bytes(8, "little") + text)(
        json.dumps({str(i): {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]} for i in range(30_000)}).encode()
    ),
    "a deep header": (lambda text: len(text).to_bytes(8, "little") + text)(b"[" * 9999),
    "a claim of 2^40": (lambda text: len(text).to_bytes(8, "little") + text)(
        b'{"a":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4398046511104]}}'
    ),
    "a shape that overflows": (lambda text: len(text).to_bytes(8, "little") + text)(
        b'{"a":{"dtype":"F32","shape":[4294967296,4294967296,4294967296],"data_offsets":[0,0]}}'
    ),
}
IDX = bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 3, *range(6)])
IDXS = {
    "a claim of 2^96": IDX[:4] + b"\xff" * 12,
    "a claim of a gigabyte": IDX[:4] + b"\x00\x00\x04\x00" * 3,
    "no side": IDX[:4] + bytes(12),
    "a bomb": gzip.compress(IDX[:4] + b"\x00\x00\x04\x00" * 3 + bytes(1 << 22), mtime=0),
    "half a gzip": gzip.compress(IDX * 99, mtime=0)[:60],
}
NAMES = {
    "many names": b"\n".join(b"%d" % i for i in range(100_000)),
    "the same name": b"a\n" * 100_000,
    "a long name": b"a" * (1 << 20),
    "not UTF-8": b"caf\xe9\n",
}


STATE = {"a": torch.arange(4.0), "b": torch.ones(2, 3)}
READERS = {
    "net": Reader(read_net, "n.prototxt", preset("lenet").read_bytes(), NETS),
    "solver": Reader(read_solver_prototxt, "s.prototxt", SOLVER, SOLVERS),
    "caffemodel": Reader(read_caffemodel, "w.caffemodel", CAFFEMODEL, CAFFEMODELS),
    "inspected caffemodel": Reader(read_tensors, "w.caffemodel", CAFFEMODEL, CAFFEMODELS),
    "mean": Reader(read_mean, "m.binaryproto", blob([1, 3, 2, 2], 12), MEANS),
    "mean array": Reader(read_mean, "m.npy", npy(np.zeros((3, 2, 2), np.float32)), ARRAYS),
    "safetensors": Reader(read_state, "w.safetensors", save(STATE), SAFETENSORS),
    "inspected safetensors": Reader(read_tensors, "w.safetensors", save(STATE), SAFETENSORS),
    "solver's safetensors": Reader(read_weights, "w.safetensors", save(STATE), SAFETENSORS),
    "weights": Reader(read_state, "w.pth", pt(STATE), {}),
    "solver's weights": Reader(read_weights, "w.pt", pt(STATE), {}),
    "IDX": Reader(read_images, "images-idx3-ubyte", IDX, IDXS),
    "IDX in gzip": Reader(read_images, "images-idx3-ubyte.gz", gzip.compress(IDX, mtime=0), IDXS),
    "vectors": Reader(read_vectors, "v.npy", npy(np.eye(2, dtype=np.float32)), ARRAYS),
    "names of vectors": Reader(read_names_of_vectors, "v.txt", b"cat\ndog\n", NAMES),
    "class names": Reader(read_class_names, "classes.txt", b"cat\ndog\n", NAMES),
}


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """The faults of all readers, found in one process, because importing torch takes longer than all files."""
    return faults_of(READERS, tmp_path_factory.mktemp("hostile"))


@pytest.mark.parametrize("name", READERS)
def test_hostile_files_are_read_or_named_within_limits(name: str, faults: dict[str, list[str]], tmp_path: Path) -> None:
    reader = READERS[name]
    (tmp_path / reader.name).write_bytes(reader.sound)
    assert reader.read(tmp_path / reader.name) is not None
    assert faults[name] == []
