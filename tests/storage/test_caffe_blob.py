from __future__ import annotations

import numpy as np
import pytest

from detpipe.storage.caffe_blob import check_shape, read_blob, same_shape, write_blob
from detpipe.storage.caffe_blob_pb2 import BlobProto
from detpipe.storage.wire import write_length


def read(proto: BlobProto, more: bytes = b"") -> np.ndarray:
    return read_blob(memoryview(proto.SerializeToString() + more), "blob").array


def test_shape_and_data() -> None:
    array = read(BlobProto(shape={"dim": [2, 3]}, data=range(6), diff=[9.0] * 6))
    assert array.tolist() == [[0, 1, 2], [3, 4, 5]]


def test_old_sizes_a_missing_num_and_doubles() -> None:
    assert read(BlobProto(num=1, channels=3, height=1, width=2, data=range(6))).shape == (1, 3, 1, 2)
    assert read(BlobProto(channels=3, height=1, width=2, data=range(6))).shape == (1, 3, 1, 2)
    doubles = read(BlobProto(shape={"dim": [2]}, double_data=[0.5, 2]))
    assert doubles.dtype == np.float32
    assert doubles.tolist() == [0.5, 2]
    assert read(BlobProto(data=[7])).tolist() == 7.0  # no sizes: one number
    assert read(BlobProto(shape={"dim": [0, 3]})).shape == (0, 3)


def test_data_in_parts_and_unpacked() -> None:
    """Parsers must take packed fields in several parts, and numbers that are not packed."""
    proto = BlobProto(shape={"dim": [3]}, data=[1, 2])
    assert read(proto, write_length(5, np.float32([3]).tobytes())).tolist() == [1, 2, 3]
    unpacked = b"\x2d" + np.float32(8).tobytes()  # field 5, wire type fixed32
    assert read(BlobProto(shape={"dim": [1]}), unpacked).tolist() == [8]


def test_written_blobs_are_protobufs() -> None:
    array = np.arange(6, dtype=np.float32).reshape(1, 2, 3)
    proto = BlobProto.FromString(write_blob(array))
    assert list(proto.shape.dim) == [1, 2, 3]
    assert list(proto.data) == list(range(6))
    for one in (array, np.float32(3).reshape(()), np.empty((0, 4), np.float32)):
        assert np.array_equal(read_blob(memoryview(write_blob(one)), "b").array, one)


@pytest.mark.parametrize(
    ("proto", "wrong"),
    [
        (BlobProto(shape={"dim": [7]}, data=range(6)), r"expected a blob of 7 values .*, got 6"),
        (BlobProto(shape={"dim": [2**40]}, data=[1]), "at most 2147483647 values"),  # terabytes, in ten bytes
        (BlobProto(shape={"dim": [-1, -6]}, data=range(6)), "0 or more"),
        (BlobProto(num=-2, channels=-3, height=1, width=1, data=range(6)), "0 or more"),
        (BlobProto(shape={"dim": [1] * 33}, data=[1]), "at most 32 sizes"),
        (BlobProto(shape={"dim": [1] * 9000}, data=[1]), "4096 bytes"),
    ],
)
def test_claims_that_do_not_fit(proto: BlobProto, wrong: str) -> None:
    with pytest.raises(ValueError, match=f"^blob: .*{wrong}"):
        read(proto)


def test_data_that_is_no_numbers() -> None:
    with pytest.raises(ValueError, match="expected values of 4 bytes each, got 3 bytes"):
        read_blob(memoryview(write_length(5, b"abc")), "blob")
    with pytest.raises(ValueError, match="expected a blob, got other bytes"):
        read_blob(memoryview(write_length(7, b"\xff\xff")), "blob")


def test_shapes() -> None:
    assert check_shape((2, 3), "x") == 6
    assert check_shape((), "x") == 1
    assert same_shape((1, 1, 10, 500), (10, 500))
    assert same_shape((1, 1, 1, 10), (10,))
    assert same_shape((), (1,))
    assert not same_shape((10, 1), (10,))
