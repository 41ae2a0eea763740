from __future__ import annotations

import pytest
import torch

from tests.backbone.caffe.one_layer import make, set_blobs


def test_all_axes_from_one_on_by_hand() -> None:
    net = make('type: "InnerProduct" inner_product_param { num_output: 2 }', (1, 2, 1, 2))
    set_blobs(net, [[1.0, 0, 0, 0], [0, 10, 100, 1000]], [0.5, 0])
    assert net(torch.tensor([1.0, 2, 3, 4]).reshape(1, 2, 1, 2))["y"].tolist() == [[1.5, 4320]]
    assert net(torch.zeros(0, 2, 1, 2))["y"].shape == (0, 2)


def test_transposed_weights_and_another_axis() -> None:
    x = torch.randn(3, 4, 5)
    plain = make('type: "InnerProduct" inner_product_param { num_output: 2 axis: -1 bias_term: false }', x.shape)
    turned = make(
        'type: "InnerProduct" inner_product_param { num_output: 2 axis: 2 bias_term: false transpose: true }', x.shape
    )
    weight = torch.randn(2, 5)
    set_blobs(plain, weight)
    set_blobs(turned, weight.t())
    assert turned.layers["one"].weight.shape == (5, 2)
    assert plain(x)["y"].shape == (3, 4, 2)
    torch.testing.assert_close(plain(x)["y"], turned(x)["y"])
    torch.testing.assert_close(plain(x)["y"], x @ weight.t())


@pytest.mark.parametrize(("setting", "wrong"), [("", "num_output of 1"), ("num_output: 1 axis: 4", "expected axis in")])
def test_wrong_settings(setting: str, wrong: str) -> None:
    with pytest.raises(ValueError, match=rf"layer 'one' \(InnerProduct\): .*{wrong}"):
        make(f'type: "InnerProduct" inner_product_param {{ {setting} }}', (1, 3, 4, 4))
