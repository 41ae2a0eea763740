"""Counted by a clock that ticks once a look, so that nothing is timed."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import count

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from detpipe.backbone.caffe.inner_product import InnerProduct
from detpipe.inspect.layers import Call
from detpipe.inspect.step_cost import measure_cost, multiply_adds, total
from detpipe.inspect.step_memory import LiveTensors, measure_memory
from detpipe.inspect.step_time import measure_times


def clock() -> Callable[[], float]:
    ticks = count()
    return lambda: float(next(ticks))


def tiny() -> tuple[nn.Module, Callable[[], Tensor]]:
    network = nn.Sequential(nn.Linear(4, 3), nn.ReLU(inplace=True), nn.Linear(3, 3))
    x = torch.ones(2, 4)
    return network, lambda: network(x).sum()


def test_ticks_of_each_layer() -> None:
    network, step = tiny()
    times = measure_times(network, step, iterations=3, warm_up=1, backward=True, clock=clock())
    assert list(times.layers) == ["0", "1", "2"]
    assert times.layers["0"].forward == (1.0, 1.0, 1.0)
    # A linear layer has four nodes: the product, the transposition, and a gradient each for weight and bias.
    assert [one.median for one in times.layers.values()] == [(1.0, 4.0), (1.0, 1.0), (1.0, 4.0)]
    # Two looks a layer forward, two a node backward, and one at the end.
    assert times.watched.median == (2 * 3 + 1, 2 * 9 + 1)
    assert times.whole.median == (1.0, 1.0)
    assert network[0].weight.grad is not None  # type: ignore[index]


def test_the_forward_pass_alone() -> None:
    network, step = tiny()
    times = measure_times(network, step, iterations=2, warm_up=0, backward=False, clock=clock())
    assert times.layers["2"].median == (1.0, 0.0)
    assert times.whole.mean == (1.0, 0.0)


def test_bytes_of_each_layer() -> None:
    network, step = tiny()
    memory = measure_memory(network, step, backward=True).layers
    # 2 x 3 float32 are 24 bytes. The first layer keeps its input, 2 x 4; ReLU its output, which the next finds kept.
    assert [(one.output, one.kept) for one in memory.values()] == [(24, 32), (0, 24), (24, 0)]
    assert {one.kept for one in measure_memory(network, step, backward=False).layers.values()} == {0}


def test_live_tensors_by_hand() -> None:
    x = torch.ones(100)
    with LiveTensors() as tensors:
        a = x * 2  # 400 bytes
        b = a + 1  # 800
        a.mul_(3)
        view = b[:50]
        del a  # 400
        c = torch.cat([view, view])  # 800
        del b  # its view holds it
    assert (tensors.live, tensors.peak) == (800, 800)
    del view, c
    assert tensors.live == 0


def test_the_peak_has_what_is_kept_and_gradients() -> None:
    layer = nn.Linear(100, 100, bias=False)
    x = torch.ones(1, 100)
    peak = measure_memory(layer, lambda: layer(x).sum(), backward=True).peak
    assert 40_000 <= peak <= 42_000  # the gradient of the weight is 100 x 100 float32


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2), (2, 4, 7, 5)),
        (nn.ConvTranspose2d(4, 6, 3, stride=2), (2, 4, 5, 5)),
        (nn.Linear(5, 7), (3, 5)),
        (nn.Conv1d(2, 3, 3), (1, 2, 9)),
        (nn.BatchNorm2d(3), (2, 3, 4, 4)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_multiply_adds_are_half_of_torchs_flops(module: nn.Module, shape: tuple[int, ...]) -> None:
    x = torch.ones(shape)
    with FlopCounterMode(display=False) as flops:
        y = module(x)
    assert multiply_adds(Call("m", module, 1), (x,), (y,)) == flops.get_total_flops() / 2


def test_multiply_adds_of_a_transposed_matrix() -> None:
    module = InnerProduct(5, 7, 1, bias=True, transposed=True)
    assert multiply_adds(Call("m", module, 1), (torch.ones(3, 5),), (torch.ones(3, 7),)) == 3 * 5 * 7


def test_rows_of_all_that_was_measured() -> None:
    shared = nn.Linear(3, 3)
    network = nn.Sequential(nn.Linear(4, 3), shared, nn.ReLU(), shared)
    x = torch.ones(2, 4)
    cost = measure_cost(network, lambda: network(x).sum(), iterations=2, warm_up=0, backward=True, clock=clock())
    assert [(one.name, one.parameters, one.multiply_adds) for one in cost.layers] == [
        *[("0", 15, 24), ("1", 12, 18), ("2", 0, 0), ("1 (2)", 0, 18)],
    ]
    assert cost.parameters == 27
    kinds = cost.by_kind()
    assert [(kind, number, one.parameters) for kind, (number, one) in kinds.items()] == [
        ("Linear", 3, 27),
        ("ReLU", 1, 0),
    ]
    assert cost.slowest()[0].kind == "Linear"
    assert json.loads(json.dumps(cost.to_json()))["layers"][1]["shape"] == [2, 3]
    assert total("none", []).seconds == 0
