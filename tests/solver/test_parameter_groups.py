"""Who learns how fast, and who decays."""

from __future__ import annotations

import pytest
from torch import nn

from detpipe.solver.parameter_groups import parameter_groups


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 2)


def by_name(network: Network) -> dict[str, tuple[float, float]]:
    groups = parameter_groups(network, new_modules=[network.head], new_lr_mult=10, weight_decay=0.01)
    parameters = dict(network.named_parameters())
    for group in groups:
        assert all(parameters[name] is p for name, p in zip(group["names"], group["params"], strict=True))
    return {name: (group["lr_mult"], group["weight_decay"]) for group in groups for name in group["names"]}


def test_new_layers_learn_faster_and_only_weights_decay() -> None:
    assert by_name(Network()) == {
        "conv.weight": (1, 0.01),
        "conv.bias": (1, 0),
        "norm.weight": (1, 0),
        "norm.bias": (1, 0),
        "head.weight": (10, 0.01),
        "head.bias": (10, 0),
    }


def test_frozen_parameters_are_in_no_group() -> None:
    network = Network()
    network.conv.requires_grad_(False)
    network.norm.requires_grad_(False)
    assert set(by_name(network)) == {"head.weight", "head.bias"}


def test_the_order_is_stable() -> None:
    assert list(by_name(Network())) == list(by_name(Network()))


def test_nothing_to_train() -> None:
    network = Network()
    network.requires_grad_(False)
    with pytest.raises(ValueError, match="everything is frozen"):
        by_name(network)


def test_multipliers_by_pattern() -> None:
    network = Network()
    groups = parameter_groups(
        network,
        new_modules=[network.head],
        new_lr_mult=10,
        weight_decay=0.01,
        lr_mult={"*.bias": 2, "norm.*": 0.5},
        decay_mult={"*": 1, "*.bias": 0, "head.bias": 3},
    )
    found = {name: (group["lr_mult"], group["weight_decay"]) for group in groups for name in group["names"]}
    assert found == {
        "conv.weight": (1, 0.01),
        "conv.bias": (2, 0),
        "norm.weight": (0.5, 0.01),
        "norm.bias": (0.5, 0),  # of two patterns the last
        "head.weight": (10, 0.01),
        "head.bias": (20, 0.03),
    }


def test_a_pattern_that_fits_nothing_is_named() -> None:
    with pytest.raises(ValueError, match=r"solver\.lr_mult: expected names of parameters .*\['conv.weight', .*'fc\*'"):
        parameter_groups(Network(), new_modules=[], new_lr_mult=1, weight_decay=0, lr_mult={"fc*": 2})


def test_what_the_network_states_is_multiplied() -> None:
    """Rate 10 (new) x 3 (lr_mult) x 2 (stated); decay 0.1 x 0.5 (decay_mult) x 4 (stated)."""
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    groups = parameter_groups(
        network,
        new_modules=[network[1]],
        new_lr_mult=10.0,
        weight_decay=0.1,
        lr_mult={"1.*": 3.0},
        decay_mult={"1.*": 0.5},
        stated={"1.weight": (2.0, 4.0), "0.weight": (0.0, 0.0)},
    )
    found = {name: (group["lr_mult"], group["weight_decay"]) for group in groups for name in group["names"]}
    assert found == {
        "0.weight": (0.0, 0.0),
        "0.bias": (1.0, 0.0),
        "1.weight": (60.0, pytest.approx(0.2)),
        "1.bias": (30.0, 0.05),
    }
