from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from detpipe.backbone.caffe.caffe_net_pb2 import NetParameter, V1LayerParameter
from detpipe.backbone.caffe.caffemodel import parse_caffemodel, read_caffemodel, write_caffemodel
from detpipe.backbone.caffe.load import load_caffe, save_caffemodel
from detpipe.storage.caffe_blob import write_blob
from detpipe.storage.wire import write_length
from tests.backbone.caffe.one_error import at_most_one_error
from tests.backbone.caffe.one_layer import make, set_blobs

NET = NetParameter(name="n", layer=[{"name": "a", "type": "InnerProduct"}, {"name": "r", "type": "ReLU"}])
BLOBS = {"a": [np.arange(6, dtype=np.float32).reshape(2, 3), np.float32([7, 8])]}


def content(tmp_path: Path) -> bytes:
    write_caffemodel(tmp_path / "w.caffemodel", NET, BLOBS)
    return (tmp_path / "w.caffemodel").read_bytes()


def test_what_is_written_is_a_net_with_blobs(tmp_path: Path) -> None:
    net = NetParameter.FromString(content(tmp_path))
    assert [layer.name for layer in net.layer] == ["a", "r"]
    assert [list(blob.shape.dim) for blob in net.layer[0].blobs] == [[2, 3], [2]]
    blobs = read_caffemodel(tmp_path / "w.caffemodel")
    assert list(blobs) == ["a"]
    assert [b.array.tolist() for b in blobs["a"]] == [[[0, 1, 2], [3, 4, 5]], [7, 8]]


def test_v1_layers() -> None:
    blob = {"num": 1, "channels": 1, "height": 1, "width": 2, "data": [1, 2]}
    layer = V1LayerParameter(name="fc", type=V1LayerParameter.INNER_PRODUCT, blobs=[blob])
    blobs = parse_caffemodel(NetParameter(layers=[layer]).SerializeToString(), "f")
    assert blobs["fc"][0].array.tolist() == [[[[1, 2]]]]


@pytest.mark.parametrize("net", ["lenet_ethereon/lenet", "squeezenet_v1.1/deploy"])
def test_blobs_come_back_with_equal_bytes(shared_data: Path, tmp_path: Path, net: str) -> None:
    prototxt = shared_data / f"caffe/{net}.prototxt"
    (source,) = prototxt.parent.glob("*.caffemodel")
    save_caffemodel(load_caffe(prototxt, source), tmp_path / "w.caffemodel")
    theirs, ours = read_caffemodel(source), read_caffemodel(tmp_path / "w.caffemodel")
    assert theirs.keys() == ours.keys()
    for name, blobs in theirs.items():
        assert [b.values.tobytes() for b in blobs] == [b.values.tobytes() for b in ours[name]]
    # And protobuf's own parser reads the same.
    parsed = NetParameter.FromString((tmp_path / "w.caffemodel").read_bytes())
    last = [layer for layer in parsed.layer if layer.blobs][-1]
    assert np.array_equal(np.float32(last.blobs[0].data), ours[last.name][0].values)


def test_each_end_of_a_file_is_an_error_or_fewer_layers(tmp_path: Path) -> None:
    whole = content(tmp_path)
    for end in range(len(whole)):
        with at_most_one_error("f: "):
            assert list(parse_caffemodel(whole[:end], "f")) == ["a"]  # cut between two layers


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_weights_or_one_error(noise: bytes) -> None:
    with at_most_one_error("f: "):
        parse_caffemodel(noise, "f")


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_any_changed_byte_is_weights_or_one_error(data: st.DataObject) -> None:
    net = NetParameter()
    net.CopyFrom(NET)
    net.layer[0].blobs.add(shape={"dim": [2, 3]}, data=range(6))
    content = bytearray(net.SerializeToString())
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=4)):
        content[place] = data.draw(st.integers(0, 255))
    with at_most_one_error("f: "):
        parse_caffemodel(bytes(content), "f")


def nested(depth: int) -> bytes:
    message = b""
    for _ in range(depth):
        message = write_length(100, message)
    return message


@pytest.mark.parametrize(
    ("hostile", "wrong"),
    [
        (b"\xa2\x06\x00" * 300_000, "at most 20000 fields"),  # layers without anything: 300 bytes each to a parser
        (write_length(100, b"\x3a\x00" * 300_000), "at most 20000 fields"),  # blobs of nothing
        (write_length(100, b"\x1a\x00" * 15_000 + b"\x0a" + b"\xff\xff\xff\x7f"), "field 1 at byte"),
        (write_length(100, b"\x1a\x00" * 15_000) * 1500, "at most 100000 fields in all layers"),
        (write_length(100, write_length(7, b"\x3a\x02\x08\x00") * 15_000) * 100, "at most 100000 fields"),
        (write_length(100, write_length(3, b"x" * 2**21)), "with weights"),
        (write_length(1, b"x" * 2**21), "with weights"),
        (b"\xa3\x06" * 100_000, "wire type 3"),  # groups in groups
        (nested(3000), "f: "),
        (b"", "with weights, got 0 bytes"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "HDF5"),
        (write_length(2, write_length(1, b"")), "upgrade_net_proto_binary"),
    ],
)
def test_hostile_files_end_at_once(hostile: bytes, wrong: str) -> None:
    begun = time.process_time()
    with pytest.raises(ValueError, match=wrong):
        parse_caffemodel(hostile, "f")
    assert time.process_time() - begun < 10


def test_a_claim_of_a_terabyte(tmp_path: Path) -> None:
    blob = write_length(7, write_length(1, b"\x80\x80\x80\x80\x80\x80\x04")) + write_length(5, bytes(8))
    (tmp_path / "w.caffemodel").write_bytes(write_length(100, write_length(1, b"a") + write_length(7, blob)))
    with pytest.raises(ValueError, match=r"w\.caffemodel: 'a', blob 0: .*at most 2147483647"):
        read_caffemodel(tmp_path / "w.caffemodel")


def test_a_name_that_is_no_text_and_one_without_end() -> None:
    blob = write_length(7, write_blob(np.float32([1])))
    for name, wanted in ((b"\xff", "\\xff"), (b"x" * 5000, "x" * 1000)):
        assert list(parse_caffemodel(write_length(100, write_length(1, name) + blob), "f")) == [wanted]


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.caffemodel"):
        read_caffemodel(tmp_path / "nowhere.caffemodel")


def test_batch_norms_sums_come_back(tmp_path: Path) -> None:
    net = make('type: "BatchNorm"', (2, 3, 4, 4))
    set_blobs(net, [1.0, 2, 3], [4.0, 5, 6], [0.5])
    save_caffemodel(net, tmp_path / "w.caffemodel")
    blobs = read_caffemodel(tmp_path / "w.caffemodel")["one"]
    assert [b.values.tolist() for b in blobs] == [[1, 2, 3], [4, 5, 6], [0.5]]
    assert torch.equal(net.layers["one"].mean_sum, torch.tensor([1.0, 2, 3]))
