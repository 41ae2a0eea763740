from __future__ import annotations

import pytest
import torch

from tests.backbone.caffe.one_layer import make, set_blobs


def test_groups_see_their_own_channels() -> None:
    net = make('type: "Convolution" convolution_param { num_output: 2 group: 2 kernel_size: 1 }', (1, 2, 1, 2))
    set_blobs(net, [2.0, 3.0], [0.5, 0.0])
    y = net(torch.tensor([[[[1.0, 2.0]], [[10.0, 20.0]]]]))["y"]
    assert y.tolist() == [[[[2.5, 4.5]], [[30, 60]]]]
    assert net.layers["one"].weight.shape == (2, 1, 1, 1)


def test_stride_padding_and_dilation_by_hand() -> None:
    text = 'type: "Convolution" convolution_param { num_output: 1 kernel_h: 1 kernel_w: 2 %s bias_term: false }'
    x = torch.tensor([[[[1.0, 2, 3, 4, 5]]]])
    for setting, wanted in (
        ("", [12, 23, 34, 45]),
        ("stride_h: 1 stride_w: 2", [12, 34]),
        ("pad_h: 0 pad_w: 1", [1, 12, 23, 34, 45, 50]),
        ("dilation: 1 dilation: 2", [13, 24, 35]),
    ):
        net = make(text % setting, (1, 1, 1, 5))
        set_blobs(net, [10.0, 1.0])  # correlation: the kernel is not turned round
        assert net(x)["y"].flatten().tolist() == wanted, setting


def test_kernel_once_for_each_axis_and_other_dimensions() -> None:
    net = make(
        'type: "Convolution" convolution_param { num_output: 4 kernel_size: 3 kernel_size: 2 pad: 1 }', (1, 3, 8, 8)
    )
    assert net.layers["one"].weight.shape == (4, 3, 3, 2)
    assert net.shapes["y"] == (1, 4, 8, 9)
    assert make('type: "Convolution" convolution_param { num_output: 4 kernel_size: 3 }', (1, 3, 8)).shapes["y"] == (
        1,
        4,
        6,
    )
    assert net(torch.zeros(0, 3, 8, 8))["y"].shape == (0, 4, 8, 9)


def test_deconvolution_enlarges_by_its_bilinear_kernel() -> None:
    setting = 'num_output: 1 kernel_size: 4 stride: 2 pad: 1 bias_term: false weight_filler { type: "bilinear" }'
    net = make(f'type: "Deconvolution" convolution_param {{ {setting} }}', (1, 1, 4, 4))
    y = net(torch.ones(1, 1, 4, 4))["y"]
    assert y.shape == (1, 1, 8, 8)
    assert y[0, 0, 2:6, 2:6].eq(1).all()  # away from the border a constant stays
    ramp = net(torch.arange(4.0).expand(1, 1, 4, 4))["y"][0, 0, 4]
    torch.testing.assert_close(ramp[1:7], torch.tensor([0.25, 0.75, 1.25, 1.75, 2.25, 2.75]))


@pytest.mark.parametrize(
    ("setting", "wrong"),
    [
        ("kernel_size: 3", "num_output of 1 or more"),
        ("num_output: 2", "kernel_size once or 2 times, got it 0 times"),
        ("num_output: 2 kernel_size: 0", "kernel_size of 1 or more"),
        ("num_output: 2 kernel_size: 1 stride: 0", "stride of 1 or more"),
        ("num_output: 2 kernel_size: 1 group: 0", "group of 1 or more"),
        ("num_output: 2 kernel_size: 1 group: 2", "in 2 groups"),
        ("num_output: 2 kernel_size: 1 kernel_h: 1 kernel_w: 1", "got a mixture"),
        ("num_output: 2 kernel_h: 1", "got a mixture"),
        ("num_output: 2 kernel_size: [1, 1, 1]", "got it 3 times"),
        ("num_output: 2 kernel_size: 9", ""),
        ("num_output: 2 kernel_size: 1 axis: 2", "axis 1"),
        ("num_output: 4294967295 kernel_size: 4294967295", "1 or more"),
        ("num_output: 2147483647 kernel_size: 1", "at most 2147483647"),
        ("num_output: 2 kernel_size: 1 pad: 2147483647", ""),
    ],
)
def test_wrong_settings(setting: str, wrong: str) -> None:
    with pytest.raises(ValueError, match=rf"layer 'one' \(Convolution\): .*{wrong}"):
        make(f'type: "Convolution" convolution_param {{ {setting} }}', (1, 3, 4, 4))
