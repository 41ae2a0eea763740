from __future__ import annotations

import pytest
import torch

from tests.backbone.caffe.one_layer import make, run

A, B = torch.tensor([[1.0, 5.0]]), torch.tensor([[3.0, 2.0]])


@pytest.mark.parametrize(
    ("setting", "wanted"),
    [
        ("", [4, 7]),
        ("operation: SUM coeff: 1 coeff: -2", [-5, 1]),
        ("operation: PROD", [3, 10]),
        ("operation: MAX", [3, 5]),
    ],
)
def test_eltwise_by_hand(setting: str, wanted: list[float]) -> None:
    assert run(f'type: "Eltwise" eltwise_param {{ {setting} }}', A, B).tolist() == [wanted]


def test_eltwise_of_three_and_of_nothing() -> None:
    assert run('type: "Eltwise" eltwise_param { coeff: [1, 2, 3] }', A, A, A).tolist() == [[6, 30]]
    empty = torch.zeros(0, 2)
    assert make('type: "Eltwise"', A.shape, A.shape)(empty, empty)["y"].shape == (0, 2)


def test_concat_and_its_old_name_of_the_axis() -> None:
    assert run('type: "Concat"', A, B).tolist() == [[1, 5, 3, 2]]
    assert run('type: "Concat" concat_param { axis: -2 }', A, B).tolist() == [[1, 5], [3, 2]]
    assert run('type: "Concat" concat_param { concat_dim: 0 }', A, B).shape == (2, 2)


def test_slice_at_points_and_in_equal_parts() -> None:
    x = torch.arange(6.0).reshape(1, 6)
    net = make('type: "Slice" top: "p" top: "q" top: "r" slice_param { slice_point: 1 slice_point: 3 }', x.shape)
    assert {name: blob.flatten().tolist() for name, blob in net(x).items()} == {"p": [0], "q": [1, 2], "r": [3, 4, 5]}
    net = make('type: "Slice" top: "p" top: "q" slice_param { axis: -1 }', x.shape)
    assert net(x)["q"].tolist() == [[3, 4, 5]]
    assert net.graph_module()(x)["q"].tolist() == [[3, 4, 5]]


def test_split_and_silence() -> None:
    net = make('type: "Split" top: "p" top: "q"', A.shape)
    out = net(A)
    assert torch.equal(out["p"], A)
    assert torch.equal(out["q"], A)
    from detpipe.backbone.caffe.load import build_net
    from detpipe.backbone.caffe.prototxt import parse_prototxt

    text = 'input: "a" input_shape { dim: 1 dim: 2 } layer { name: "s" type: "Silence" bottom: "a" }'
    assert build_net(parse_prototxt(text))(A) == {}


@pytest.mark.parametrize(
    ("layer", "shapes", "wrong"),
    [
        ('type: "Eltwise"', [(1, 2), (1, 3)], "the same shape"),
        ('type: "Eltwise"', [(1, 2)], "bottoms, got 1"),
        ('type: "Eltwise" eltwise_param { coeff: 1 }', [(1, 2), (1, 2)], "a coeff for each"),
        ('type: "Concat"', [(1, 2), (2, 2)], "differ only along axis 1"),
        ('type: "Slice" top: "p" top: "q"', [(1, 3)], "multiple of 2 tops"),
        ('type: "Slice" top: "p" top: "q" slice_param { slice_point: 3 }', [(1, 3)], "slice_point below"),
        (
            'type: "Slice" top: "p" top: "q" slice_param { slice_point: 1 slice_point: 2 }',
            [(1, 3)],
            "slice_point below",
        ),
    ],
)
def test_wrong_settings(layer: str, shapes: list[tuple[int, ...]], wrong: str) -> None:
    with pytest.raises(ValueError, match=f"layer 'one' .*{wrong}"):
        make(layer, *shapes)
