from __future__ import annotations

import pytest
import torch

from detpipe.backbone.caffe.caffe_net_pb2 import ParamSpec, PoolingParameter, V1LayerParameter
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


# --- Fields of forks --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fork", "ours"),
    [
        ("pooling_param { kernel_size: 3 ceil_mode: false }", "pooling_param { kernel_size: 3 round_mode: FLOOR }"),
        ("pooling_param { kernel_size: 3 ceil_mode: true }", "pooling_param { kernel_size: 3 round_mode: CEIL }"),
        ("convolution_param { kernel_size: 3 hole: 2 }", "convolution_param { kernel_size: 3 dilation: 2 }"),
        ("convolution_param { hole: 4 hole_h: 2 }", "convolution_param { dilation: 2 dilation: 4 }"),
        ("dropout_param { dropout_ratio: 0.2 scale_train: true }", "dropout_param { dropout_ratio: 0.2 }"),
        ("convolution_param { num_output: 3 engine: MKL2017 }", "convolution_param { num_output: 3 }"),
        ('relu_param { engine: MKLDNN } engine: "MKLDNN"', "relu_param { }"),
        (
            'type: "DepthwiseConvolution" convolution_param { num_output: 8 group: 8 }',
            'type: "Convolution" convolution_param { num_output: 8 group: 8 }',
        ),
        (
            'type: "ConvolutionDepthwise" convolution_param { num_output: 8 }',
            'type: "Convolution" convolution_param { num_output: 8 group: 8 }',
        ),
    ],
)
def test_fields_of_forks_become_caffes(fork: str, ours: str) -> None:
    assert upgrade(parse_prototxt(f"layer {{ {fork} }}")) == upgrade(parse_prototxt(f"layer {{ {ours} }}"))


def test_fields_of_forks_in_v1_layers() -> None:
    text = "layers { type: POOLING pooling_param { ceil_mode: false } convolution_param { hole: 3 } }"
    (layer,) = upgrade(parse_prototxt(text)).layer
    assert layer.pooling_param == PoolingParameter(round_mode=PoolingParameter.FLOOR)
    assert list(layer.convolution_param.dilation) == [3]


@pytest.mark.parametrize(
    ("fork", "wrong"),
    [
        ("pooling_param { ceil_mode: false round_mode: CEIL }", "ceil_mode or round_mode"),
        ("convolution_param { hole: 2 dilation: 2 }", "hole or dilation"),
        ("dropout_param { scale_train: false dropout_ratio: 0.75 }", r"scale_train: .*Power layer with scale 0\.25"),
    ],
)
def test_fields_of_forks_without_one_meaning_are_refused(fork: str, wrong: str) -> None:
    with pytest.raises(ValueError, match=f"^f: layer 'x': .*{wrong}"):
        upgrade(parse_prototxt(f'layer {{ name: "x" {fork} }}'), "f")


def test_ceil_mode_changes_the_size_of_a_map() -> None:
    text = """input: "a" input_shape { dim: 1 dim: 1 dim: 6 dim: 6 }
    layer { name: "p" type: "Pooling" bottom: "a" top: "b" pooling_param { kernel_size: 3 stride: 2 MODE } }"""
    for mode, side in (("ceil_mode: false", 2), ("ceil_mode: true", 3), ("", 3)):  # windows at 0, 2 and, cut off, 4
        assert build_net(parse_prototxt(text.replace("MODE", mode))).shapes["b"] == (1, 1, side, side)
