from __future__ import annotations

import gzip
import logging
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from detpipe.backbone.caffe.load import build_net, load_caffe, save_caffemodel
from detpipe.backbone.caffe.prototxt import parse_prototxt
from tests.backbone.caffe.test_net import SMALL, small


def mnist(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """The ten thousand test images (N, 1, 28, 28), 0 to 255, and their labels."""
    images = gzip.decompress((folder / "caffe/mnist_t10k/t10k-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((folder / "caffe/mnist_t10k/t10k-labels-idx1-ubyte.gz").read_bytes())
    x = np.frombuffer(images, np.uint8, offset=16).reshape(-1, 1, 28, 28).astype(np.float32)
    return torch.from_numpy(x), torch.tensor(np.frombuffer(labels, np.uint8, offset=8).astype(np.int64))


def test_lenet_has_the_accuracy_and_loss_of_caffes_log(shared_data: Path) -> None:
    folder = shared_data / "caffe/lenet_ethereon"
    heads = """
        layer { name: "l" type: "Input" top: "label" input_param { shape { dim: 64 } } }
        layer { name: "accuracy" type: "Accuracy" bottom: "ip2" bottom: "label" top: "accuracy" }
        layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip2" bottom: "label" top: "loss" }
    """
    text = (folder / "lenet.prototxt").read_text() + heads
    net = build_net(parse_prototxt(text), folder / "lenet_iter_10000.caffemodel")
    x, labels = mnist(shared_data)
    assert len(x) == 10_000
    with torch.inference_mode():  # Caffe's own test: a hundred batches of a hundred, averaged
        rows = [net(a / 256, b) for a, b in zip(x.split(100), labels.split(100), strict=True)]
    assert np.mean([float(row["accuracy"]) for row in rows]) == pytest.approx(0.9914, abs=1e-7)
    assert np.mean([float(row["loss"]) for row in rows]) == pytest.approx(0.0272693, abs=5e-7)


def test_squeezenet_on_real_images(shared_data: Path) -> None:
    folder = shared_data / "caffe/squeezenet_v1.1"
    net = load_caffe(folder / "deploy.prototxt", folder / "squeezenet_v1.1.caffemodel")
    labels = torch.arange(0, 1000, 5)  # an image of each fifth class, in the order of the wnids
    paths = sorted((shared_data / "imagenet_sample").glob("*.JPEG"))
    images = [cv2.resize(cv2.imread(str(path)), (256, 256))[14:241, 14:241] for path in paths]
    x = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() - torch.tensor([104, 117, 123]).view(3, 1, 1)
    with torch.inference_mode():
        chosen = torch.cat([net(part)["prob"].flatten(1).topk(5).indices for part in x.split(20)])
    hits = chosen == labels[:, None]
    assert hits[:, 0].float().mean() > 0.62
    assert hits.any(1).float().mean() > 0.84


def test_both_phases_of_a_text_with_databases(shared_data: Path) -> None:
    path = shared_data / "caffe/squeezenet_v1.1/train_val.prototxt"
    net = load_caffe(path)
    assert net.inputs == {"data": (25, 3, 227, 227), "label": (25,)}
    assert not net.training
    assert list(net(torch.zeros(1, 3, 227, 227), torch.zeros(1))) == ["loss", "accuracy", "accuracy_top5"]
    assert load_caffe(path, train=True).training
    assert load_caffe(path, train=True, input_shape=(4, 3, 67, 67)).shapes["pool10"] == (4, 1000, 1, 1)


def test_what_either_side_lacks_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = small(generator=torch.Generator().manual_seed(5))
    save_caffemodel(source, tmp_path / "w.caffemodel")
    with caplog.at_level(logging.WARNING):
        net = build_net(parse_prototxt(SMALL), tmp_path / "w.caffemodel")
        assert caplog.text == ""
        fresh = build_net(parse_prototxt(SMALL.replace('name: "fc"', 'name: "fc_new"')), tmp_path / "w.caffemodel")
    assert torch.equal(net.layers["fc"].weight, source.layers["fc"].weight)
    assert torch.equal(fresh.layers["conv"].weight, source.layers["conv"].weight)
    assert "missing in the file, initialised by fillers: fc_new" in caplog.text
    assert "not in the net, ignored: fc" in caplog.text


def test_weights_of_another_net(tmp_path: Path) -> None:
    save_caffemodel(small(), tmp_path / "w.caffemodel")
    wider = SMALL.replace("num_output: 4", "num_output: 5")
    with pytest.raises(
        ValueError, match=r"layer 'fc': expected blobs of \[\(5, 3\), \(5,\)\], got \[\(4, 3\), \(4,\)\]"
    ):
        build_net(parse_prototxt(wider), tmp_path / "w.caffemodel")
    other = SMALL.replace('name: "conv"', 'name: "c"').replace('name: "fc"', 'name: "f"')
    with pytest.raises(ValueError, match=r"expected weights of layers \['c', 'f'\], got \['conv', 'fc'\]"):
        build_net(parse_prototxt(other), tmp_path / "w.caffemodel")


def test_no_such_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no\.prototxt"):
        load_caffe(tmp_path / "no.prototxt")
    with pytest.raises(FileNotFoundError, match=r"no\.caffemodel"):
        load_caffe("lenet", tmp_path / "no.caffemodel")
