from __future__ import annotations

import pytest
import torch

from detpipe.backbone.caffe.caffe_net_pb2 import ParamSpec, V1LayerParameter
from detpipe.backbone.caffe.layers import BUILDERS, INPUTS
from detpipe.backbone.caffe.load import build_net
from detpipe.backbone.caffe.prototxt import parse_prototxt
from detpipe.backbone.caffe.upgrade import V1_TYPES, upgrade

V1 = """
name: "old"
input: "data" input_dim: 1 input_dim: 2 input_dim: 3 input_dim: 3
layers { name: "c" type: CONVOLUTION bottom: "data" top: "c" blobs_lr: 1 blobs_lr: 2 weight_decay: 1 weight_decay: 0
         convolution_param { num_output: 4 kernel_size: 3 } }
layers { name: "r" type: RELU bottom: "c" top: "c" }
layers { name: "f" type: INNER_PRODUCT bottom: "c" top: "f" param: "w" param: "" blob_share_mode: PERMISSIVE
         inner_product_param { num_output: 2 } include { phase: TEST } }
layers { name: "p" type: SOFTMAX bottom: "f" top: "p" }
"""


def test_v1_layers_become_those_of_today() -> None:
    net = upgrade(parse_prototxt(V1))
    assert [layer.type for layer in net.layer] == ["Input", "Convolution", "ReLU", "InnerProduct", "Softmax"]
    assert list(net.layer[0].input_param.shape[0].dim) == [1, 2, 3, 3]
    assert [(spec.lr_mult, spec.decay_mult) for spec in net.layer[1].param] == [(1, 1), (2, 0)]
    assert net.layer[1].convolution_param.num_output == 4
    assert [spec.name for spec in net.layer[3].param] == ["w", ""]
    assert net.layer[3].param[0].share_mode == ParamSpec.PERMISSIVE
    assert net.layer[3].include[0].phase == 1
    assert not net.input
    assert not net.layers
    assert upgrade(net) == net
    assert build_net(parse_prototxt(V1))(torch.zeros(5, 2, 3, 3))["p"].shape == (5, 2)


def test_every_number_of_v1_has_its_name() -> None:
    assert V1_TYPES.keys() == set(V1LayerParameter.LayerType.keys())
    known = {*BUILDERS, *INPUTS}
    assert {"Convolution", "SoftmaxWithLoss", "LRN", "HDF5Data"} <= known & set(V1_TYPES.values())


def test_settings_that_moved() -> None:
    text = "layers { type: DATA data_param { scale: 0.5 mean_file: 'm' crop_size: 7 mirror: true batch_size: 2 } }"
    (layer,) = upgrade(parse_prototxt(text)).layer
    transform = layer.transform_param
    assert (transform.scale, transform.mean_file, transform.crop_size, transform.mirror) == (0.5, "m", 7, True)
    assert layer.data_param.batch_size == 2


def test_inputs_with_shapes_and_without() -> None:
    net = upgrade(parse_prototxt('input: "a" input: "b" input_shape { dim: 1 dim: 2 } input_shape { dim: 3 }'))
    assert [list(layer.input_param.shape[0].dim) for layer in net.layer] == [[1, 2], [3]]
    assert not upgrade(parse_prototxt('input: "a"')).layer[0].input_param.shape


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("layer { } layers { }", "got both"),
        ('input: "a" input_dim: 1', "four input_dim"),
        ('input: "a" input_dim: [1, 1, 1, 1, 1, 1, 1, 1]', "a shape for each input, got 2 shapes for 1"),
        ('input: "a" input_dim: [1, 1, 1, 1] input_shape { dim: 1 }', "input_dim or input_shape"),
    ],
)
def test_what_does_not_go_together(text: str, wrong: str) -> None:
    with pytest.raises(ValueError, match=f"^n: .*{wrong}"):
        upgrade(parse_prototxt(text), "n")


def test_nothing_stays_nothing() -> None:
    assert len(upgrade(parse_prototxt("")).layer) == 0


def test_statistics_of_batch_norm_are_not_learnt() -> None:
    """As UpgradeNetBatchNorm has it: where all three are given, the names stay and the multipliers become 0."""
    layer = 'layer { type: "BatchNorm" param { name: "mean" lr_mult: 1 } param { decay_mult: 1 } param { } }'
    (found,) = upgrade(parse_prototxt(layer)).layer
    assert [(spec.name, spec.lr_mult, spec.decay_mult) for spec in found.param] == [
        ("mean", 0, 0),
        ("", 0, 0),
        ("", 0, 0),
    ]
