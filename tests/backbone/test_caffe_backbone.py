from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from detpipe.backbone.caffe.load import load_caffe, save_caffemodel
from detpipe.backbone.caffe_backbone import GREY_OF_BGR, CaffeBackbone, channel_means
from detpipe.backbone.create import create_backbone, written_out
from detpipe.backbone.input_spec import ChannelOrder
from detpipe.backbone.settings import BackboneConfig
from detpipe.storage.caffe_blob import write_blob

TEXT = """
layer { name: "data" type: "Data" top: "data" top: "label"
        transform_param { crop_size: 32 mean_value: [1, 2, 3] scale: 0.5 } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1" convolution_param { num_output: 4 kernel_size: 3
        stride: 2 pad: 1 weight_filler { type: "xavier" } } }
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
layer { name: "pool1" type: "Pooling" bottom: "conv1" top: "pool1" pooling_param { kernel_size: 2 stride: 2 } }
layer { name: "conv2" type: "Convolution" bottom: "pool1" top: "conv2" convolution_param { num_output: 6 kernel_size: 3
        pad: 1 weight_filler { type: "xavier" } } }
layer { name: "fc6" type: "InnerProduct" bottom: "conv2" top: "fc6" inner_product_param { num_output: 10
        weight_filler { type: "xavier" } } }
layer { name: "relu6" type: "ReLU" bottom: "fc6" top: "fc6" }
layer { name: "drop6" type: "Dropout" bottom: "fc6" top: "fc6" }
layer { name: "fc7" type: "InnerProduct" bottom: "fc6" top: "fc7" inner_product_param { num_output: 1000
        weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc7" bottom: "label" top: "loss" }
"""


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    """A prototxt, and weights for it."""
    (tmp_path / "net.prototxt").write_text(TEXT)
    save_caffemodel(load_caffe(tmp_path / "net.prototxt"), tmp_path / "net.caffemodel")
    return str(tmp_path / "net.prototxt"), str(tmp_path / "net.caffemodel")


def config(prototxt: str, weights: str = "none", **options: object) -> BackboneConfig:
    return BackboneConfig(name="caffe", prototxt=prototxt, weights=weights, **{"input_size": None, **options})


def test_features_maps_and_logits_are_the_nets_own(files: tuple[str, str]) -> None:
    backbone, net = create_backbone(config(*files)), load_caffe(*files)
    images = torch.randint(0, 256, (3, 32, 32, 3), dtype=torch.uint8)
    x = backbone.spec.to_input(images)
    # BGR, less the mean, times the scale.
    assert x[0, 0, 5, 6].item() == (images[0, 5, 6, 2].item() - 1) * 0.5
    wanted = net.named_blobs(["conv1", "conv2", "fc6", "fc7"], x)
    assert torch.equal(backbone(x), wanted["fc6"])
    assert torch.equal(backbone.classify(x), wanted["fc7"])
    assert torch.equal(backbone.forward_maps(x, ["conv1"])["conv1"], wanted["conv1"])
    assert torch.equal(backbone.forward_maps(x, ["stride4"])["stride4"], wanted["conv2"])
    assert {name: (m.stride, m.channels) for name, m in backbone.feature_maps.items()} == {
        "conv1": (2, 4), "pool1": (4, 4), "conv2": (4, 6), "stride2": (2, 4), "stride4": (4, 6),
    }  # fmt: skip
    assert backbone.feature_width == 10
    assert backbone.spec.channel_order is ChannelOrder.BGR
    assert backbone(x[:0]).shape == (0, 10)
    assert backbone.forward_maps(x, []) == {}
    with pytest.raises(ValueError, match="no feature map"):
        backbone.forward_maps(x, ["conv9"])


def test_stages_freeze(files: tuple[str, str]) -> None:
    backbone = create_backbone(config(*files))
    assert [name for name, _ in backbone.stages] == ["stride2", "stride4", "top"]
    backbone.freeze(stages=2)
    backbone.train()
    backbone(torch.randn(4, 3, 32, 32)).sum().backward()
    got = {name for name, p in backbone.named_parameters() if p.grad is not None}
    assert got == {"network.layers.fc6.weight", "network.layers.fc6.bias"}


def test_a_new_size_needs_new_weights_or_none(files: tuple[str, str]) -> None:
    backbone = create_backbone(config(files[0], input_size=64))
    assert backbone.spec.size == (64, 64)
    assert backbone.classifier is None
    assert backbone(torch.zeros(1, 3, 64, 64)).shape == (1, 10)
    with pytest.raises(ValueError, match=r"layer 'fc6': .*\(10, 1536\).*give the input size of the file"):
        create_backbone(config(*files, input_size=64))


def test_a_net_that_ends_in_a_convolution(shared_data: Path) -> None:
    folder = shared_data / "caffe/squeezenet_v1.1"
    options = config(str(folder / "train_val.prototxt"), str(folder / "squeezenet_v1.1.caffemodel"), input_size=128)
    backbone = create_backbone(options)
    assert isinstance(backbone, CaffeBackbone)
    assert backbone.spec.mean == (104, 117, 123)
    assert (backbone.feature_width, backbone.classifier) == (512, None)
    x = torch.randn(2, 3, 128, 128)
    torch.testing.assert_close(backbone(x), backbone.forward_maps(x, ["stride16"])["stride16"].mean((2, 3)))
    assert "conv10" not in backbone.network.layers


def test_a_net_that_sees_grey(shared_data: Path) -> None:
    folder = shared_data / "caffe/lenet_ethereon"
    files = (str(folder / "lenet.prototxt"), str(folder / "lenet_iter_10000.caffemodel"))
    backbone, net = create_backbone(config(*files, mean=[0], scale=1 / 256)), load_caffe(*files)
    images = torch.randint(0, 256, (2, 28, 28, 3), dtype=torch.uint8)
    grey = (images.flip(-1) * torch.tensor(GREY_OF_BGR)).sum(-1)[:, None] / 256
    torch.testing.assert_close(backbone.classify(backbone.spec.to_input(images)), net.named_blobs(["ip2"], grey)["ip2"])


def test_grey_images_are_seen_as_published() -> None:
    """LeNet's input is one plane of pixels times 1/256, to the bit, for all that a pixel can be."""
    backbone = create_backbone(config("lenet"))
    assert isinstance(backbone, CaffeBackbone)
    pixels = torch.arange(28 * 28).reshape(1, 28, 28).to(torch.uint8)
    x = backbone.spec.to_input(pixels[..., None].repeat(1, 1, 1, 3))
    assert torch.equal(backbone._seen(x), pixels[:, None] * 0.00390625)
    assert backbone._seen(x[:0]).shape == (0, 1, 28, 28)
    wanted = backbone.network.named_blobs(["ip1"], pixels[:, None] * 0.00390625)["ip1"]
    torch.testing.assert_close(backbone(x), wanted)


def test_our_own_checkpoint(files: tuple[str, str], tmp_path: Path) -> None:
    source = create_backbone(config(*files))
    torch.save({"model": source.state_dict()}, tmp_path / "w.pth")
    backbone = create_backbone(config(files[0], str(tmp_path / "w.pth")))
    x = torch.randn(1, 3, 32, 32)
    assert torch.equal(backbone(x), source(x))
    assert backbone.classifier is None  # it stands elsewhere in the file


def test_none_is_drawn_from_the_callers_seed(files: tuple[str, str]) -> None:
    weights = []
    for _ in range(2):
        torch.manual_seed(3)
        weights.append(create_backbone(config(files[0])).state_dict())
    assert all(torch.equal(a, b) for a, b in zip(*(state.values() for state in weights), strict=True))


def test_mean_and_scale_as_numbers(files: tuple[str, str], tmp_path: Path) -> None:
    plain = written_out(config(files[0]))
    assert (plain.mean, plain.mean_file, plain.scale) == ([1, 2, 3], None, 0.5)
    np.save(tmp_path / "mean.npy", np.full((3, 2, 2), [[[7.0]], [[8]], [[9]]]))
    plain = written_out(config(files[0], mean_file=str(tmp_path / "mean.npy"), scale=2.0))
    assert (plain.mean, plain.mean_file, plain.scale) == ([7, 8, 9], None, 2)
    assert written_out(BackboneConfig()) == BackboneConfig()
    with pytest.raises(ValueError, match=r"backbone\.mean=\[104,117,123\]"):
        written_out(config("caffenet"))
    (tmp_path / "net.prototxt").write_text(TEXT.replace("mean_value: [1, 2, 3]", 'mean_file: "m.binaryproto"'))
    with pytest.raises(ValueError, match=r"m\.binaryproto.*backbone\.mean_file=FILE"):
        written_out(config(files[0]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "caffe", "weights": "none"}, "backbone.prototxt: .* got none"),
        ({"name": "caffe", "prototxt": "lenet"}, "has no ImageNet weights of its own"),
        ({"prototxt": "lenet"}, "name=caffe, got efficientnet_lite0"),
        ({"name": "caffe", "prototxt": "lenet", "weights": "none", "mean": [1, 2]}, "1 or 3 numbers"),
        (
            {"name": "caffe", "prototxt": "lenet", "weights": "none", "mean": [1], "mean_file": "a"},
            r"or backbone\.mean_file",
        ),
        ({"name": "caffe", "prototxt": "lenet", "weights": "none", "scale": 0}, "above 0"),
    ],
)
def test_wrong_settings(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BackboneConfig(**options)


def test_config_is_an_omegaconf_schema() -> None:
    values = {"name": "caffe", "prototxt": "lenet", "weights": "none", "mean": [104, 117, 123]}
    made = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(BackboneConfig), values))
    assert made.mean == [104, 117, 123]


def test_a_net_that_is_no_classifier_of_images(tmp_path: Path) -> None:
    (tmp_path / "n.prototxt").write_text(
        'input: "a" input_shape { dim: [2, 3] } layer { name: "f" type: "InnerProduct" bottom: "a" top: "f" '
        "inner_product_param { num_output: 2 } }"
    )
    with pytest.raises(ValueError, match="at least two InnerProduct or Convolution"):
        create_backbone(config(str(tmp_path / "n.prototxt"), mean=[0]))


def test_the_multipliers_of_the_text_are_those_of_its_parameters() -> None:
    backbone = create_backbone(BackboneConfig(name="caffe", prototxt="lenet", weights="none", mean=[0.0]))
    stated, names = backbone.multipliers(), dict(backbone.named_parameters())
    assert stated.keys() <= names.keys()
    assert stated["network.layers.conv1.weight"] == (1.0, 1.0)
    assert stated["network.layers.conv1.bias"] == (2.0, 1.0)


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
