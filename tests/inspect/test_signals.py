"""Against formulas: of a linear layer, of the softmax loss, of He's and Glorot's variances."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detpipe.inspect.signal_scale import Verdict, activation_scale, gradient_scale, signal_scale
from detpipe.inspect.signals import dead_share, feature_maps, measure_signals


def test_a_linear_layer_by_formula() -> None:
    layer = nn.Linear(2, 3)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, -1.0]]))
        layer.bias.zero_()
    x, labels = torch.tensor([[1.0, 2.0], [3.0, 0.0]]), torch.tensor([0, 2])
    signals = measure_signals(layer, lambda: F.cross_entropy(layer(x), labels))
    (found,) = signals.layers
    outputs = torch.tensor([[1.0, 4.0, -1.0], [3.0, 0.0, 3.0]])  # x W^T by hand
    assert (found.shape, found.kind, found.dead) == ((2, 3), "Linear", 0.0)
    assert signals.data.mean == 1.5
    assert found.activation.std == pytest.approx(outputs.numpy().std())
    assert found.activation.zeros == pytest.approx(1 / 6)
    # Of the mean cross entropy: (softmax - one-hot) / N, and for the weights its product with x.
    gradient = (outputs.softmax(1) - F.one_hot(labels, 3)) / 2
    assert found.gradient is not None
    assert found.weight_gradient is not None
    assert found.gradient.l2 == pytest.approx(float(gradient.norm()))
    assert found.weight_gradient.l2 == pytest.approx(float((gradient.T @ x).norm()))
    assert signals.loss == pytest.approx(float(F.cross_entropy(outputs, labels)))
    assert layer.weight.grad is None


def test_an_output_is_measured_before_the_next_layer_changes_it() -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True), nn.Linear(4, 2))
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    first, relu, last = measure_signals(network, lambda: network(x).square().sum()).layers
    assert first.activation.min < 0 == relu.activation.min
    assert first.gradient is not None
    assert relu.gradient is not None
    assert first.gradient.l2 < relu.gradient.l2  # what ReLU closed passes nothing back
    assert relu.weight is relu.weight_gradient is None
    assert last.weight is not None


def test_a_layer_that_gives_no_floats_and_a_loss_that_is_no_number() -> None:
    layer = nn.Linear(1, 1)
    with torch.no_grad():
        layer.weight.fill_(math.inf)
    signals = measure_signals(layer, lambda: layer(torch.ones(2, 1)).sum())
    assert signals.layers[0].activation.inf == 2
    assert signals.to_json()["loss"] is None
    with pytest.raises(ValueError, match="expected a network with a layer"):
        measure_signals(nn.Sequential(), lambda: torch.ones(()))


def test_dead_channels_by_hand() -> None:
    output = torch.zeros(2, 4, 1, 2)
    output[1, 0, 0, 1] = 1.0
    assert dead_share(output) == 0.75
    assert dead_share(torch.ones(3)) is None
    assert dead_share(torch.ones(0, 3)) is None


def chain(gain: float, depth: int = 10, width: int = 64) -> tuple[nn.Sequential, Tensor]:
    """Linear layers and ReLUs whose weights have the variance gain / width; 2 is He's (2015, section 2.2)."""
    generator = torch.Generator().manual_seed(0)
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [nn.Linear(width, width, bias=False), nn.ReLU()]
        nn.init.normal_(layers[-2].weight, std=math.sqrt(gain / width), generator=generator)  # type: ignore[arg-type]
    return nn.Sequential(*layers), torch.randn(256, width, generator=generator)


@pytest.mark.parametrize(
    ("gain", "verdict"),
    [(2.0, Verdict.holds), (0.4, Verdict.vanishes), (10.0, Verdict.explodes), (0, Verdict.vanishes)],
)
def test_fillers_that_hold_vanish_and_explode(gain: float, verdict: Verdict) -> None:
    network, x = chain(gain)
    signals = measure_signals(network, lambda: network(x).square().mean())
    scale = activation_scale(signals)
    assert scale is not None
    assert scale.verdict is verdict
    if gain:  # each layer changes the variance by gain / 2
        assert scale.factor_a_layer == pytest.approx(math.sqrt(gain / 2), rel=0.1)
        back = gradient_scale(signals)
        assert back is not None
        assert back.factor_a_layer == pytest.approx(math.sqrt(gain / 2), rel=0.2)


def test_a_layer_beside_the_way_to_the_loss_does_not_count() -> None:
    network, x = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)]), torch.ones(2, 4)

    def loss() -> Tensor:
        network[2](x * 1000)
        return network[1](network[0](x)).sum()

    scale = activation_scale(measure_signals(network, loss))
    assert scale is not None
    assert scale.layers == 2


def test_scales_at_the_border() -> None:
    assert signal_scale([1.0, 100.0]).verdict is signal_scale([100.0, 1.0]).verdict is Verdict.holds
    assert signal_scale([1.0, 101.0]).verdict is signal_scale([1.0, 1.0], finite=False).verdict is Verdict.explodes
    assert signal_scale([0.0, 0.0]).verdict is Verdict.vanishes
    assert signal_scale([0.0, 0.0]).to_json()["factor"] is None
    assert signal_scale([math.nan]).verdict is Verdict.explodes
    with pytest.raises(ValueError, match="or more, got none"):
        signal_scale([])


def test_feature_maps_of_the_first_image() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.ReLU(inplace=True), nn.Flatten())
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([1.0, -1.0]).view(2, 1, 1, 1))
    x = torch.arange(8.0).view(2, 1, 2, 2)
    found = feature_maps(network, lambda: network(x), ["1", "0"])
    assert list(found) == ["1", "0"]
    assert found["0"].tolist() == [[[0, 1], [2, 3]], [[0, -1], [-2, -3]]]
    assert found["1"][1].count_nonzero() == 0
    with pytest.raises(ValueError, match="got 2, conv9"):
        feature_maps(network, lambda: network(x), ["0", "2", "conv9"])
