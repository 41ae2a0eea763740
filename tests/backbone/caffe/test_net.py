from __future__ import annotations

import copy
import resource
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from detpipe.backbone.backbone import meta_copy
from detpipe.backbone.caffe.caffe_net_pb2 import NetParameter
from detpipe.backbone.caffe.load import build_net
from detpipe.backbone.caffe.net import Net
from detpipe.backbone.caffe.prototxt import parse_prototxt
from tests.backbone.caffe.one_error import at_most_one_error

FILLED = 'weight_filler { type: "xavier" }'
SMALL = f"""
name: "small"
layer {{ name: "data" type: "Input" top: "data" top: "label"
         input_param {{ shape {{ dim: [2, 1, 6, 6] }} shape {{ dim: 2 }} }} }}
layer {{ name: "conv" type: "Convolution" bottom: "data" top: "conv" param {{ lr_mult: 1 }}
         param {{ lr_mult: 2 decay_mult: 0 }} convolution_param {{ num_output: 3 kernel_size: 3 {FILLED} }} }}
layer {{ name: "relu" type: "ReLU" bottom: "conv" top: "conv" }}
layer {{ name: "pool.1/a" type: "Pooling" bottom: "conv" top: "pool"
         pooling_param {{ pool: AVE global_pooling: true }} }}
layer {{ name: "fc" type: "InnerProduct" bottom: "pool" top: "fc" inner_product_param {{ num_output: 4 {FILLED} }} }}
layer {{ name: "prob" type: "Softmax" bottom: "fc" top: "prob" include {{ phase: TEST }} }}
layer {{ name: "accuracy" type: "Accuracy" bottom: "fc" bottom: "label" top: "accuracy" include {{ phase: TEST }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" loss_weight: 3 }}
"""


def small(train: bool = False, **options: object) -> Net:
    return build_net(parse_prototxt(SMALL), train=train, **options)


def test_outputs_are_the_blobs_that_nobody_takes() -> None:
    x, labels = torch.randn(5, 1, 6, 6), torch.tensor([0, 1, 2, 3, 0])
    assert list(small()(x, labels)) == ["prob", "accuracy", "loss"]
    assert list(small()(x)) == ["prob"]
    assert list(small(train=True)(x, labels)) == ["loss"]
    assert list(small(train=True)(x)) == ["fc"]
    assert small()(x[:0])["prob"].shape == (0, 4)
    for wrong in ((), (x, labels, labels)):
        with pytest.raises(ValueError, match="expected the inputs"):
            small()(*wrong)


def test_a_layer_in_place_gives_its_blob_anew() -> None:
    net, x = small(), torch.randn(2, 1, 6, 6)
    blobs = net.named_blobs(["conv", "fc"], x)
    assert (blobs["conv"] >= 0).all()
    assert list(net.named_blobs([], x)) == []
    with pytest.raises(ValueError, match="'nothing'"):
        net.named_blobs(["nothing"], x)


def test_the_code_is_python_that_does_the_same() -> None:
    net, x, labels = small(), torch.randn(2, 1, 6, 6), torch.tensor([0, 1])
    assert "layers_conv = self.layers.conv(data)" in net.code
    graph = net.graph_module()
    assert {name: value.tolist() for name, value in graph(x, labels).items()} == {
        name: value.tolist() for name, value in net(x, labels).items()
    }
    assert graph.layers.conv.weight is net.layers["conv"].weight


def test_loss_weights_and_a_step_of_training() -> None:
    net, x, labels = small(train=True), torch.randn(8, 1, 6, 6), torch.arange(8) % 4
    first = net(x, labels)
    assert net.loss(first).item() == pytest.approx(3 * first["loss"].item())
    net.loss(first).backward()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter -= 0.05 * parameter.grad
    assert net(x, labels)["loss"] < first["loss"]
    with pytest.raises(ValueError, match="the labels too"):
        net.loss(net(x))


def test_multipliers_by_parameter() -> None:
    assert small().multipliers() == {
        "layers.conv.weight": (1, 1),
        "layers.conv.bias": (2, 0),
        "layers.fc.weight": (1, 1),
        "layers.fc.bias": (1, 1),
    }


def test_propagate_down_ends_a_gradient() -> None:
    """Of the bottoms that say so; the parameters of the layer itself learn, and the numbers are the same."""
    text = """
    layer { name: "in" type: "Input" top: "a" input_param { shape { dim: [2, 3] } } }
    layer { name: "low" type: "InnerProduct" bottom: "a" top: "low" inner_product_param { num_output: 3 } }
    layer { name: "high" type: "InnerProduct" bottom: "low" top: "high" propagate_down: false
            inner_product_param { num_output: 3 } }
    layer { name: "sum" type: "Eltwise" bottom: "high" bottom: "a" top: "sum" propagate_down: [true, false] }
    """
    net, x = build_net(parse_prototxt(text)), torch.ones(2, 3, requires_grad=True)
    for one in (net, net.graph_module()):
        net.zero_grad()
        one(x)["sum"].sum().backward()
        assert net.layers["low"].weight.grad is None
        assert net.layers["high"].bias.grad.tolist() == [2, 2, 2]
        assert x.grad is None
    with pytest.raises(
        ValueError, match=r"layer 'high' \(InnerProduct\): expected propagate_down for each of 1 bottoms"
    ):
        build_net(parse_prototxt(text.replace("propagate_down: false", "propagate_down: [true, false]")))


def test_keep_only() -> None:
    net = small()
    wanted = net.named_blobs(["pool"], x := torch.randn(2, 1, 6, 6))["pool"]
    net.keep_only(["pool"])
    assert list(net.layers) == ["conv", "relu", "pool_1/a"]
    assert list(net.inputs) == ["data"]
    assert torch.equal(net(x)["pool"], wanted)
    with pytest.raises(ValueError, match="expected blobs of the net, got"):
        net.keep_only(["no"])


def test_copies_are_whole() -> None:
    net, x = small(), torch.randn(2, 1, 6, 6)
    assert torch.equal(copy.deepcopy(net)(x)["prob"], net(x)["prob"])
    assert meta_copy(net)(x.to("meta"))["prob"].shape == (2, 4)


def test_the_generator_decides_what_is_drawn() -> None:
    def weights(seed: int) -> torch.Tensor:
        return small(generator=torch.Generator().manual_seed(seed)).layers["conv"].weight

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))
    assert torch.equal(small().layers["conv"].weight, weights(0))
    # Its bound is sqrt(3 / 9), and biases begin at 0.
    assert 0.4 < weights(1).abs().max() <= 3**-0.5


SHARED = """
layer { name: "in" type: "Input" top: "a" top: "b" input_param { shape { dim: 2 dim: 3 } } }
layer { name: "one" type: "InnerProduct" bottom: "a" top: "p" param { name: "w" lr_mult: 5 } param { name: "v" }
        inner_product_param { num_output: 4 weight_filler { type: "gaussian" } } }
layer { name: "two" type: "InnerProduct" bottom: "b" top: "q" param { name: "w" } param { name: "v" decay_mult: 0 }
        inner_product_param { num_output: 4 } }
"""


def test_parameters_of_one_name_are_one() -> None:
    net = build_net(parse_prototxt(SHARED))
    assert net.layers["one"].weight is net.layers["two"].weight
    assert len(list(net.parameters())) == 2
    x = torch.randn(2, 3)
    out = net(x, x)
    assert torch.equal(out["p"], out["q"])
    (out["p"].sum() + out["q"].sum()).backward()
    torch.testing.assert_close(net.layers["one"].weight.grad, 2 * x.sum(0).expand(4, 3))
    assert net.multipliers() == {"layers.one.weight": (5, 1), "layers.one.bias": (1, 0)}
    assert torch.equal(copy.deepcopy(net)(x, x)["p"], out["p"])
    with pytest.raises(ValueError, match=r"'two' shares 'w' with 'one': expected \(4, 3\), got \(5, 3\)"):
        build_net(parse_prototxt(SHARED[::-1].replace("4 :tuptuo_mun", "5 :tuptuo_mun", 1)[::-1]))


@pytest.mark.parametrize(
    ("layers", "wrong"),
    [
        ("", "a net with an input"),
        ('layer { name: "r" type: "ReLU" bottom: "x" top: "y" }', r"layer 'r' \(ReLU\): expected bottoms that .*'x'"),
        ('layer { name: "r" type: "ReLU" top: "y" }', r"layer 'r' \(ReLU\): expected 1 bottoms, got 0"),
        ('input: "a" input_dim: [1, 1, -1, 1]', "0 or more"),
        ('input: "a" input_dim: [99999, 99999, 9, 9]', "at most 2147483647"),
        ('input: "a" input: "a" input_shape { dim: 1 } input_shape { dim: 1 }', "'a' again"),
        (
            'input: "a" input: "b" input_shape { dim: 1 } input_shape { dim: 1 } '
            'layer { name: "r" type: "ReLU" bottom: "a" top: "b" }',
            r"'b'\] again",
        ),
        (
            'input: "a" input_dim: [1, 30000, 1, 1] layer { name: "f" type: "InnerProduct" bottom: "a" top: "f" '
            "inner_product_param { num_output: 30000 } }",
            "at most 536870912 parameters, got 900030000",
        ),
        ('layer { name: "r" type: "ReLU" }' * 4001, "at most 4000 layers"),
    ],
)
def test_broken_nets_end_at_once(layers: str, wrong: str) -> None:
    begun = time.process_time()
    with pytest.raises(ValueError, match=f"^n: .*{wrong}"):
        build_net(parse_prototxt(layers), where="n")
    assert time.process_time() - begun < 3


def test_a_blob_that_doubles_with_each_layer() -> None:
    doubling = "".join(
        f'layer {{ name: "c{i}" type: "Concat" bottom: "b{i}" bottom: "b{i}" top: "b{i + 1}" }}' for i in range(99)
    )
    with pytest.raises(ValueError, match=r"layer 'c28' \(Concat\): .*at most 536870912 elements"):
        build_net(parse_prototxt(f'input: "b0" input_shape {{ dim: 1 dim: 1 }} {doubling}'))


numbers = st.integers(-3, 5) | st.sampled_from([0, 2**31 - 1, 2**31, 2**32 - 1, -(2**31), 2**62])


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_any_settings_make_a_net_or_one_error(data: st.DataObject) -> None:
    kinds = ["Convolution", "Deconvolution", "Pooling", "InnerProduct", "LRN", "Reshape", "Slice", "Flatten", "Scale",
             "Concat", "Softmax", "BatchNorm"]  # fmt: skip
    kind = data.draw(st.sampled_from(kinds))
    net = NetParameter(input=["a"])
    net.input_shape.add(dim=data.draw(st.lists(numbers, max_size=5)))
    layer = net.layer.add(name="one", type=kind, bottom=["a"], top=["y"])
    fields = [f for f in layer.DESCRIPTOR.fields if f.name.endswith("_param") and f.name not in ("transform_param",)]
    message = getattr(layer, data.draw(st.sampled_from([f.name for f in fields])))
    for field in data.draw(st.lists(st.sampled_from([f.name for f in message.DESCRIPTOR.fields]), max_size=4)):
        value = data.draw(numbers)
        try:
            if field == "shape":
                message.shape.dim.append(value)
            elif isinstance(getattr(message, field), int | float):
                setattr(message, field, value)
            else:
                getattr(message, field).append(value)
        except (ValueError, TypeError, AttributeError, OverflowError):
            continue  # protobuf itself refuses it
    with at_most_one_error("n: "):
        build_net(net, where="n")


@pytest.mark.parametrize(
    "layers",
    [
        "",  # the input itself, 1 x 2 x 20000 x 20000
        'layer { name: "c" type: "Convolution" bottom: "a" top: "b" '
        "convolution_param { num_output: 4 kernel_size: 1 } }",
        'layer { name: "s" type: "Split" bottom: "a" top: "b" top: "c" }',
        'layer { name: "d" type: "Deconvolution" bottom: "a" top: "b" '
        "convolution_param { num_output: 1 kernel_size: 2 stride: 90 } }",
        'layer { name: "p" type: "Pooling" bottom: "a" top: "b" pooling_param { kernel_size: 1 stride: 30000 } }',
    ],
)
def test_a_net_with_too_many_activations_is_refused_before_memory_is_allocated(layers: str) -> None:
    side = 20_000 if not layers or "Convolution" in layers or "Split" in layers else 300
    text = f'input: "a" input_shape {{ dim: [1, 2, {side}, {side}] }} {layers}'
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=r"^n: layer '\w' \(\w+\): .*at most 536870912 elements for one"):
        build_net(parse_prototxt(text), where="n")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 1 << 18  # kB


def test_activations_are_counted_for_one_image() -> None:
    text = 'input: "a" input_shape { dim: [IMAGES, 1, 4096, 4096] }' + "".join(
        f'layer {{ name: "r{i}" type: "ReLU" bottom: "a" top: "{top}" }}' for i, top in enumerate(["b", "c", "a", "a"])
    )
    # Three blobs of 2^24 elements; layers in place have none of their own.
    for images in (1, 40):
        assert len(build_net(parse_prototxt(text.replace("IMAGES", str(images)))).shapes) == 3
