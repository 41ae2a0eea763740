from __future__ import annotations

import copy

import pytest
import torch

from detpipe.backbone import timm_models
from detpipe.backbone.timm_models import TimmBackbone, build


def test_missing_timm_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timm_models, "find_spec", lambda _: None)
    with pytest.raises(ImportError, match=r"pip install 'detpipe\[timm\]'"):
        build("resnet18")


@pytest.mark.parametrize(
    ("name", "strides", "width"),
    [
        ("resnet18", [2, 4, 8, 16, 32], 512),
        ("mobilenetv3_small_050", [2, 4, 8, 16, 32], 1024),
        ("convnext_atto", [4, 8, 16, 32], 320),
        ("vit_tiny_patch16_224", [16], 192),
    ],
)
def test_networks(name: str, strides: list[int], width: int) -> None:
    pytest.importorskip("timm")
    network = build(name).eval()
    reference = copy.deepcopy(network)
    backbone = TimmBackbone(network).eval()
    assert [m.stride for m in backbone.feature_maps.values()] == strides
    assert backbone.feature_width == width
    x = torch.randn(2, 3, *backbone.spec.size)
    with torch.inference_mode():
        torch.testing.assert_close(backbone.classify(x), reference(x))
        for key, output in backbone.forward_maps(x, backbone.feature_maps).items():
            found = backbone.feature_maps[key]
            assert output.shape == (2, found.channels, 224 // found.stride, 224 // found.stride)
    backbone.freeze(stages=1, batch_norm=False)
    frozen = {name for name, parameter in backbone.network.named_parameters() if not parameter.requires_grad}
    stem = {id(parameter) for parameter in backbone.stages[0][1].parameters()}
    assert frozen
    assert frozen == {name for name, parameter in backbone.network.named_parameters() if id(parameter) in stem}


def test_no_images_and_no_maps() -> None:
    pytest.importorskip("timm")
    backbone = TimmBackbone(build("resnet18")).eval()
    assert backbone(torch.zeros(0, 3, 64, 64)).shape == (0, 512)
    assert backbone.forward_maps(torch.zeros(1, 3, 64, 64), []) == {}


def test_unknown_name() -> None:
    pytest.importorskip("timm")
    with pytest.raises(ValueError, match=r"backbone\.name: .*'resnet_of_nobody'.*resnet"):
        build("resnet_of_nobody")
