from __future__ import annotations

from pathlib import Path

import pytest
import torch

from detpipe.backbone.caffe.load import load_caffe
from detpipe.backbone.caffe.presets import FOLDER, PRESETS, find_prototxt, preset

SMALLEST = {
    # Below these sizes a window finds nothing; GoogLeNet's last one is 7 wide.
    "alexnet": (2, 3, 67, 67),
    "caffenet": (2, 3, 67, 67),
    "googlenet": (1, 3, 224, 224),
    "lenet": (2, 1, 28, 28),
    "vgg16": (2, 3, 32, 32),
}


@pytest.mark.parametrize("name", PRESETS)
def test_a_step_of_training_reaches_every_parameter(name: str) -> None:
    net = load_caffe(name, train=True, input_shape=SMALLEST[name])
    n = SMALLEST[name][0]
    outputs = net(torch.randn(SMALLEST[name]), torch.arange(n) % 10)
    net.loss(outputs).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in net.parameters())


@pytest.mark.parametrize(
    ("name", "parameters"), [("googlenet", 6_998_552), ("lenet", 431_080), ("caffenet", 60_965_224)]
)
def test_as_many_parameters_as_published(name: str, parameters: int) -> None:
    net = load_caffe(name)
    assert sum(p.numel() for p in net.parameters()) == parameters
    assert net.definition.layer[-1].name == "loss"


def test_the_sizes_that_the_papers_say() -> None:
    shapes = load_caffe("googlenet").shapes  # table 1
    assert shapes["conv1/7x7_s2"][1:] == (64, 112, 112)
    assert shapes["inception_3b/output"][1:] == (480, 28, 28)
    assert shapes["inception_4e/output"][1:] == (832, 14, 14)
    assert shapes["pool5/7x7_s1"][1:] == (1024, 1, 1)
    vgg = load_caffe("vgg16", input_shape=(1, 3, 32, 32)).shapes
    assert vgg["pool5"] == (1, 512, 1, 1)
    assert [name for name in vgg if name.startswith("conv5")] == ["conv5_1", "conv5_2", "conv5_3"]


def test_published_layer_names() -> None:
    assert list(load_caffe("alexnet", input_shape=SMALLEST["alexnet"]).layer_blobs()) == [
        *[f"conv{i}" for i in range(1, 6)], "fc6", "fc7", "fc8",
    ]  # fmt: skip
    names = list(load_caffe("googlenet", train=True).layer_blobs())
    assert {"inception_4a/5x5_reduce", "loss1/classifier", "loss3/classifier", "inception_5b/pool_proj"} <= set(names)
    assert len(names) == 64


def test_finding_them(tmp_path: Path) -> None:
    assert {path.stem for path in FOLDER.iterdir()} == set(PRESETS)
    assert find_prototxt("lenet") == preset("lenet")
    with pytest.raises(ValueError, match=r"alexnet, caffenet, .*, got 'resnet'"):
        preset("resnet")
    with pytest.raises(FileNotFoundError, match=r"resnet; expected a file, or one of alexnet"):
        find_prototxt("resnet")
