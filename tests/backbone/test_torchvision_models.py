from __future__ import annotations

import copy

import pytest
import torch
import torchvision
from torch import nn

from detpipe.backbone.torchvision_models import TorchvisionBackbone, build, input_spec

# Strides of maps, feature width, stages: the families that build their trunk in different ways, at their smallest.
FAMILIES = {
    "alexnet": ([4, 8, 16, 32], 4096, 4),
    "googlenet": ([2, 4, 8, 16, 32], 1024, 5),
    "resnet18": ([2, 4, 8, 16, 32], 512, 5),
    "mobilenet_v3_small": ([2, 4, 8, 16, 32], 1024, 6),
    "efficientnet_b0": ([2, 4, 8, 16, 32], 1280, 5),
    "squeezenet1_1": ([2, 4, 8, 16], 512, 4),
    "shufflenet_v2_x0_5": ([2, 4, 8, 16, 32], 1024, 4),
    "mnasnet0_5": ([2, 4, 8, 16, 32], 1280, 5),
    "regnet_y_400mf": ([2, 4, 8, 16, 32], 440, 5),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_families(name: str) -> None:
    strides, width, stages = FAMILIES[name]
    network = build(name).eval()
    reference = copy.deepcopy(network)
    backbone = TorchvisionBackbone(name, network).eval()
    assert [m.stride for m in backbone.feature_maps.values()] == strides
    assert list(backbone.feature_maps) == [f"stride{stride}" for stride in strides]
    assert backbone.feature_width == width
    x = torch.randn(2, 3, 128, 160)
    with torch.inference_mode():
        assert backbone(x).shape == (2, width)
        if backbone.classifier is not None:
            torch.testing.assert_close(backbone.classify(x), reference(x))
        for key, output in backbone.forward_maps(x, backbone.feature_maps).items():
            stride = backbone.feature_maps[key].stride
            assert output.shape[:2] == (2, backbone.feature_maps[key].channels)
            assert abs(output.shape[3] * stride - 160) <= 2 * stride
    assert len(backbone.stages) == stages
    in_stages = {id(parameter) for _, stage in backbone.stages for parameter in stage.parameters()}
    assert in_stages == {id(parameter) for parameter in backbone.network.parameters()}


def test_resnet_maps_are_the_ends_of_its_layers() -> None:
    backbone = TorchvisionBackbone("resnet18", build("resnet18")).eval()
    net = backbone.network
    assert isinstance(net, torchvision.models.ResNet)
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        want = net.layer2(net.layer1(net.maxpool(net.relu(net.bn1(net.conv1(x))))))
        got = backbone.forward_maps(x, ["stride8"])["stride8"]
    assert torch.equal(got, want)
    stem = backbone.stages[0][1]
    assert {id(p) for p in stem.parameters()} == {id(p) for m in (net.conv1, net.bn1) for p in m.parameters()}


def test_vgg_freezes_as_fast_rcnn_does() -> None:
    """Fast R-CNN (Girshick 2015, section 4.5) leaves conv1_1 to conv2_2 of VGG16 as they are."""
    backbone = TorchvisionBackbone("vgg16", meta_vgg())
    backbone.freeze(stages=2)
    convs = [module for module in backbone.modules() if isinstance(module, nn.Conv2d)]
    assert [conv.weight.requires_grad for conv in convs] == [False] * 4 + [True] * 9
    assert backbone.stages[-1][0] == "top"


def meta_vgg() -> nn.Module:
    with torch.device("meta"):
        return build("vgg16")


def test_no_images_and_no_maps() -> None:
    backbone = TorchvisionBackbone("resnet18", build("resnet18")).eval()
    assert backbone(torch.zeros(0, 3, 64, 64)).shape == (0, 512)
    assert backbone.forward_maps(torch.zeros(1, 3, 64, 64), []) == {}
    with pytest.raises(ValueError, match="no feature map"):
        backbone.forward_maps(torch.zeros(1, 3, 64, 64), ["layer1"])


def test_transformers_have_features_but_no_maps() -> None:
    backbone = TorchvisionBackbone("vit_b_32", build("vit_b_32")).eval()
    assert backbone.feature_maps == {}
    assert [name for name, _ in backbone.stages] == ["network"]
    with torch.inference_mode():
        assert backbone(torch.zeros(1, 3, 224, 224)).shape == (1, 768)


def test_input_spec_in_units_of_255() -> None:
    spec = input_spec("resnet18")
    assert spec.size == (224, 224)
    assert spec.mean == pytest.approx((123.675, 116.28, 103.53))
    assert spec.std == pytest.approx((58.395, 57.12, 57.375))


def test_unknown_name() -> None:
    with pytest.raises(ValueError, match=r"'resnet19'.*resnet1"):
        build("resnet19")
    with pytest.raises(ValueError, match=r"backbone\.name: .*'fasterrcnn_resnet50_fpn'"):
        input_spec("fasterrcnn_resnet50_fpn")
