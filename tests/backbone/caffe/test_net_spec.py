from __future__ import annotations

import pytest
import torch

from detpipe.backbone.caffe.layers import BUILDERS
from detpipe.backbone.caffe.load import build_net
from detpipe.backbone.caffe.net_spec import NetSpec, own_settings
from detpipe.backbone.caffe.presets import PRESETS, preset


def test_a_net_written_in_python() -> None:
    net = NetSpec("tiny")
    data = net.input("data", (1, 3, 8, 8))
    conv = net.add("Convolution", data, name="conv", num_output=4, kernel_size=3, weight_filler={"type": "msra"})
    net.add("ReLU", conv, name="relu", top=conv)
    a, b = net.add_tops("Slice", conv, name="slice", tops=["a", "b"], slice_point=1, include=[{"phase": "TEST"}])
    net.add("Pooling", b, name="pool", pool="AVE", global_pooling=True)
    net.add("Softmax", a, name="prob", axis=-1)
    assert 'weight_filler {\n      type: "msra"\n    }' in net.prototxt()
    out = build_net(net.definition)(torch.randn(2, 3, 8, 8))
    assert {name: tuple(blob.shape) for name, blob in out.items()} == {"pool": (2, 3, 1, 1), "prob": (2, 1, 6, 6)}
    again = NetSpec.from_prototxt(net.prototxt())
    assert again.definition == net.definition


@pytest.mark.parametrize("name", PRESETS)
def test_text_to_python_and_back(name: str) -> None:
    spec = NetSpec.from_prototxt(preset(name).read_text())
    names: dict[str, NetSpec] = {}
    exec(spec.python(), {"NetSpec": NetSpec}, names)
    assert names["net"].definition == spec.definition
    assert names["net"].prototxt() == spec.prototxt()


def test_old_texts_come_out_new() -> None:
    spec = NetSpec.from_prototxt('layers { name: "r" type: RELU bottom: "a" top: "a" }')
    assert spec.python() == "net = NetSpec('')\nnet.add('ReLU', 'a', name='r', top='a')\n"
    assert NetSpec().prototxt() == 'name: ""\n'


def test_each_layers_own_settings() -> None:
    found = {kind: own_settings(kind) for kind in BUILDERS}
    assert found["InnerProduct"] == "inner_product_param"
    assert found["Deconvolution"] == "convolution_param"
    assert found["LRN"] == "lrn_param"
    assert {kind for kind, name in found.items() if name is None} == {"AbsVal", "Silence", "Split"}


@pytest.mark.parametrize(
    ("kind", "options", "wrong"),
    [
        ("PriorBox", {}, "layer 'x' has the type 'PriorBox'"),
        ("ReLU", {"num_output": 3}, r"layer 'x' \(ReLU\): expected a setting of .*negative_slope.*, got 'num_output'"),
        ("Pooling", {"pool": "MEDIAN"}, r"layer 'x' \(Pooling\): .*MEDIAN"),
        ("Convolution", {"num_output": "many"}, r"layer 'x' \(Convolution\): .*num_output"),
        ("Convolution", {"weight_filler": {"kind": "a"}}, "kind"),
        ("Split", {"axis": 1}, "expected a setting of"),
    ],
)
def test_wrong_settings(kind: str, options: dict[str, object], wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        NetSpec().add(kind, "a", name="x", **options)
