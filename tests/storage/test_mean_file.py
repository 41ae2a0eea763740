"""Mean files: Caffe's own to the bit, the forms seen in the wild, and files that are something else."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detpipe.storage.caffe_blob_pb2 import BlobProto, BlobShape
from detpipe.storage.input_file import InputFileError
from detpipe.storage.mean_file import MAX_BYTES, MeanFileError, read_mean, write_mean
from detpipe.storage.npy_file import NpyFileError
from detpipe.structures import Float32Array

MEAN = np.arange(12, dtype=np.float32).reshape(3, 2, 2)


def test_field_numbers_are_caffes() -> None:
    """BVLC/caffe, src/caffe/proto/caffe.proto, message BlobProto."""
    assert {field.name: field.number for field in BlobProto.DESCRIPTOR.fields} == {
        "num": 1,
        "channels": 2,
        "height": 3,
        "width": 4,
        "data": 5,
        "diff": 6,
        "shape": 7,
        "double_data": 8,
        "double_diff": 9,
    }


def test_the_bytes_of_a_binaryproto_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "a.binaryproto"
    write_mean(path, np.array([[[1.0, 2.0]]], dtype=np.float32))
    assert path.read_bytes() == b"\x08\x01\x10\x01\x18\x01\x20\x02\x2a\x08\x00\x00\x80\x3f\x00\x00\x00\x40"


@pytest.mark.parametrize("suffix", [".binaryproto", ".npy"])
@pytest.mark.parametrize("mean", [MEAN, MEAN[:1]], ids=["BGR", "grey"])
def test_round_trip(tmp_path: Path, suffix: str, mean: Float32Array) -> None:
    path = tmp_path / f"a{suffix}"
    write_mean(path, mean)
    back = read_mean(path)
    assert back.dtype == np.float32
    np.testing.assert_array_equal(back, mean)


@pytest.mark.parametrize(
    "blob",
    [
        BlobProto(num=1, channels=3, height=2, width=2, data=range(12)),
        BlobProto(channels=3, height=2, width=2, data=range(12)),
        BlobProto(shape=BlobShape(dim=[1, 3, 2, 2]), data=range(12)),
        BlobProto(shape=BlobShape(dim=[3, 2, 2]), data=range(12)),
        BlobProto(shape=BlobShape(dim=[3, 2, 2]), double_data=range(12)),
        BlobProto(num=1, channels=3, height=2, width=2, data=range(12), diff=[9.0] * 12),
    ],
    ids=["legacy", "no num", "shape", "shape of three", "double", "with gradients"],
)
def test_forms_of_a_header(tmp_path: Path, blob: BlobProto) -> None:
    path = tmp_path / "a.binaryproto"
    path.write_bytes(blob.SerializeToString())
    np.testing.assert_array_equal(read_mean(path), MEAN)


def test_floats_that_are_not_packed_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.binaryproto"
    path.write_bytes(b"\x10\x01\x18\x01\x20\x02\x2d\x00\x00\x80\x3f\x2d\x00\x00\x00\x40")
    np.testing.assert_array_equal(read_mean(path), [[[1.0, 2.0]]])


def test_one_number_a_channel_is_a_mean_of_one_place(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.float64([1, 2, 3]))
    assert read_mean(tmp_path / "a.npy").tolist() == [[[1]], [[2]], [[3]]]


def test_caffes_own_files(shared_data: Path, tmp_path: Path) -> None:
    caffe = shared_data / "caffe"
    for file in (caffe / "datum_lmdb_sujack1/train_mean", caffe / "mean/lbin_imagenet_256.binaryproto"):
        mean = read_mean(file)
        assert mean.shape == (3, 256, 256)
        again = tmp_path / "again.binaryproto"
        write_mean(again, mean)
        np.testing.assert_array_equal(read_mean(again), mean)
        if file.name == "train_mean":
            assert again.read_bytes() == file.read_bytes()
    mean = read_mean(caffe / "mean/ilsvrc_2012_mean.npy")
    assert mean.mean(axis=(1, 2)) == pytest.approx([104.007, 116.669, 122.679], abs=1e-3)


HOSTILE = {
    "empty": b"",
    "no proto": b"\xff" * 40,
    "cut": BlobProto(num=1, channels=3, height=2, width=2, data=range(12)).SerializeToString()[:-3],
    "negative": BlobProto(num=1, channels=3, height=-2, width=-2, data=range(12)).SerializeToString(),
    "a terabyte": BlobProto(num=1, channels=3, height=2**19, width=2**19, data=[1.0]).SerializeToString(),
    "overflow": BlobProto(shape=BlobShape(dim=[3, 2**62, 2**62]), data=range(12)).SerializeToString(),
    "wraps to 12": BlobProto(shape=BlobShape(dim=[1, 3, 2**33, 2**31 + 1]), data=range(12)).SerializeToString(),
    "many images": BlobProto(num=2, channels=3, height=2, width=1, data=range(12)).SerializeToString(),
    "five axes": BlobProto(shape=BlobShape(dim=[1, 1, 3, 2, 2]), data=range(12)).SerializeToString(),
    "many axes": BlobProto(shape=BlobShape(dim=[1] * 10_000)).SerializeToString(),
    "no number": BlobProto(num=1, channels=1, height=1, width=1, data=[float("nan")]).SerializeToString(),
    "groups in groups": b"\x0b" * 10_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_blob_is_one_clear_error(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.binaryproto"
    path.write_bytes(HOSTILE[name])
    tracemalloc.start()
    try:
        with pytest.raises((MeanFileError, InputFileError), match=r"a\.binaryproto: ") as raised:
            read_mean(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    assert len(str(raised.value)) < 500


def npy(header: str, data: bytes = b"") -> bytes:
    padded = header.ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(padded).to_bytes(2, "little") + padded.encode() + data


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"garbage",
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (3, 600000, 600000), }"),
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (3, -2, 2), }", bytes(48)),
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (0, 2, 2), }"),
        npy("{'descr': '|O', 'fortran_order': False, 'shape': (3, 2, 2), }", bytes(96)),
        npy("{'descr': '<c8', 'fortran_order': False, 'shape': (3, 2, 2), }", bytes(96)),
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (12,), }", bytes(48)),
        npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1, 1, 1), }", np.float64(1e300).tobytes()),
        npy("not a header", bytes(48)),
    ],
)
def test_a_hostile_array_is_one_clear_error(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"a\.npy: expected"):
        read_mean(path)


def test_a_file_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.binaryproto"
    with path.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(MeanFileError, match="at most"):
        read_mean(path)


def test_other_names_and_missing_files(tmp_path: Path) -> None:
    with pytest.raises(MeanFileError, match=r"ends in \.binaryproto or \.npy"):
        write_mean(tmp_path / "mean.txt", MEAN)
    with pytest.raises(FileNotFoundError):
        read_mean(tmp_path / "none.npy")


@given(st.binary(max_size=200))
def test_any_bytes_are_a_mean_or_a_clear_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    for suffix in (".binaryproto", ".npy"):
        path = tmp_path_factory.getbasetemp() / f"any{suffix}"
        path.write_bytes(data)
        try:
            mean = read_mean(path)
        except (MeanFileError, InputFileError, NpyFileError):
            continue
        assert mean.ndim == 3


@given(st.integers(0, 200), st.integers(0, 255))
def test_any_damage_is_a_mean_or_a_clear_error(
    tmp_path_factory: pytest.TempPathFactory, place: int, value: int
) -> None:
    for suffix in (".binaryproto", ".npy"):
        path = tmp_path_factory.getbasetemp() / f"damaged{suffix}"
        write_mean(path, MEAN)
        data = bytearray(path.read_bytes())
        data[place % len(data)] = value
        path.write_bytes(data)
        try:
            read_mean(path)
        except (MeanFileError, InputFileError, NpyFileError):
            continue
