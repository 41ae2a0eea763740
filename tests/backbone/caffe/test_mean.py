from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from detpipe.backbone.caffe.blob import write_blob
from detpipe.backbone.caffe.caffe_net_pb2 import BlobProto
from detpipe.backbone.caffe.mean import read_mean


def test_caffes_own_files(shared_data: Path) -> None:
    folder = shared_data / "caffe/mean"
    assert read_mean(folder / "ilsvrc_2012_mean.npy") == pytest.approx((104.007, 116.669, 122.679), abs=1e-3)
    assert len(read_mean(folder / "lbin_imagenet_256.binaryproto")) == 3


def test_images_numbers_and_a_header_without_num(tmp_path: Path) -> None:
    image = np.float32([[[1, 3]], [[5, 5]], [[0, 1]]])
    np.save(tmp_path / "m.npy", image)
    assert read_mean(tmp_path / "m.npy") == (2, 5, 0.5)
    np.save(tmp_path / "m.npy", np.float64([7]))
    assert read_mean(tmp_path / "m.npy") == (7,)
    (tmp_path / "m.binaryproto").write_bytes(write_blob(image))
    assert read_mean(tmp_path / "m.binaryproto") == (2, 5, 0.5)
    proto = BlobProto(channels=3, height=1, width=2, data=image.flatten())
    (tmp_path / "m.binaryproto").write_bytes(proto.SerializeToString())
    assert read_mean(tmp_path / "m.binaryproto") == (2, 5, 0.5)


def test_other_files(tmp_path: Path) -> None:
    np.save(tmp_path / "p.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.save(tmp_path / "s.npy", np.zeros((2, 4, 4)))
    (tmp_path / "c.npy").write_bytes(b"\x93NUMPY\x01\x00")
    huge = b"{'descr': '<f8', 'fortran_order': False, 'shape': (3, 1000000, 1000000), }\n"
    (tmp_path / "h.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(huge).to_bytes(2, "little") + huge)
    (tmp_path / "e.binaryproto").write_bytes(b"")
    for name in ("p.npy", "s.npy", "c.npy", "h.npy", "e.binaryproto"):
        with pytest.raises(ValueError, match=name):
            read_mean(tmp_path / name)
    with pytest.raises(FileNotFoundError, match=r"no\.npy"):
        read_mean(tmp_path / "no.npy")
