from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from detpipe.backbone.caffe.mean import channel_means
from detpipe.storage.caffe_blob import write_blob


def test_caffes_own_files(shared_data: Path) -> None:
    folder = shared_data / "caffe/mean"
    assert channel_means(folder / "ilsvrc_2012_mean.npy") == pytest.approx((104.007, 116.669, 122.679), abs=1e-3)
    assert len(channel_means(folder / "lbin_imagenet_256.binaryproto")) == 3


def test_images_and_numbers(tmp_path: Path) -> None:
    image = np.float32([[[1, 3]], [[5, 5]], [[0, 1]]])
    np.save(tmp_path / "m.npy", image)
    assert channel_means(tmp_path / "m.npy") == (2, 5, 0.5)
    np.save(tmp_path / "m.npy", np.float64([7]))
    assert channel_means(tmp_path / "m.npy") == (7,)
    (tmp_path / "m.binaryproto").write_bytes(write_blob(image))
    assert channel_means(tmp_path / "m.binaryproto") == (2, 5, 0.5)


def test_another_number_of_channels(tmp_path: Path) -> None:
    np.save(tmp_path / "s.npy", np.zeros((2, 4, 4)))
    with pytest.raises(ValueError, match=r"s\.npy"):
        channel_means(tmp_path / "s.npy")
