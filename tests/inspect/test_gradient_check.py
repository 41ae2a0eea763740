from __future__ import annotations

import math
import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from detpipe.backbone.caffe.lrn import LRNWithinChannel
from detpipe.backbone.depthwise_conv import DepthwiseConv2d
from detpipe.heads.bbox_regressor import BoxRegressor
from detpipe.heads.region_head import BoxLoss
from detpipe.heads.softmax import softmax_loss
from detpipe.inspect.gradient_check import GradientError, gradient_check
from tests.backbone.caffe.one_layer import make


class Square(torch.autograd.Function):
    """x^2, whose gradient is 2 x times `factor`, and of element 1 something else again where `extra` is not 0."""

    @staticmethod
    def forward(ctx, x: Tensor, factor: float, extra: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.factor, ctx.extra = factor, extra
        return x * x

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        own = 2 * x * ctx.factor
        own[1] += ctx.extra
        return grad * own, None, None


class Calls(nn.Module):
    """A function of the parts and the inputs as a module."""

    def __init__(self, function: Callable[..., object], *parts: nn.Module) -> None:
        super().__init__()
        self.function, self.parts = function, nn.ModuleList(parts)

    def forward(self, *inputs: Tensor) -> object:
        return self.function(*self.parts, *inputs)


def square(factor: float = 1, extra: float = 0) -> nn.Module:
    return Calls(lambda x: Square.apply(x, factor, extra))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


# --- The checker ------------------------------------------------------------------------------------------------------


def test_a_right_gradient_passes_and_what_was_compared_is_counted() -> None:
    assert gradient_check(square(), torch.tensor([1.0, 2.0, 3.0])) == {"input 0": 3}
    assert gradient_check(nn.Linear(4, 2), torch.randn(3, 4)) == {"input 0": 12, "weight": 8, "bias": 2}


def test_the_error_names_tensor_and_element_with_both_numbers() -> None:
    """By hand: x^2 has a gradient of 4 at 2, and half more is given; both times the output's weight."""
    with pytest.raises(GradientError) as error:
        gradient_check(square(extra=0.5), torch.tensor([1.0, 2.0, 3.0]))
    found = re.fullmatch(
        r"Calls: wrong gradients: input 0 at \(1,\), value 2: .*numerical:tensor\(\[\[([\d.]+)\].* "
        r"analytical:tensor\(\[\[([\d.]+)\].* \(1 of 3 elements are wrong\)",
        str(error.value),
    )
    assert found is not None
    numerical, analytical = float(found[1]), float(found[2])
    assert analytical / numerical == pytest.approx(4.5 / 4, abs=1e-4)
    assert 4 <= numerical <= 8  # a weight between 1 and 2


def test_every_wrong_tensor_is_named() -> None:
    """A linear layer whose backward pass was forgotten."""
    detached = Calls(lambda linear, x: linear(x).detach(), nn.Linear(2, 1))
    with pytest.raises(GradientError, match=r"input 0 at .*; parts\.0\.weight at .*; parts\.0\.bias at "):
        gradient_check(detached, torch.randn(1, 2))


def test_the_threshold_is_relative_and_absolute() -> None:
    """By hand: 2 x, 200 or 0.2, is off by a share of 0.001, which t + t |2 x| allows with another t for each x."""
    for x in (100.0, 0.1):
        least = 0.001 * 2 * x / (1 + 2 * x)  # with a weight of 1; of 2 it is up to twice as much
        values = torch.tensor([x, x])
        gradient_check(square(factor=1.001), values, threshold=least * 2.02)
        with pytest.raises(GradientError):
            gradient_check(square(factor=1.001), values, threshold=least * 0.98)


def test_a_gradient_that_is_no_number_is_wrong() -> None:
    with pytest.raises(GradientError, match=r"analytical:tensor.*nan"):
        gradient_check(square(extra=math.nan), torch.ones(3))


def test_kinks_are_passed_over_where_that_is_asked() -> None:
    x = torch.tensor([-1.0, -0.005, 0.0, 0.02, 1.0])
    assert gradient_check(nn.ReLU(), x, stepsize=1e-2, kink_range=0.01) == {"input 0": 3}
    with pytest.raises(GradientError, match=r"at \(2,\), value 0: .*\(1 of 5 elements"):
        gradient_check(nn.ReLU(), x)
    around_one = torch.tensor([-1.0, 1.0, 0.0, 2.0])  # the kinks of hardtanh
    assert gradient_check(nn.Hardtanh(), around_one, kink=1, kink_range=0.1) == {"input 0": 2}


def test_several_inputs_and_outputs_integers_among_them() -> None:
    def gathered(x: Tensor, index: Tensor, y: Tensor) -> dict[str, object]:
        return {"taken": x[index] * y, "more": [(x.sum(), x.argmax())]}

    x, index, y = torch.randn(4), torch.tensor([3, 0]), torch.randn(2)
    assert gradient_check(Calls(gathered), [x, index, y]) == {"input 0": 4, "input 2": 2}
    assert gradient_check(Calls(gathered), [x, index, y], skip=["input 2"]) == {"input 0": 4}


def test_module_and_inputs_stay_as_they_are() -> None:
    net = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.ReLU(inplace=True), nn.Dropout(0.5)).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    x = torch.randn(4, 3)
    copied, state = x.clone(), torch.get_rng_state()
    gradient_check(net, x)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert torch.equal(x, copied)
    assert x.grad is None
    assert net[0].weight.grad is None
    assert torch.equal(torch.get_rng_state(), state)


def test_buffers_that_a_forward_pass_changes_are_put_back() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.ones(()))

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return x * self.calls

    assert gradient_check(Counting(), torch.randn(2)) == {"input 0": 2}


def test_of_large_tensors_a_sample_by_the_seed() -> None:
    x = torch.arange(1.0, 1001.0)
    assert gradient_check(square(), x) == {"input 0": 100}
    wrong = square(factor=2)
    messages = []
    for seed in (1, 1, 2):
        with pytest.raises(GradientError, match=r"\(7 of 7 elements") as error:
            gradient_check(wrong, x, max_elements=7, seed=seed)
        messages.append(str(error.value))
    assert messages[0] == messages[1] != messages[2]
    assert gradient_check(square(), x[:150], max_elements=None) == {"input 0": 150}


def test_an_empty_input() -> None:
    assert gradient_check(nn.Linear(4, 2), torch.zeros(0, 4)) == {"input 0": 0, "weight": 8, "bias": 2}


def test_frozen_parameters_are_left_alone() -> None:
    net = nn.Linear(4, 2)
    net.weight.requires_grad_(False)
    assert gradient_check(net, torch.randn(1, 4)) == {"input 0": 4, "bias": 2}


@pytest.mark.parametrize(
    ("module", "x", "options", "message"),
    [
        (nn.ReLU(), torch.ones(2), {"stepsize": 0}, "stepsize and threshold above 0"),
        (
            nn.ReLU(),
            torch.ones(2),
            {"stepsize": 1e-2, "kink_range": 1e-3},
            "kink_range: .* got 0.001",
        ),
        (nn.ReLU(), torch.zeros(2), {"kink_range": 0.1}, "input 0: .*add 'input 0' to skip"),
        (nn.ReLU(), torch.ones(2), {"skip": ["weight"]}, r"skip: .*'input 0'.* got \['weight'\]"),
        (nn.ReLU(), torch.ones(2), {"skip": ["input 0"]}, "expected .* to compare, got none"),
        (nn.Identity(), torch.ones(2, dtype=torch.int64), {}, "expected a floating-point output"),
    ],
)
def test_what_can_not_be_checked(module: nn.Module, x: Tensor, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        gradient_check(module, x, **options)
    assert not isinstance(error.value, GradientError)


# --- Layers of ours with a formula or a backward pass of their own ----------------------------------------------------


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 1, 1), (5, 2, 2), (7, 1, 3), ((3, 5), (1, 2), (0, 1))])
def test_depthwise_convolutions(kernel: int, stride: int, padding: int) -> None:
    layer = DepthwiseConv2d(2, 4, kernel, stride, padding, groups=2)
    gradient_check(layer, torch.randn(2, 2, 7, 6))


def test_a_wrong_strip_of_a_depthwise_kernel_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from detpipe.backbone import depthwise_conv

    right = depthwise_conv.weight_gradient
    monkeypatch.setattr(depthwise_conv, "weight_gradient", lambda *given: right(*given).roll(1, 3))
    with pytest.raises(GradientError, match=r"^DepthwiseConv2d: wrong gradients: weight at \(\d, 0, \d, \d\)"):
        gradient_check(DepthwiseConv2d(2, 2, 5, padding=2, groups=2), torch.randn(1, 2, 6, 6))


@pytest.mark.parametrize(
    "layer",
    [
        'type: "LRN" lrn_param { local_size: 3 alpha: 0.5 beta: 0.75 k: 2 }',
        'type: "LRN" lrn_param { local_size: 3 alpha: 0.5 norm_region: WITHIN_CHANNEL }',
        'type: "Pooling" pooling_param { pool: AVE kernel_size: 3 stride: 2 pad: 2 }',
        'type: "Pooling" pooling_param { pool: MAX kernel_size: 3 stride: 2 pad: 2 }',
        'type: "Pooling" pooling_param { pool: AVE kernel_size: 2 stride: 3 }',
        'type: "Pooling" pooling_param { pool: MAX global_pooling: true }',
        'type: "BatchNorm"',
        'type: "Scale" scale_param { bias_term: true filler { type: "gaussian" } bias_filler { type: "gaussian" } }',
        'type: "Power" power_param { power: 3 scale: 0.5 shift: 1 }',
        'type: "PReLU"',
        'type: "PReLU" prelu_param { channel_shared: true }',
        'type: "AbsVal"',
    ],
)
@pytest.mark.parametrize("train", [False, True])
def test_caffes_layers(layer: str, train: bool) -> None:
    net = make(layer, (2, 3, 5, 4), train=train)
    # Distinct numbers far from each other and from 0: no maximum changes and no kink is near.
    x = (torch.randperm(120).reshape(2, 3, 5, 4) - 59.5) / 30
    counts = gradient_check(net, x, max_elements=40)
    assert counts["input 0"] == 40


def test_softmax_with_loss_in_a_caffe_net() -> None:
    layer = 'type: "SoftmaxWithLoss" loss_param { ignore_label: 1 }'
    net = make(layer, (4, 3), (4,))
    assert gradient_check(net, [torch.randn(4, 3), torch.tensor([0, 1, 2, 1])]) == {"input 0": 12}


def test_lrn_within_channel_alone() -> None:
    gradient_check(LRNWithinChannel(5, 2.0, 0.75), torch.randn(1, 2, 4, 4))


def test_heads_and_their_losses_which_are_computed_in_float32() -> None:
    """Caffe's own stepsize and threshold, as its tests of float32 have them."""
    as_caffe = {"stepsize": 1e-2, "threshold": 1e-3}
    labels = torch.tensor([0, 2, 1])
    smoothed = Calls(lambda logits: softmax_loss(logits, labels, 0.1))
    assert gradient_check(smoothed, torch.randn(3, 3), **as_caffe) == {"input 0": 9}

    regressor = BoxRegressor(4, 2, generator=torch.Generator().manual_seed(0))
    targets = torch.randn(3, 4) / 10
    loss = Calls(lambda head, features: head.loss(head(features), labels, targets), regressor)
    assert gradient_check(loss, torch.randn(3, 4), **as_caffe)["parts.0.linear.weight"] == 32
    giou = Calls(lambda head, features: head.loss(head(features), labels, targets, kind=BoxLoss.giou), regressor)
    assert gradient_check(giou, torch.randn(3, 4), **as_caffe)["parts.0.linear.weight"] == 32
